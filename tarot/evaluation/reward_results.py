"""The plain data of one rewarded comparison: what base and edited model wrote on the same documents, judged alike.

No torch here, as in `tarot.evaluation.results`: a report reads it without loading a model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from reprlib import repr as short

from tarot._files.strict_json import Name, validate
from tarot.evaluation import results_file
from tarot.evaluation.results import Comparison
from tarot.evaluation.results_file import FORMAT
from tarot.evaluation.statistics.means import Difference
from tarot.objectives.text_scores import ScoredTexts, TextScores


@dataclass(frozen=True)
class RewardComparison:
    """Base and edited texts of the same documents, judged by one reward.

    `prompts` are the documents as asked. `gain` is in the reward's units, `fluency_gain` in nats a token; `outcomes`
    are those of the search's trials, and `front` the trials among them that no other beats in reward and fluency at
    once. `command` repeats it, but for what `not_repeated` says became of the edit.
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

    @property
    def id(self) -> str:
        """What a page calls it."""
        return f"{self.model} {self.task} {self.reward} seed {self.seed}"


def rewards_to_json(compared: Sequence[RewardComparison]) -> str:
    """Everything of every comparison, texts included, in one readable file."""
    rewarded = [asdict(each) for each in compared]
    return json.dumps({"format": FORMAT, "rewarded": rewarded}, indent=1, ensure_ascii=False) + "\n"


def load_results(path: str | Path) -> tuple[list[Comparison], list[RewardComparison]]:
    """Read a file of results: cells, or rewarded results_file.

    Raises:
        TarotError: as `tarot.evaluation.results_file.load_comparisons`.
    """
    with results_file.open_results(path) as content:
        if "rewarded" in content:
            compared = content["rewarded"]
            if not isinstance(compared, list):
                raise ValueError(f"rewarded: {short(compared)} is no list")
            return [], [_rewarded(values) for values in compared]
    return results_file.load_comparisons(path), []


def _rewarded(values: object) -> RewardComparison:
    compared: RewardComparison = validate(RewardComparison, values)
    if not compared.prompts:
        raise ValueError("prompts: no documents")
    for name, scored_texts in {"base": compared.base, "edited": compared.edited}.items():
        columns = {f"{name}.{kind}": getattr(scored_texts, kind) for kind in ("texts", "rewards", "fluencies")}
        results_file.check_lengths(len(compared.prompts), columns)
    for name, gain in {"gain": compared.gain, "fluency_gain": compared.fluency_gain}.items():
        if gain.n != len(compared.prompts):
            raise ValueError(f"{name}.n: {gain.n} documents and {len(compared.prompts)} prompts")
    if missing := [trial for trial in compared.front if trial not in compared.outcomes]:
        raise ValueError(f"front: no outcome of trial {missing[0]}")
    return compared
