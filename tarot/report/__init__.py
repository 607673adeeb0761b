"""Show results as tables, figures and one HTML page."""
