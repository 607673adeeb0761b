"""Cells and rewarded texts as tables, figures and one HTML page."""

from tarot.report.comparison import HEADLINE, METRICS, Comparison, Metric, compare, mean_of_draws, named_arms
from tarot.report.page import write_report
from tarot.report.rewards import FRONT_HEADER, REWARD_HEADER, front_rows, reward_rows
from tarot.report.table import ARM_HEADER, aligned, arm_rows, summary_rows, with_interval

__all__ = [
    "ARM_HEADER",
    "FRONT_HEADER",
    "HEADLINE",
    "METRICS",
    "REWARD_HEADER",
    "Comparison",
    "Metric",
    "aligned",
    "arm_rows",
    "compare",
    "front_rows",
    "mean_of_draws",
    "named_arms",
    "reward_rows",
    "summary_rows",
    "with_interval",
    "write_report",
]
