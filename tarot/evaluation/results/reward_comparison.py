"""The result of a reward comparison as plain data: what base and edited model wrote, and how a reward scored it.

This module does not import torch: a report reads results without loading a model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING

from tarot._files.strict_json import Name, validate
from tarot.edit.measurement import Measurement
from tarot.evaluation.held_out import HeldOut
from tarot.evaluation.results.comparison import Comparison
from tarot.evaluation.results.results_file import FORMAT, check_lengths, comparisons_from_content, open_results
from tarot.evaluation.statistics.means import Difference
from tarot.objectives.rewards.text_scores import ScoredTexts, TextScores

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class RewardComparison:
    """Texts of base and edited model on the same documents, scored by one reward.

    Attributes:
        model: reference of the model.
        task: lm-eval task.
        reward: name of the reward.
        seed: seed of the search.
        adapter: fingerprint of the edit.
        prompts: each document as the prompt shows it.
        base: texts of the unedited model, with reward and fluency each.
        edited: texts of the edited model, likewise.
        gain: mean difference of the rewards, edited minus base, in the reward's units.
        fluency_gain: mean difference of the fluencies, in nats a token.
        outcomes: scores of the search's trials, by the trial's index.
        front: trials that no other trial exceeds in both reward and fluency.
        command: shell line that repeats the comparison, except for what `not_repeated` lists.
        not_repeated: what became of the edit besides its search; "" if nothing did.
        versions: version of each library, by name.
        date: day on which it was measured, in UTC, such as `2026-11-27`; "" if it is not known.
        machine: operating system, processor, threads and device; "" if they are not known.
        held_out: what the edit changes on text that it was not tuned on; None if `tarot tune` did not measure it.
        dtype: dtype that the model was loaded with.
        include_path: folder of further task files, as it was given; "" without one.
        folder: folder in which `command` leaves the adapter.
    """

    model: Name
    task: Name
    reward: Name
    seed: int
    adapter: Name
    prompts: tuple[str, ...]
    base: ScoredTexts
    edited: ScoredTexts
    gain: Difference
    fluency_gain: Difference
    outcomes: Mapping[int, TextScores]
    front: tuple[int, ...]
    command: str
    not_repeated: str = ""
    versions: Mapping[Name, Name] = field(default_factory=dict)
    date: Name = ""
    machine: Name = ""
    held_out: HeldOut | None = None
    dtype: Name = "auto"
    include_path: Name = ""
    folder: Name = "DIR"

    def __repr__(self) -> str:
        """Name the comparison; its texts would fill pages."""
        return f"<RewardComparison of {self.id}: {len(self.prompts)} documents>"

    def __hash__(self) -> int:
        return hash((self.id, self.adapter, self.prompts, self.base, self.edited))

    @property
    def id(self) -> str:
        """Name of the comparison in a report."""
        return f"{self.model} {self.task} {self.reward} seed {self.seed}"

    def to_measurement(self) -> Measurement:
        """Return the mean rewards and the gain as the model card of the adapter shows them."""
        return Measurement(
            task=self.task,
            metric=self.reward,
            title=f"reward {self.reward}",
            n_documents=self.gain.n,
            scores=(("base", None, self.base.summary.reward), ("edited", None, self.edited.summary.reward)),
            edited="edited",
            gain=(self.gain.value, self.gain.low, self.gain.high),
            command=self.command,
            adapter=self.adapter,
            differences={"base": (self.gain.value, self.gain.low, self.gain.high)},
        )

    def to_pandas(self) -> "DataFrame":
        """Return a table with one row a document and arm; needs pandas, which lm-eval installs.

        Columns: `document` (row, from 0), `prompt`, `arm` (`base` or `edited`), `text`, `reward`, `fluency`.
        """
        from pandas import DataFrame

        return DataFrame(
            {
                "document": row,
                "prompt": self.prompts[row],
                "arm": name,
                "text": texts.texts[row],
                "reward": texts.rewards[row],
                "fluency": texts.fluencies[row],
            }
            for name, texts in (("base", self.base), ("edited", self.edited))
            for row in range(len(self.prompts))
        )


def rewards_to_json(comparisons: Sequence[RewardComparison]) -> str:
    """Return reward comparisons as JSON, texts included."""
    values = [asdict(comparison) for comparison in comparisons]
    return json.dumps({"format": FORMAT, "rewards": values}, indent=1, ensure_ascii=False) + "\n"


def load_results(path: str | Path) -> tuple[list[Comparison], list[RewardComparison]]:
    """Read a results file, which holds comparisons of either kind; the list of the other kind is empty.

    Raises:
        TarotError: as `tarot.evaluation.results.results_file.load_comparisons`.

    Example:
        >>> from tarot.evaluation.results.results_file import comparisons_to_json
        >>> _ = Path("results.json").write_text(comparisons_to_json([comparison]), encoding="utf-8")
        >>> load_results("results.json") == ([comparison], [])
        True
    """
    with open_results(path) as content:
        if "rewards" not in content:
            return comparisons_from_content(content), []
        comparisons = content["rewards"]
        if not isinstance(comparisons, list):
            raise ValueError(f"its rewards are {short(comparisons)}, not a list")
        return [], [_comparison_from_values(values) for values in comparisons]


def _comparison_from_values(values: object) -> RewardComparison:
    comparison: RewardComparison = validate(RewardComparison, values)
    n = len(comparison.prompts)
    if not n:
        raise ValueError("prompts: no documents")
    for name, scored_texts in {"base": comparison.base, "edited": comparison.edited}.items():
        columns = {f"{name}.{kind}": getattr(scored_texts, kind) for kind in ("texts", "rewards", "fluencies")}
        check_lengths(n, columns)
    for name, gain in {"gain": comparison.gain, "fluency_gain": comparison.fluency_gain}.items():
        if gain.n != n:
            raise ValueError(f"{name}.n: {gain.n} documents and {n} prompts")
    if missing := [trial for trial in comparison.front if trial not in comparison.outcomes]:
        raise ValueError(f"front: no outcome of trial {missing[0]}")
    return comparison
