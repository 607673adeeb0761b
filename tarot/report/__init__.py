"""Cells as tables, figures and one HTML page."""

from tarot.report.comparison import HEADLINE, METRICS, Comparison, compare
from tarot.report.page import write_report
from tarot.report.table import ARM_HEADER, arm_rows, summary_rows

__all__ = ["ARM_HEADER", "HEADLINE", "METRICS", "Comparison", "arm_rows", "compare", "summary_rows", "write_report"]
