"""Statistics of answers to the same documents: gains, means, spread over seeds, and tests of many comparisons."""
