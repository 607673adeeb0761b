"""Figures: what each one shows, and the SVG that draws it."""
