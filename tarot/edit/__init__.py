"""Edits: the rotation, where it applies, how it is applied or merged, how it is stored and shared."""
