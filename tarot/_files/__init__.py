"""Atomic writes, locks, paths and strict reading of JSON."""
