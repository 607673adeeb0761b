"""Baselines that change weights: methods that an edit has to beat."""
