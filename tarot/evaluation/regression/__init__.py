"""The regression gate: the answers of a run against those of an earlier one. Imports no torch."""
