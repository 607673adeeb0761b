"""The retention of a search: what its edits must not change, and by how much they do."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tarot.edit.hooks import apply_rotation
from tarot.edit.rotation import Angles
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.scoring.scorer import Request
from tarot.objectives.retained import Retained, make_retained
from tarot.objectives.retention import RetentionTerm
from tarot.search.algorithms.base import Point
from tarot.search.divergence_log import DivergenceLog, RetentionNotes
from tarot.search.kl_limit import PARTS
from tarot.search.problem import Problem
from tarot.search.space import Space

LEAST_SHARE = 2  # contexts of a source in a part: one text alone says little


def part_of(contexts: Sequence[Request], part: int) -> Sequence[Request]:
    """Return the contexts of a source that a part has, from 0 to `PARTS` - 1; of few, each is in several parts."""
    if len(contexts) >= LEAST_SHARE * PARTS:
        return contexts[part::PARTS]
    n = len(contexts)
    chosen = dict.fromkeys((part + i * n // LEAST_SHARE) % n for i in range(LEAST_SHARE))
    return [contexts[i] for i in chosen]


def retained_contexts(
    loaded: LoadedModel, problem: Problem, include_path: str | Path | None = None, batch_size: int | None = None
) -> list[Retained]:
    """Return what a problem's configuration retains; the unedited model writes texts and answers the named prompts.

    The arguments and errors are those of `Retention.from_problem`.
    """
    config = problem.config
    return make_retained(
        TarotLM(loaded.model, tokenizer=loaded.tokenizer),
        problem.template,
        config.retain,
        tuned_task=config.task,
        seed=config.seed,
        include_path=include_path,
        batch_size=batch_size,
    )


@dataclass(frozen=True)
class Retention:
    """The divergence of a problem's edits from the unedited model.

    Attributes:
        problem: what is searched.
        parts: the divergence on each part of the retained contexts. Every part has its share of every source, at least
            `LEAST_SHARE` contexts where there are so many, and every source has the same weight.
        sources: number of contexts of each source.
    """

    problem: Problem
    parts: tuple[RetentionTerm, ...]
    sources: Mapping[str, int]

    @classmethod
    def from_problem(
        cls,
        loaded: LoadedModel,
        problem: Problem,
        include_path: str | Path | None = None,
        batch_size: int | None = None,
        sources: Sequence[Retained] | None = None,
    ) -> "Retention":
        """Let the unedited model read what a problem's configuration retains.

        Args:
            loaded: the model to edit, unedited.
            problem: what is searched.
            include_path: folder of further task files.
            batch_size: sequences per forward pass; None chooses.
            sources: what is retained; None for `retained_contexts` of the problem.

        Raises:
            UnknownName: no task has one of the retained names.
            TarotError: a file of prompts cannot be read, or a task has no split to tune on.

        Example:
            >>> problem = Problem.from_config(loaded, tarot.TaRotConfig("synth_color", num_samples=8, max_kl=0.03))
            >>> sorted(Retention.from_problem(loaded, problem).sources)
            ['own text', 'prompts']
        """
        if sources is None:
            sources = retained_contexts(loaded, problem, include_path, batch_size)
        parts = []
        for k in range(PARTS):
            shares = [part_of(source.contexts, k) for source in sources]
            parts.append(
                RetentionTerm(
                    loaded.model,
                    [context for share in shares for context in share],
                    weights=[1 / len(share) for share in shares for _ in share],
                    batch_size=batch_size,
                    n_frozen_layers=min(site.layer for site in problem.objective.sites),
                )
            )
        return cls(problem, tuple(parts), {name: len(contexts) for name, contexts in sources})

    def value_and_grad(self, angles: Angles, part: int) -> tuple[float, Angles]:
        """Return the divergence of an edit on a part, in nats a token, and its gradient, per radian."""
        objective = self.problem.objective
        return self.parts[part].value_and_grad(angles, objective.sites, objective.rotation)

    def kl(self, angles: Angles, stop_above: float = math.inf) -> float:
        """Return the divergence of an edit on all contexts, in nats a token.

        Args:
            angles: of the edit, in radians.
            stop_above: as soon as the divergence is certainly above this, stop and return a lower bound.
        """
        objective = self.problem.objective
        with torch.no_grad(), apply_rotation(objective.model, angles, objective.sites, objective.rotation):
            return self.model_kl(stop_above)

    def model_kl(self, stop_above: float = math.inf) -> float:
        """Return the divergence of the model as it stands; `stop_above` as for `kl`."""
        total = 0.0
        for part in self.parts:
            total += part.kl() / len(self.parts)
            if total > stop_above:
                break
        return total

    @property
    def max_kl(self) -> float:
        """Return the limit of the configuration, in nats a token."""
        return float(self.problem.config.max_kl or math.inf)

    @property
    def notes(self) -> RetentionNotes:
        """Notes on the contexts, for the provenance."""
        return {
            "contexts": dict(self.sources),
            "tokens": round(sum(part.tokens for part in self.parts) / len(self.parts)),
            "left_out_probability": round(sum(part.rest for part in self.parts) / len(self.parts), 6),
        }


@dataclass(frozen=True)
class RetentionLimit:
    """The retention of a search as a function of points of its space.

    Implements `tarot.search.kl_limit.DivergenceLimit`.

    Attributes:
        retention: returns the divergence of edits, the same on every call. It is called when a divergence has to be
            measured, while the model is unedited.
        space: maps points to angles.
        max_kl: the limit, in nats a token.
        log: divergences on all contexts that are known.
    """

    retention: Callable[[], Retention]
    space: Space
    max_kl: float
    log: DivergenceLog

    def value_and_grad(self, x: Point, index: int) -> tuple[float, Point]:
        """Return the divergence of a trial's point on the part that its index has, and its gradient."""
        retention = self.retention()
        return self.space.value_and_grad(x, lambda angles: retention.value_and_grad(angles, index % PARTS))

    def kl(self, x: Point, stop_above: float = math.inf) -> float:
        """Return the divergence of a point on all contexts, in nats a token; above `stop_above`, a lower bound."""
        return self.log.kl(x, stop_above, lambda: self.retention().kl(self.space.applied_angles(x), stop_above))

    @property
    def notes(self) -> RetentionNotes:
        """Notes on the contexts, for the provenance."""
        if self.log.notes is None:
            self.log.keep_notes(self.retention().notes)
        assert self.log.notes is not None
        return self.log.notes
