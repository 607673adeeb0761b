"""Statistics of paired answers: gains, means, spread over seeds, tests."""
