"""Run cells and score candidates on the machines of a Ray cluster."""
