"""Results of comparisons as plain data: files, metrics, and what a reader must know. Imports no torch."""
