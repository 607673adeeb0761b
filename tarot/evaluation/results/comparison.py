"""The result of a comparison as plain data: a model, a task, a number of shots and a seed, with every arm's answers.

This module does not import torch or NumPy: reports, regression gates and terminal summaries read results without
loading a model.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval, MaxLen

from tarot._files.strict_json import Count, Fraction, Name, Number
from tarot.edit.measurement import Measurement
from tarot.errors import TarotError
from tarot.evaluation.held_out import HeldOut
from tarot.evaluation.results.changes import ChangedDocument, ChangedDocuments, changed_rows

if TYPE_CHECKING:
    from pandas import DataFrame

    from tarot.evaluation.statistics.gains import Gain

ZERO_SHOT, FEW_SHOT, EDITED = "zero-shot", "few-shot", "edited"
"""Names of the arms; a comparison without shots may lack the second."""
FEW_SHOT_SHOTS = 6
"""Shots of the few-shot arm of an adapter that was tuned without shots."""
OUTSIDE = -1
"""Index of an answer outside the choices."""
HEADLINE = "greedy_f1"
"""Metric that tables and reports show first."""

Choice = Annotated[int, Interval(ge=OUTSIDE, lt=100_000)]
"""Index of a choice, or OUTSIDE."""
LONGEST_ANSWER = 300
"""Characters of an answer's text that are kept."""
Answer = Annotated[str, MaxLen(LONGEST_ANSWER)]
"""Text of a choice, or the beginning of what a model wrote, in printable characters."""

SEARCH_SETTINGS: Mapping[str, str] = {
    "search": "{}",
    "space": "in {}",
    "objective": "for {}",
    "samples": "{} samples",
    "budget": "budget {}",
    "dtype": "{}",
}
"""Fields that identify a comparison besides model, task, shots and seed, with the words that tables use for them."""
SettingValue = bool | Count | Number | Name | tuple[Count | Number | Name, ...] | None
"""Value in `Comparison.settings`."""


