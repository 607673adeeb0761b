"""Cross-validation: does a search on half of the samples help the other half?

Twenty samples can be fitted by angles that help no other document. So the search runs on each half of the samples, and
its edit answers the other half. Where it makes these answers less likely than the unedited model does, an edit found on
all samples is not to be trusted either.

The halves are searched without the limit of divergence (`max_kl`) of the search on all samples. Their edits are bolder
than the one in question, so that they are refused sooner. The study measured the rule in this form.

The halves have the same classes, but for one sample of each. An evaluation scores half of the samples, so together they
cost about as much as the search itself.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from typing_extensions import TypedDict

from tarot._files.json_log import read_intact, write_json
from tarot._files.strict_json import Count, Number
from tarot.errors import TarotError
from tarot.objectives.answers import AnswerObjective
from tarot.objectives.tasks.samples import Sample
from tarot.search.callbacks import Callback
from tarot.search.loop import run_search
from tarot.search.problem import Problem

CROSS_VALIDATION_FILE = "cross_validation.json"
JUDGED_BY = "log_probability"  # of the right answer; counts of right answers among ten are too coarse


class HalfScores(TypedDict):
    """Mean log-probability of a half's right answers, in nats: by the unedited model, and by the other half's edit."""

    base: Number
    edited: Number


class _Half(HalfScores):
    """A kept half, with the budget of its search."""

    budget: Count


def cross_validate(
    problem: Problem, *, budget: int, folder: Path | None = None, callbacks: Sequence[Callback] = ()
) -> HalfScores:
    """Return the mean over both halves of what the unedited model and the other half's edit score.

    Args:
        problem: what is searched, with labelled answers.
        budget: evaluations of each of the two searches.
        folder: keeps the score of each half as soon as it is known, and has those of an earlier run with the same
            budget; None keeps none.
        callbacks: told when a half begins.

    Raises:
        KeyboardInterrupt: a search was interrupted.
        TarotError: a half has no finite log-probability, or a file cannot be written.

    Example:
        >>> from tarot.search.problem import Problem
        >>> problem = Problem.from_config(loaded, tarot.TaRotConfig("synth_color", num_samples=8))
        >>> sorted(cross_validate(problem, budget=6))
        ['base', 'edited']
    """
    path = folder / CROSS_VALIDATION_FILE if folder else None
    scores = _read(path, budget)
    halves = split_in_halves(problem.samples)
    for searched, answered in (halves, halves[::-1])[len(scores) :]:
        for callback in callbacks:
            callback.on_phase(f"cross-validating, half {len(scores) + 1} of 2")
        half = _validate_half(problem, searched, answered, budget)
        if not all(map(math.isfinite, (half["base"], half["edited"]))):
            raise TarotError("finite log-probabilities in cross-validation", "none", "try --dtype float32")
        scores.append({**half, "budget": budget})
        if path:
            write_json(path, scores)
    first, second = scores
    return {"base": (first["base"] + second["base"]) / 2, "edited": (first["edited"] + second["edited"]) / 2}


def split_in_halves(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Cut samples into halves with the same right answers, but for one sample of each; the same halves every time."""
    by_class = sorted(samples, key=lambda sample: sample.pairs[sample.gold][1])
    return by_class[0::2], by_class[1::2]


def _validate_half(problem: Problem, searched: Sequence[Sample], answered: Sequence[Sample], budget: int) -> HalfScores:
    config = problem.config
    objective = _objective(problem, searched, config.objective)
    space = problem.make_space()
    result = run_search(
        lambda x: objective(space.applied_angles(x)),
        space.d,
        search=config.search,
        budget=budget,
        seed=config.seed,
        value_and_grad=lambda x: space.value_and_grad(x, objective.value_and_grad),
        target_score=objective.target_score,
        trials_per_step=config.trials_per_step,
    )
    if result.interrupted:
        raise KeyboardInterrupt
    judge = _objective(problem, answered, JUDGED_BY)
    best = space.applied_angles(result.best.point)
    return {"base": judge(torch.zeros_like(best)), "edited": judge(best)}


def _objective(problem: Problem, samples: Sequence[Sample], answer_score: str) -> AnswerObjective:
    whole = problem.objective
    assert isinstance(whole, AnswerObjective)  # the configuration allows no other
    return AnswerObjective(
        whole.model,
        samples,
        whole.encode,
        answer_score=answer_score,
        sites=whole.sites,
        rotation=whole.rotation,
        batch_size=whole.scorer.batch_size,
    )


def _read(path: Path | None, budget: int) -> list[_Half]:
    """Return the halves that an earlier run with this budget kept; a damaged file counts as none."""
    scores: list[_Half] = read_intact(path, list[_Half]) or []
    return scores[:2] if all(half["budget"] == budget for half in scores) else []
