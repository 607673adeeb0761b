"""`python -m benchmarks.study.overfitting`: what else could keep a search from learning its samples by heart.

The default ends when the samples' mean log-probability passes -0.1. Here the same search, on the same samples, is

- taken back afterwards: all angles scaled toward the identity, or the mean of the last steps' angles;
- penalised while it runs, by the sum of the squared angles, and ended at the same level of the score itself;
- run on 15 of the 20 samples, and ended where the other five, unseen by it, are likeliest.

Declared before it was measured. Like the study it can be stopped and started at any time.
"""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.study import grid
from benchmarks.study.unseen import SEED, Setting, Unseen, measure, whole
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.answers import AnswerObjective
from tarot.search import run_search
from tarot.search.problem import Angles
from tarot.search.protocol import Point

CELLS = (
    ("smollm2", "ag_news", 0),
    ("gemma3", "winowhy", 6),
    ("smollm2", "navigate", 0),
    ("gemma3", "ag_news", 6),
    ("smollm2", "ag_news", 6),
)
ENOUGH, BY_HEART = -0.1, -0.02  # the default's end, and where there is nothing left to learn
STRENGTHS = (0.5, 0.75, 0.9)
LAST = (4, 8)  # steps
PENALTIES = (0.003, 0.03)  # nats a square radian; an edit that is not penalised has some three hundred of them
TRAINED = 15  # of the samples, where the others choose the end
RESULTS = Path(__file__).parent / "overfitting.jsonl"


class Reached(Exception):
    """The search is where it was to end."""


def climb(
    setting: Setting, objective: AnswerObjective, target_score: float, penalty: float = 0.0
) -> list[tuple[Angles, float]]:
    """The default search's angles and scores, step by step, until a score is enough or the budget spent."""
    steps: list[tuple[Angles, float]] = []

    def value_and_grad(x: Point) -> tuple[float, Tensor]:
        score, gradient = setting.value_and_grad(x, objective)
        angles = setting.angles(x)
        steps.append((angles, score))
        if score >= target_score:
            raise Reached
        with torch.enable_grad():
            squares = setting.angles(point := x.clone().requires_grad_()).square().sum()
        (of_squares,) = torch.autograd.grad(squares, point)
        return score - penalty * float(squares.detach()), gradient - penalty * of_squares

    with suppress(Reached):
        whole(
            run_search(
                lambda _: 0.0,
                setting.space.d,
                search="adam",
                budget=grid.BUDGET,
                seed=SEED,
                value_and_grad=value_and_grad,
            )
        )
    return steps


def kept(steps: Sequence[tuple[Angles, float]], penalty: float = 0.0) -> Angles:
    """Those of the last step, if it is where the search was to end; else the best by what the search followed."""
    if steps[-1][1] >= ENOUGH:
        return steps[-1][0]
    return max(steps, key=lambda step: step[1] - penalty * float(step[0].square().sum()))[0]


def run(loaded: LoadedModel, task: str, shots: int, seed: int) -> dict[str, object]:
    """F1 and log-probability of the unseen documents for each remedy."""
    setting = Setting.of(loaded, task, seed=seed, shots=shots)
    remedies: dict[str, dict[str, float]] = {}

    def add(name: str, angles: Angles, steps: int) -> None:
        # Of the samples too: what a remedy gives up there.
        with torch.no_grad():
            train = setting.objective(angles)
        answered = setting.unseen.answered(angles, setting.sites)
        square = float(angles.square().sum())
        remedies[name] = {"steps": steps, "train": round(train, 4), "squares": round(square, 3), **answered}

    steps = climb(setting, setting.objective, ENOUGH)
    default, last = kept(steps), len(steps) - 1
    add("default", default, last)
    for strength in STRENGTHS:
        add(f"strength {strength}", strength * default, last)
    for n in LAST:
        add(f"mean of the last {n} steps", torch.stack([angles for angles, _ in steps[-n:]]).mean(0), last)
    for penalty in PENALTIES:
        steps = climb(setting, setting.objective, ENOUGH, penalty)
        add(f"penalty {penalty}", kept(steps, penalty), len(steps) - 1)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    fifteen = AnswerObjective(loaded.model, setting.samples[:TRAINED], lm.encode, sites=setting.sites)
    five = Unseen(loaded, setting.samples[TRAINED:])
    steps = climb(setting, fifteen, BY_HEART)
    held = [five.answered(angles, setting.sites)["log_probability"] for angles, _ in steps]
    best = max(range(len(held)), key=held.__getitem__)
    add("end chosen by 5 of the samples", steps[best][0], best)
    end = next((i for i, (_, score) in enumerate(steps) if score >= ENOUGH), len(steps) - 1)
    add("15 samples, end at -0.1", steps[end][0], end)
    return {"documents": len(setting.unseen), "base": setting.unseen.answered(), "remedies": remedies}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    cells = ({"model": model, "task": task, "shots": shots, "seed": SEED} for model, task, shots in CELLS)
    measure(RESULTS, cells, run)


if __name__ == "__main__":
    main()
