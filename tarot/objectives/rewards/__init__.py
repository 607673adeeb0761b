"""Rewards of generated texts, by name, and what else is measured of a text."""
