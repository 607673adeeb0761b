"""Compare arms on the same documents, with statistics, a regression gate, grids and Ray."""
