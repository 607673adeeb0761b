"""Development runs: samples and unseen documents of a training split, none of which the study evaluates."""

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
from benchmarks.study.run import quick
from tarot._files.atomic import write_atomically
from tarot.edit.layers import parse_layers
from tarot.edit.merge import merge_temporarily
from tarot.edit.sites import Site, angle_mask, find_sites
from tarot.evaluation.lm_eval_results import greedy_choice
from tarot.evaluation.statistics.gains import weighted_f1
from tarot.models.lm_eval_model import TarotLM
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel
from tarot.models.scoring.scorer import Request, Scorer
from tarot.objectives.answers import AnswerObjective
from tarot.objectives.prompts import get_chat_template
from tarot.objectives.samples import Sample, draw_samples
from tarot.objectives.task_loading import load_task
from tarot.search import SearchResult
from tarot.search.config import TaRotConfig
from tarot.search.problem import Angles
from tarot.search.protocol import Point
from tarot.search.space import NEEDS_GRADIENT, Space, make_space

SEED = 100  # none of the study's
UNSEEN = 80
Key = TypeVar("Key", bound=Hashable)


class Unseen:
    """Documents with choices, answered again and again."""

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
    def answered(self, angles: Angles | None = None, sites: tuple[Site, ...] = ()) -> dict[str, float]:
        """Weighted F1 of the greedy answer, and the right answer's mean log-probability in nats, at these angles."""
        if angles is not None:
            with merge_temporarily(self.model, angles, sites):
                return self.answered()
        scored, greedy = (values.split(self.sizes) for values in self.scorer.log_probabilities())
        written = [greedy_choice(flags.tolist(), texts) for flags, texts in zip(greedy, self.choices, strict=True)]
        right = [float(values[gold]) for values, gold in zip(scored, self.gold, strict=True)]
        return {
            "greedy_f1": round(weighted_f1(self.gold, written), 4),
            "log_probability": round(sum(right) / len(right), 4),
        }


def whole(result: SearchResult) -> SearchResult:
    """The result of a search that came to its end; Ctrl-C, which the search takes for one, ends the program."""
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def better_half(scores: Mapping[Key, Sequence[float]]) -> list[Key]:
    """Of a round of successive halving: the half, or one more, whose scores have the higher mean, in their order."""
    going = sorted(scores, key=lambda key: -fmean(scores[key]))[: -(-len(scores) // 2)]
    return [key for key in scores if key in going]


def recorded(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that `measure` writes; none of one that is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure(path: Path, settings: Iterable[dict[str, Any]], run: Callable[..., dict[str, Any]]) -> None:
    """Add to a file of lines what `run` says of each setting that it lacks: line by line, so that it can be stopped.

    A setting names its `model` as the grid does; `run` takes the loaded one, and the setting's other fields by name.
    """
    there = recorded(path)
    loaded = cache(load_model)
    for setting in settings:
        if any(setting.items() <= line.items() for line in there):
            continue
        model = loaded(grid.MODELS[setting["model"]])
        with quick(model):
            found = run(model, **{name: value for name, value in setting.items() if name != "model"})
        there.append(setting | found)
        write_atomically(path, "".join(f"{json.dumps(line)}\n" for line in there).encode())
        print(json.dumps(there[-1]), file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Setting:
    """What a development run searches, and what it is asked of."""

    samples: list[Sample]
    unseen: Unseen
    sites: tuple[Site, ...]
    objective: AnswerObjective
    space: Space

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        task_name: str,
        *,
        seed: int = SEED,
        shots: int = 0,
        layers: str = "1.0",
        space: str = "full",
        bound: float = TaRotConfig.bound,
    ) -> "Setting":
        """The study's number of samples, and up to eighty unseen documents of what the split has left."""
        lm, task = TarotLM(loaded.model, tokenizer=loaded.tokenizer), load_task(f"tarot_{task_name}")
        most = min(grid.SAMPLES + UNSEEN, len(list(task.training_docs())) - shots)
        drawn = draw_samples(task, most, num_fewshot=shots, seed=seed, chat_template=get_chat_template(lm, True))
        samples = drawn[: grid.SAMPLES]
        sites = find_sites(loaded.model, "heads", parse_layers(layers))
        objective = AnswerObjective(loaded.model, samples, lm.encode, sites=sites)
        gradient = objective.gradient() if space in NEEDS_GRADIENT else None
        made = make_space(space, angle_mask(sites, objective.rotation.n_angles), bound, seed, gradient)
        return cls(samples, Unseen(loaded, drawn[grid.SAMPLES :]), sites, objective, made)

    def angles(self, x: Point) -> Angles:
        """Those of a point, in radians."""
        return self.space.angles(x).float()

    def value_and_grad(self, x: Point, of: AnswerObjective | None = None) -> tuple[float, Tensor]:
        """Score of a point and its gradient there: on the samples, or on what another objective scores."""
        return self.space.value_and_grad(x, (of or self.objective).value_and_grad)
