"""The verdict of the regression gate on one comparison: scores then and now, lost documents, and why it fails."""

from dataclasses import dataclass

from tarot.evaluation.statistics.gains import Gain


@dataclass(frozen=True)
class ScoreChange:
    """The edited arm's score in the reference run and now, on the documents of both.

    Attributes:
        metric: name in METRICS.
        then: score in the reference run, a fraction.
        now: score in this run, a fraction.
        gain: now minus then, with its interval and the documents gained and lost; p is corrected for all comparisons.
        regressed: whether the loss fails the gate.
    """

    metric: str
    then: float
    now: float
    gain: Gain
    regressed: bool


@dataclass(frozen=True)
class LostDocument:
    """A document that the edited model answered right in the reference run and wrong now, with the answers in words."""

    text: str
    right: str
    then: str
    now: str


@dataclass(frozen=True)
class Verdict:
    """The gate's verdict on one comparison.

    Attributes:
        name: name of the comparison.
        failed: whether it fails the gate.
        reasons: why it fails, or what else differs, in phrases, the most important first.
        scores: the guarded metrics; empty if no run measured the comparison as the other did.
        lost: every document that was lost, by the metric that fell, or by the headline metric if none did.
        command: shell line that repeats the comparison; "" if there is none.
        not_repeated: what the command does not repeat of the edit; "" if it repeats all.
    """

    name: str
    failed: bool
    reasons: tuple[str, ...]
    scores: tuple[ScoreChange, ...] = ()
    lost: tuple[LostDocument, ...] = ()
    command: str = ""
    not_repeated: str = ""
