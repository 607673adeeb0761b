"""Collects, in the controlling process, what the reports of tests carry."""

import pytest

from tarot.pytest_plugin.session import SessionState


class Collector:
    """Plugin of the controlling process that adds what tests measured to its state, wherever they ran."""

    def __init__(self, state: SessionState) -> None:
        self.state = state

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a report's comparisons and notes.

        If a cell was measured twice, keep the comparison with more arms, or else the later one: the arms that both have
        are equal.
        """
        notes: list[str] = []
        for values in getattr(report, "tarot_cells", ()):
            from tarot.evaluation.results import Arm, Comparison, missing_number_notes  # only in runs that measure

            comparison = Comparison(**{**values, "arms": tuple(Arm(**arm) for arm in values["arms"])})
            key = (comparison.identity, comparison.adapter, comparison.keys)
            known = self.state.comparisons.get(key)
            if known is None or len(known.arms) <= len(comparison.arms):
                self.state.comparisons[key] = comparison
            notes += missing_number_notes(comparison)
        notes += getattr(report, "tarot_notes", ())
        self.state.notes += [note for note in dict.fromkeys(notes) if note not in self.state.notes]
        self.state.measuring_failed |= getattr(report, "tarot_failed", False)