@dataclass(frozen=True)
class Arm:
    """One way to answer the documents of a comparison.

    Attributes:
        name: what tables call it.
        labels: how many distinct labelled documents it saw: samples, and the shots of all its prompts.
        predicted: the likeliest choice of each document.
        greedy: the choice that greedy decoding over the whole vocabulary writes; OUTSIDE for any other text.
        gold_probability: probability of the right answer, a fraction.
        seconds: how long its answers took; divided by the base's, the overhead of the method at inference.
        draw: for a further draw of few-shot examples its rank by accuracy, from 1; 0 for every other arm.
        without_number: rows of the documents whose log-probabilities are NaN or infinite. Their answers are OUTSIDE
            and their probability is 0.
        preparation_seconds: how long the method took before it answered, such as a whole search or training, without
            loading the model. Of an edit that an earlier version tuned, the trials alone.
        stored_bytes: what the method has to store besides the model.
        peak_memory: of a baseline, the most bytes in use while it was prepared and answered; 0 if not measured.
        written: the beginning of what greedy decoding writes, for each document whose greedy answer is OUTSIDE; ""
            for the others, and where it was not generated. Empty for an arm of which no text is known.

    Example:
        >>> Arm("edited", labels=20, predicted=(1,), greedy=(1,), gold_probability=(0.9,), seconds=0.5).name
        'edited'
    """

    name: Name
    labels: Count
    predicted: tuple[Choice, ...]
    greedy: tuple[Choice, ...]
    gold_probability: tuple[Fraction, ...]
    seconds: Number
    draw: Count = 0
    without_number: tuple[Count, ...] = ()
    preparation_seconds: Number = 0.0
    stored_bytes: Count = 0
    peak_memory: Count = 0
    written: tuple[Answer, ...] = ()


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """Result of `tarot.compare`: the answers of every arm to the same held-out documents.

    Two comparisons are equal if all their fields are; NaN counts as equal to NaN.

    Attributes:
        model: reference of the model.
        task: lm-eval task.
        num_fewshot: shots in the prompts of the edited arm and of its base.
        seed: seed of the search.
        samples: labelled samples that the search scored.
        budget: evaluations that the search was allowed; with cross-validation twice as many as each of its searches.
        search: name of the search.
        space: name of the search space.
        objective: what the search maximised.
        command: shell line that repeats the comparison, except for what `not_repeated` lists.
        keys: digest of each document.
        gold: right choice of each document, an index.
        texts: each document as the prompt shows it.
        arms: the arms, base first.
        seconds: how long the comparison took.
        reference_seconds: how long a fixed workload took in the same session, so that times can be compared as ratios.
        adapter: fingerprint of the edit.
        mixed: whether the search mixed numbers of shots; `num_fewshot` is then 0.
        layers: the edited layers.
        head_angles: root-mean-square angle of each head in radians, `layer x head`, for the layers in `layers`.
        curves: the score after each evaluation of a search, by the search's name; NaN for a trial without a score.
        versions: version of each library, by name.
        request_digest: digest of the request of a grid, by which a later run finds the result; "" outside grids.
        not_repeated: what `command` does not repeat, such as scaling, in words; "" if it repeats all.
        dtype: dtype that the model was loaded with.
        description: where the prompts show the task's description, if the chat template has no system role; else "".
        choices: the text of each choice of each document; empty if they are not known.
        date: day on which it was measured, in UTC, such as `2026-11-27`; "" if it is not known.
        machine: operating system, processor, threads and device; "" if they are not known.
        reference_times: seconds of the fixed workload each time it ran, before and after the comparison. They differ
            on a busy machine.
        n_angles: angles that the edit turns by more than zero; 0 if it is not known.
        trade_off: divergence in nats a token, and score, of each trial of a search under a limit of divergence.
        max_kl: that limit, in nats a token; 0 without one, or if the edit is not known to be within it.
        held_out: what the edit changes on text that it was not tuned on; None if `tarot tune` did not measure it.
        settings: what else the edit was made with than the defaults and the fields above
            (`tarot.evaluation.as_tuned.edit_settings`), such as `{"bound": 0.5, "keep": (0.9,), "scale": 0.5}`.
        include_path: folder of further task files, as it was given; "" without one.
        folder: folder in which `command` leaves the adapter.

    Example:
        >>> comparison = tarot.compare(model, tokenizer, adapter, limit=8)
        >>> [arm.name for arm in comparison.arms][:3]
        ['zero-shot', 'few-shot', 'edited']
        >>> comparison.gain("greedy_f1").n
        8
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
    reference_seconds: Number
    adapter: Name = "base"
    mixed: bool = False
    layers: tuple[Count, ...] = ()
    head_angles: tuple[tuple[Number, ...], ...] = ()
    curves: Mapping[Name, tuple[float, ...]] = field(default_factory=dict)
    versions: Mapping[Name, Name] = field(default_factory=dict)
    request_digest: str = ""
    not_repeated: str = ""
    dtype: Name = "auto"
    description: str = ""
    choices: tuple[tuple[Answer, ...], ...] = ()
    date: Name = ""
    machine: Name = ""
    reference_times: tuple[Number, ...] = ()
    n_angles: Count = 0
    trade_off: tuple[tuple[Number, float], ...] = ()
    max_kl: Number = 0.0
    held_out: HeldOut | None = None
    settings: Mapping[Name, SettingValue] = field(default_factory=dict)
    include_path: Name = ""
    folder: Name = "DIR"

    def __repr__(self) -> str:
        """Name the comparison and its arms; the answers would fill pages."""
        return f"<Comparison of {self.id}: {len(self.keys)} documents, {', '.join(arm.name for arm in self.arms)}>"

    def __eq__(self, other: object) -> bool:
        """Compare all fields; NaN in a curve equals NaN."""
        if not isinstance(other, Comparison):
            return NotImplemented
        return _comparable(self) == _comparable(other)

    def __hash__(self) -> int:
        return hash((self.identity, self.adapter, self.keys, self.arms))

    @cached_property
    def id(self) -> str:
        """Name of the comparison in tables."""
        return f"{self.model} {self.task} {self.shots}-shot seed {self.seed}"

    @property
    def identity(self) -> tuple[object, ...]:
        """Values that two runs of the same comparison share: model, task, shots, seed and `edit_identity`."""
        return (self.id, *self.edit_identity)

    @cached_property
    def edit_identity(self) -> tuple[object, ...]:
        """Settings of the edit, apart from its seed, in values that can be hashed and sorted."""
        values = (getattr(self, name) for name in SEARCH_SETTINGS)
        return (*values, self.max_kl, self.layers, json.dumps(dict(self.settings), sort_keys=True))

    @property
    def shots(self) -> str:
        """Shots that the adapter was tuned on, as a user writes them: a number, or `mix`."""
        return "mix" if self.mixed else str(self.num_fewshot)

    @property
    def draws(self) -> tuple[Arm, ...]:
        """Arms with further draws of few-shot examples, the best first."""
        return tuple(sorted((arm for arm in self.arms if arm.draw), key=lambda arm: arm.draw))

    @property
    def base(self) -> Arm:
        """The unedited model under the prompts that the edited one gets."""
        return self.arm(FEW_SHOT if self.num_fewshot else ZERO_SHOT)

    def arm(self, name: str) -> Arm:
        """Return the arm of that name.

        Raises:
            TarotError: no such arm; the message lists the names.

        Example:
            >>> comparison.arm("edited").labels
            8
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise TarotError(f"an arm among {', '.join(arm.name for arm in self.arms)}", repr(name))

    def score(self, metric: str = HEADLINE, *, arm: str = EDITED) -> float:
        """Return the score of an arm, a fraction.

        Args:
            metric: `greedy_f1`, `greedy_acc`, `f1` or `acc`.
            arm: name of the arm.

        Raises:
            UnknownName: no such metric.
            TarotError: no such arm.

        Example:
            >>> 0 <= comparison.score("greedy_acc", arm="zero-shot") <= 1
            True
        """
        from tarot.evaluation.results.metrics import METRICS  # imports NumPy and SciPy

        return METRICS[metric].mean_score(self.gold, [self.arm(arm)])

    def gain(self, metric: str = HEADLINE, *, arm: str = EDITED, over: str | None = None) -> "Gain":
        """Return the score of one arm minus that of another on the same documents, with its 95% CI and p-value.

        Args:
            metric: `greedy_f1`, `greedy_acc`, `f1` or `acc`.
            arm: name of the arm in question.
            over: name of the arm it is compared with; None for the base.

        Raises:
            UnknownName: no such metric.
            TarotError: no such arm.

        Example:
            >>> gain = comparison.gain("greedy_f1")
            >>> gain.low <= gain.value <= gain.high
            True
        """
        from tarot.evaluation.results.metrics import METRICS, gain_of  # imports NumPy and SciPy

        before, after = self.base if over is None else self.arm(over), self.arm(arm)
        chosen = METRICS[metric]
        return gain_of(chosen, self.gold, chosen.answers(before), chosen.answers(after))

    def changed(self, metric: str = HEADLINE, *, arm: str = EDITED, over: str | None = None) -> ChangedDocuments:
        """Return the documents that an arm answers right and the one it is compared with wrong, and the reverse.

        Args:
            metric: decides whether greedy answers (`greedy_f1`, `greedy_acc`) or likeliest choices (`f1`, `acc`) count.
            arm: name of the arm in question.
            over: name of the arm it is compared with; None for the base.

        Raises:
            UnknownName: no such metric.
            TarotError: no such arm.

        Example:
            >>> fixed, broken = comparison.changed("greedy_f1")
            >>> gain = comparison.gain("greedy_f1")
            >>> (len(fixed), len(broken)) == (gain.gained, gain.lost)
            True
        """
        from tarot.evaluation.results.metrics import METRICS  # imports NumPy and SciPy

        answers = METRICS[metric].answers
        before, after = self.base if over is None else self.arm(over), self.arm(arm)
        base, edited = answers(before), answers(after)
        fixed, broken = (
            tuple(
                ChangedDocument(
                    *(row, self.texts[row], self.gold[row], base[row], edited[row]),
                    self.answer_text(row, self.gold[row]),
                    self.answer_text(row, base[row], before),
                    self.answer_text(row, edited[row], after),
                )
                for row in rows
            )
            for rows in changed_rows(self.gold, base, edited)
        )
        return ChangedDocuments(fixed, broken)

    def answer_text(self, row: int, answer: int, arm: Arm | None = None) -> str:
        """Return an answer in words: the choice's text, or what the model wrote instead.

        Args:
            row: the document's place in the comparison, from 0.
            answer: index of a choice, or OUTSIDE.
            arm: the arm that gave the answer.

        Example:
            >>> comparison.answer_text(0, comparison.gold[0]) in comparison.choices[0]
            True
        """
        if answer != OUTSIDE:
            return self.choices[row][answer].strip() if self.choices else f"choice {answer}"
        if arm and row in arm.without_number:
            return "no number"
        if arm and arm.written and (written := arm.written[row].strip()):
            return f"wrote \N{LEFT DOUBLE QUOTATION MARK}{written}\N{RIGHT DOUBLE QUOTATION MARK}"
        return "none of the choices"

    def to_pandas(self) -> "DataFrame":
        """Return a table with one row a document and arm; needs pandas, which lm-eval installs.

        Columns: `document` (row, from 0), `text`, `gold`, `arm`, `predicted`, `greedy`, `gold_probability`,
        `without_number` (True if the arm's log-probabilities are NaN or infinite), `gold_text`, `predicted_text`,
        `greedy_text`. `gold`, `predicted` and `greedy` are indices of choices, or -1 for none of them; the last three
        columns are the same answers in words, as `answer_text` returns them.

        Example:
            >>> table = comparison.to_pandas()
            >>> len(table) == len(comparison.arms) * len(comparison.gold)
            True
        """
        from pandas import DataFrame

        return DataFrame(self.answer_rows())

    def answer_rows(self) -> Iterator[dict[str, int | float | str]]:
        """Yield the rows of `to_pandas`."""
        for arm, row in product(self.arms, range(len(self.keys))):
            yield {
                "document": row,
                "text": self.texts[row],
                "gold": self.gold[row],
                "arm": arm.name,
                "predicted": arm.predicted[row],
                "greedy": arm.greedy[row],
                "gold_probability": arm.gold_probability[row],
                "without_number": row in arm.without_number,
                "gold_text": self.answer_text(row, self.gold[row]),
                "predicted_text": self.answer_text(row, arm.predicted[row], arm),
                "greedy_text": self.answer_text(row, arm.greedy[row], arm),
            }

    def to_measurement(self) -> Measurement:
        """Return scores and gain as the model card of the adapter shows them.

        Example:
            >>> comparison.to_measurement().edited_score == comparison.score()
            True
        """
        from tarot.evaluation.results.metrics import METRICS  # imports NumPy and SciPy
        from tarot.evaluation.results.notes import arm_notes, missing_number_notes

        overs = {arm.name: self.gain(over=arm.name) for arm in self.arms if arm.name != EDITED}
        gain = overs[self.base.name]
        return Measurement(
            task=self.task,
            metric=HEADLINE,
            title=METRICS[HEADLINE].title,
            n_documents=gain.n,
            scores=tuple((arm.name, arm.labels, self.score(arm=arm.name)) for arm in self.arms),
            edited=EDITED,
            gain=(gain.value, gain.low, gain.high),
            command=self.command,
            adapter=self.adapter,
            notes=(*arm_notes(self), *missing_number_notes(self)),
            differences={name: (over.value, over.low, over.high) for name, over in overs.items()},
        )

    def _repr_html_(self) -> str:
        """Show arms, scores and gains as a table in a notebook."""
        from tarot.evaluation.results.html_table import comparison_to_html  # imports NumPy and SciPy

        return comparison_to_html(self)


