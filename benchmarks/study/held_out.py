"""Development runs: samples and held-out documents of a training split, none of which the study evaluates."""

import json
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks.study import grid
from benchmarks.study.recorded import read_lines
from benchmarks.study.records import replace_text
from benchmarks.study.run import fast_attention
from tarot.edit.merge import merge_temporarily
from tarot.edit.sites import Site, angle_mask, find_sites
from tarot.evaluation.lm_eval_results import greedy_choice
from tarot.evaluation.statistics.gains import weighted_f1
from tarot.models.lm_eval_model import TarotLM
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel
from tarot.models.scoring.scorer import Request, Scorer
from tarot.objectives.answers import AnswerObjective, class_weights
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.samples import Sample, draw_samples
from tarot.objectives.tasks.task_loading import load_task
from tarot.search.algorithms.base import Point
from tarot.search.loop import SearchResult
from tarot.search.space import Angles, Space, make_space

Key = TypeVar("Key", bound=Hashable)


class HeldOutSamples:
    """Documents with choices, which a model answers at different angles."""

    def __init__(self, loaded: LoadedModel, documents: list[Sample]) -> None:
        lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
        pairs = [lm.encode(*pair) for document in documents for pair in document.pairs]
        self.model = loaded.model
        self.scorer = Scorer(loaded.model, [Request(tuple(c), tuple(t)) for c, t in pairs])
        self.choices = [[continuation for _, continuation in document.pairs] for document in documents]
        self.sizes = list(map(len, self.choices))
        self.gold = [document.gold for document in documents]

    def __len__(self) -> int:
        return len(self.gold)

    @torch.no_grad()
    def evaluate(self, angles: Angles | None = None, sites: tuple[Site, ...] = ()) -> dict[str, float]:
        """Return weighted F1 of the greedy answer and mean log-probability of the right one, in nats.

        Args:
            angles: in radians; None leaves the model unedited.
            sites: where the angles apply.
        """
        if angles is not None:
            with merge_temporarily(self.model, angles, sites):
                return self.evaluate()
        scores, greedy = (values.split(self.sizes) for values in self.scorer.log_probabilities())
        answers = [greedy_choice(flags.tolist(), texts) for flags, texts in zip(greedy, self.choices, strict=True)]
        right = [float(values[gold]) for values, gold in zip(scores, self.gold, strict=True)]
        return {
            "greedy_f1": round(weighted_f1(self.gold, answers), 4),
            "log_probability": round(sum(right) / len(right), 4),
        }


def completed(result: SearchResult) -> SearchResult:
    """Return the result of a completed search; raise KeyboardInterrupt if Ctrl-C ended it."""
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def better_half(scores: Mapping[Key, Sequence[float]]) -> list[Key]:
    """Return the half (rounded up) with the higher mean scores, in their order: a round of successive halving."""
    kept = sorted(scores, key=lambda key: -fmean(scores[key]))[: -(-len(scores) // 2)]
    return [key for key in scores if key in kept]


def measure_missing(path: Path, settings: Iterable[dict[str, Any]], run: Callable[..., dict[str, Any]]) -> None:
    """Add to a file of lines the result of each setting that it lacks, line by line, so that it can be stopped.

    Unlike those of `measure_records`, later settings may depend on earlier lines, so one process measures them all.

    Args:
        path: the file, one JSON object a line.
        settings: each names its `model` as the grid does.
        run: takes the loaded model, and the setting's other fields by name.
    """
    lines = read_lines(path)
    load = cache(load_model)
    for setting in settings:
        if any(setting.items() <= line.items() for line in lines):
            continue
        loaded = load(grid.MODELS[setting["model"]])
        with fast_attention(loaded):
            result = run(loaded, **{name: value for name, value in setting.items() if name != "model"})
        lines.append(setting | result)
        replace_text(path, "".join(f"{json.dumps(line)}\n" for line in lines))
        print(json.dumps(lines[-1]), file=sys.stderr, flush=True)


@dataclass(frozen=True)
class DevelopmentProblem:
    """What a development run searches, and the held-out documents that judge it."""

    samples: list[Sample]
    held_out: HeldOutSamples
    sites: tuple[Site, ...]
    objective: AnswerObjective
    space: Space

    @classmethod
    def draw(
        cls,
        loaded: LoadedModel,
        task_name: str,
        *,
        seed: int = grid.DEVELOPMENT_SEED,
        shots: int = 0,
        layers: float = 1.0,
        space: str = "full",
        bound: float = grid.BOUND,
    ) -> "DevelopmentProblem":
        """Draw the study's number of samples, and up to eighty held-out documents from the rest of the split."""
        lm, task = TarotLM(loaded.model, tokenizer=loaded.tokenizer), load_task(f"tarot_{task_name}")
        most = min(grid.SAMPLES + grid.HELD_OUT, len(list(task.training_docs())) - shots)
        drawn = draw_samples(task, most, num_fewshot=shots, seed=seed, chat_template=get_chat_template(lm, True))
        samples = drawn[: grid.SAMPLES]
        sites = find_sites(loaded.model, "heads", layers)
        objective = AnswerObjective(loaded.model, samples, lm.encode, sites=sites)
        mask = angle_mask(sites, objective.rotation.n_angles)
        held_out = HeldOutSamples(loaded, drawn[grid.SAMPLES :])
        return cls(samples, held_out, sites, objective, make_space(space, mask, bound))

    def angles(self, x: Point) -> Angles:
        """Return the angles of a point, in radians."""
        return self.space.applied_angles(x)

    def value_and_grad(self, x: Point, objective: AnswerObjective | None = None) -> tuple[float, Tensor]:
        """Return the score of a point and its gradient, on the samples or by another objective."""
        return self.space.value_and_grad(x, (objective or self.objective).value_and_grad)

    def class_weights(self) -> Tensor:
        """Return the weight of each sample."""
        return class_weights([sample.pairs[sample.gold][1] for sample in self.samples])
