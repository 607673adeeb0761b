"""Cells as tables, figures and one HTML page."""

from tarot.report.comparison import HEADLINE, METRICS, Comparison, compare
from tarot.report.page import write_report
from tarot.report.rewards import FRONT_HEADER, REWARD_HEADER, front_rows, reward_rows
from tarot.report.table import ARM_HEADER, arm_rows, summary_rows

__all__ = [
    "ARM_HEADER",
    "FRONT_HEADER",
    "HEADLINE",
    "METRICS",
    "REWARD_HEADER",
    "Comparison",
    "arm_rows",
    "compare",
    "front_rows",
    "reward_rows",
    "summary_rows",
    "write_report",
]