def _comparable(comparison: Comparison) -> dict[str, Any]:
    values = {each.name: getattr(comparison, each.name) for each in fields(comparison)}
    curves = {name: [None if x != x else x for x in curve] for name, curve in comparison.curves.items()}
    return {**values, "curves": curves}


def search_labels(comparisons: Sequence[Comparison]) -> list[str]:
    """Label each comparison with the settings in which the searches differ ("" if none do).

    A setting is named only where it separates comparisons that the earlier settings do not.
    """
    labels: list[tuple[str, ...]] = [()] * len(comparisons)
    for name in (*SEARCH_SETTINGS, "settings", "max_kl"):
        described = [_describe_setting(comparison, name) for comparison in comparisons]
        values: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for label, value in zip(labels, described, strict=True):
            values[label].add(value)
        if any(len(different) > 1 for different in values.values()):
            labels = [(*label, value) for label, value in zip(labels, described, strict=True)]
    return [", ".join(filter(None, label)) for label in labels]


def _describe_setting(comparison: Comparison, name: str) -> str:
    if name == "max_kl":
        return f"KL at most {comparison.max_kl:g}" if comparison.max_kl else "no limit of KL"
    if name == "settings":
        return ", ".join(f"{key}={value}" for key, value in sorted(comparison.settings.items()))
    return SEARCH_SETTINGS[name].format(getattr(comparison, name))


def comparison_names(comparisons: Sequence[Comparison]) -> list[str]:
    """Name each comparison by its id and the label of its search."""
    labels = search_labels(comparisons)
    return [f"{each.id}, {label}" if label else each.id for each, label in zip(comparisons, labels, strict=True)]
