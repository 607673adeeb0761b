"""Remedies against overfitting: `python -m benchmarks.study.overfitting`.

The default stops when the samples' mean log-probability passes -0.1. Here the same search, on the same samples, is

- weakened afterwards: all angles scaled, or the mean of the last steps' angles;
- penalised while it runs, by the sum of the squared angles, and stopped at the same level of the score itself;
- run on 15 of the 20 samples, and stopped where the other five are likeliest.

Planned before it was measured. Like the study, it can be stopped and started at any time.
"""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.study import grid
from benchmarks.study.held_out import DevelopmentProblem, HeldOutSamples, completed, measure_missing
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.answers import AnswerObjective
from tarot.search.algorithms.base import Point
from tarot.search.loop import run_search
from tarot.search.space import Angles

CELLS = (
    ("smollm2", "ag_news", 0),
    ("gemma3", "winowhy", 6),
    ("smollm2", "navigate", 0),
    ("gemma3", "ag_news", 6),
    ("smollm2", "ag_news", 6),
)
TARGET, OVERFITTED = -0.1, -0.02  # where the default stops, and where the samples are fully fitted
STRENGTHS = (0.5, 0.75, 0.9)
LAST = (4, 8)  # steps
PENALTIES = (0.003, 0.03)  # nats a square radian; an unpenalised edit has about three hundred square radians
TRAINED = 15  # samples; the others choose the end
RECORDS = Path(__file__).parent / "overfitting.jsonl"


class TargetReached(Exception):
    """The score has reached the target."""


def climb(
    problem: DevelopmentProblem, objective: AnswerObjective, target_score: float, penalty: float = 0.0
) -> list[tuple[Angles, float]]:
    """Return the angles and scores of the default search, step by step, up to the target score or the budget.

    Args:
        problem: the space and the samples.
        objective: what the search maximises.
        target_score: the search stops once its unpenalised score is this high.
        penalty: nats a square radian that are subtracted.
    """
    steps: list[tuple[Angles, float]] = []

    def value_and_grad(x: Point) -> tuple[float, Tensor]:
        score, gradient = problem.value_and_grad(x, objective)
        angles = problem.angles(x)
        steps.append((angles, score))
        if score >= target_score:
            raise TargetReached
        with torch.enable_grad():
            squares = problem.angles(point := x.clone().requires_grad_()).square().sum()
        (gradient_of_squares,) = torch.autograd.grad(squares, point)
        return score - penalty * float(squares.detach()), gradient - penalty * gradient_of_squares

    with suppress(TargetReached):
        completed(
            run_search(
                lambda _: 0.0,
                problem.space.d,
                search="adam",
                budget=grid.BUDGET,
                seed=grid.DEVELOPMENT_SEED,
                value_and_grad=value_and_grad,
            )
        )
    return steps


def select_angles(steps: Sequence[tuple[Angles, float]], penalty: float = 0.0) -> Angles:
    """Return the last step's angles if it reached the target, else the best by the penalised score."""
    if steps[-1][1] >= TARGET:
        return steps[-1][0]
    return max(steps, key=lambda step: step[1] - penalty * float(step[0].square().sum()))[0]


def run(loaded: LoadedModel, task: str, shots: int, seed: int) -> dict[str, object]:
    """Return F1 and log-probability of held-out documents for each remedy."""
    problem = DevelopmentProblem.draw(loaded, task, seed=seed, shots=shots)
    remedies: dict[str, dict[str, float]] = {}

    def add(name: str, angles: Angles, steps: int) -> None:
        with torch.no_grad():
            train = problem.objective(angles)
        held_out = problem.held_out.evaluate(angles, problem.sites)
        squares = float(angles.square().sum())
        remedies[name] = {"steps": steps, "train": round(train, 4), "squares": round(squares, 3), **held_out}

    steps = climb(problem, problem.objective, TARGET)
    default, last = select_angles(steps), len(steps) - 1
    add("default", default, last)
    for strength in STRENGTHS:
        add(f"strength {strength}", strength * default, last)
    for n in LAST:
        add(f"mean of the last {n} steps", torch.stack([angles for angles, _ in steps[-n:]]).mean(0), last)
    for penalty in PENALTIES:
        steps = climb(problem, problem.objective, TARGET, penalty)
        add(f"penalty {penalty}", select_angles(steps, penalty), len(steps) - 1)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    trained = AnswerObjective(loaded.model, problem.samples[:TRAINED], lm.encode, sites=problem.sites)
    validation = HeldOutSamples(loaded, problem.samples[TRAINED:])
    steps = climb(problem, trained, OVERFITTED)
    validated = [validation.evaluate(angles, problem.sites)["log_probability"] for angles, _ in steps]
    best = max(range(len(validated)), key=validated.__getitem__)
    add("end chosen by 5 of the samples", steps[best][0], best)
    end = next((i for i, (_, score) in enumerate(steps) if score >= TARGET), len(steps) - 1)
    add("15 samples, end at -0.1", steps[end][0], end)
    return {"documents": len(problem.held_out), "base": problem.held_out.evaluate(), "remedies": remedies}


def main() -> None:
    """Measure what is missing."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    seed = grid.DEVELOPMENT_SEED
    cells = ({"model": model, "task": task, "shots": shots, "seed": seed} for model, task, shots in CELLS)
    measure_missing(RECORDS, cells, run)


if __name__ == "__main__":
    main()
