"""Maximise a plain callable over the unit cube, within a budget of evaluations."""

from tarot.search.log import TrialLog
from tarot.search.maximise import SEARCHES, Result, maximise
from tarot.search.trial import Trial

__all__ = ["SEARCHES", "Result", "Trial", "TrialLog", "maximise"]
