"""Cells as tables, figures and one HTML page."""

from tarot.report.comparison import HEADLINE, METRICS, Comparison, Metric, compare, mean_of_draws, named_arms
from tarot.report.page import write_report
from tarot.report.table import ARM_HEADER, arm_rows, summary_rows

__all__ = [
    "ARM_HEADER",
    "HEADLINE",
    "METRICS",
    "Comparison",
    "Metric",
    "arm_rows",
    "compare",
    "mean_of_draws",
    "named_arms",
    "summary_rows",
    "write_report",
]
