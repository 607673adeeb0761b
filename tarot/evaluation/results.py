"""The plain data of one measured cell: a model, a task, a number of shots and a seed, with every arm on the same
documents.

No torch here: reports, gates and terminal summaries read cells without loading a model.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

from annotated_types import Interval

from tarot._files.strict_json import Count, Fraction, Name, Number
from tarot.errors import TarotError, describe_missing_numbers

if TYPE_CHECKING:
    from tarot.evaluation.statistics.gains import Gain

ZERO_SHOT, FEW_SHOT, EDITED = "zero-shot", "few-shot", "edited"  # arms that every cell has
OUTSIDE = -1  # index of an answer that is none of the choices

Choice = Annotated[int, Interval(ge=OUTSIDE, lt=100_000)]
"""Index of a choice, or OUTSIDE."""


@dataclass(frozen=True)
class Arm:
    """One way to answer a cell's documents.

    `predicted` is the likeliest choice of each document, `greedy` the choice that greedy decoding over the whole
    vocabulary writes (OUTSIDE where it writes none of them). `gold_probability` is that of the right answer. `labels`
    counts the labelled documents that the arm was allowed to see. `draw` is the place, 1 the best, of one more choice
    and order of the few-shot arm's shots among all that were tried; 0 for every other arm. `describe_missing_numbers` lists the
    rows of documents whose log-probabilities are NaN or infinite: their answers are OUTSIDE, their probability is 0.
    """

    name: Name
    labels: Count
    predicted: tuple[Choice, ...]
    greedy: tuple[Choice, ...]
    gold_probability: tuple[Fraction, ...]
    seconds: Number
    draw: Count = 0
    without_number: tuple[Count, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Arms of one model, task, number of shots and seed, on the same documents.

    `keys` digest the documents and `gold` holds their right answers, in the arms' order. `texts` are the documents as
    asked. `curves` maps a search to its score after each trial, the identity first; `head_angles` is the mean angle in
    radians of each head that was edited, `layer x head`, for the layers listed in `layers`. `command` repeats the cell,
    but for what `not_repeated` says became of the edit: that its search was stopped, or its angles scaled.
    `asked` digests what a grid asked for, so that it is not measured again.
    """

    model: Name
    task: Name
    num_fewshot: Count
    seed: int
    samples: Count
    budget: Count
    search: Name
    space: Name
    objective: Name
    command: str
    keys: tuple[Name, ...]
    gold: tuple[Choice, ...]
    texts: tuple[str, ...]
    arms: tuple[Arm, ...]
    seconds: Number
    reference_seconds: Number  # of a fixed workload in the same session: times compare as ratios to it
    adapter: Name = "base"  # fingerprint of the edit
    mixed: bool = False  # whether the search's prompts mixed numbers of shots; the documents' have `num_fewshot`
    layers: tuple[Count, ...] = ()
    head_angles: tuple[tuple[Number, ...], ...] = ()
    curves: Mapping[Name, tuple[float, ...]] = field(default_factory=dict)
    versions: Mapping[Name, Name] = field(default_factory=dict)
    asked: str = ""
    not_repeated: str = ""
    dtype: Name = "auto"  # that the model was loaded with

    @cached_property
    def id(self) -> str:
        """What a table calls the cell."""
        return f"{self.model} {self.task} {self.shots}-shot seed {self.seed}"

    @property
    def shots(self) -> str:
        """What the cell was tuned on, as a user writes it: a number, or `mix`."""
        return "mix" if self.mixed else str(self.num_fewshot)

    @property
    def draws(self) -> tuple[Arm, ...]:
        """Further choices and orders of the few-shot arm's shots, the best first."""
        return tuple(sorted((arm for arm in self.arms if arm.draw), key=lambda arm: arm.draw))

    @property
    def base(self) -> Arm:
        """The unedited model under the prompts that the edited one sees."""
        return self.arm(FEW_SHOT if self.num_fewshot else ZERO_SHOT)

    def gain(self, metric: str = "greedy_f1", *, arm: str = EDITED, over: str | None = None) -> "Gain":
        """Score of one arm minus that of another on the same documents, with its 95% interval and p-value.

        Args:
            metric: `greedy_f1`, `greedy_acc`, `f1` or `acc`.
            arm: the arm in question.
            over: the arm it is compared with; None for the base.

        Raises:
            UnknownName: no such metric.
            TarotError: no such arm.

        Example:
            >>> comparison.gain("greedy_f1").low > 0
            True
        """
        from tarot.evaluation.metrics import metric_named

        chosen = metric_named(metric)
        before, after = self.base if over is None else self.arm(over), self.arm(arm)
        return chosen.gain(self.gold, chosen.answers(before), chosen.answers(after))

    def arm(self, name: str) -> Arm:
        """The arm of that name; TarotError names those there are."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise TarotError(f"an arm among {', '.join(arm.name for arm in self.arms)}", repr(name))


# What else cells may differ in, besides model, task, shots and seed, and how it is said.
DETAILS = {
    "search": "{}",
    "space": "in {}",
    "objective": "for {}",
    "samples": "{} samples",
    "budget": "budget {}",
    "dtype": "{}",
}


def search_labels(comparisons: Sequence[Comparison]) -> list[str]:
    """Of each cell, in words, what tells its search from those of the others; empty where all searched alike."""
    told: list[tuple[str, ...]] = [()] * len(comparisons)
    for name, form in DETAILS.items():
        values: dict[tuple[str, ...], set[object]] = defaultdict(set)
        for comparison, words in zip(comparisons, told, strict=True):
            values[words].add(getattr(comparison, name))
        if any(len(found) > 1 for found in values.values()):
            told = [
                (*words, form.format(getattr(comparison, name)))
                for comparison, words in zip(comparisons, told, strict=True)
            ]
    return [", ".join(words) for words in told]


def comparison_names(comparisons: Sequence[Comparison]) -> list[str]:
    """The cells' names, with what tells their searches apart."""
    return [
        ", ".join(filter(None, each))
        for each in zip((comparison.id for comparison in comparisons), search_labels(comparisons), strict=True)
    ]


def missing_number_notes(comparison: Comparison) -> list[str]:
    """State for each arm which documents have no number; empty if all have one."""
    return [
        f"{comparison.id}, {arm.name}: {describe_missing_numbers(arm.without_number, len(comparison.keys))}"
        for arm in comparison.arms
        if arm.without_number
    ]
