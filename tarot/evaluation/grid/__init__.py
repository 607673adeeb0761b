"""Grids of comparisons: cells, their runner, and the cache of adapters."""
