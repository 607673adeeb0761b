"""Cells as tables, figures and one HTML page."""

from tarot.report.comparison import METRICS, Comparison, compare
from tarot.report.page import write_report
from tarot.report.table import summary_rows

__all__ = ["METRICS", "Comparison", "compare", "summary_rows", "write_report"]
