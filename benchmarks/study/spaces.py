"""Which space a search should have, and how far its faces are from the identity: `python -m benchmarks.study.spaces`.

Gaussian processes (`bo`) in every space, and nearer and farther bounds for the product's two pairs of search and space,
on development samples. Planned before it was measured. It can be stopped and started at any time. By a rule written
after two of the three tasks, the half of `bo`'s spaces with the higher mean score goes on to the third; `adam`'s rows
all go on.

`gradient:r` is the span of the samples' own gradients at the identity. Each goes uphill for one sample, where
`head-gradient` goes uphill for their mean in one head. `bo-gradient` took the place of both: their runs are kept and
not repeated.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.study import grid
from benchmarks.study.control_spaces import layer_space, random_space
from benchmarks.study.held_out import DevelopmentProblem, better_half, completed, measure_missing
from benchmarks.study.recorded import HELD_OUT, read_lines
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.answers import ANSWER_SCORES
from tarot.search.loop import run_search

MODEL = "smollm2"
BOUND = grid.BOUND
TASKS = ("entailed_polarity", "navigate", "ag_news")
# The table of searches has `bo` in `head` and `head-gradient` at the product's bound.
RUNS = (
    *(("bo", space, BOUND) for space in ("full", "layer", "random:32", "gradient:20", "gradient:5")),
    *(("bo", "head-gradient", bound) for bound in (BOUND / 2, 2 * BOUND)),
    *(("adam", "full", bound) for bound in (BOUND / 2, BOUND, 2 * BOUND)),
)
RECORDS = Path(__file__).parent / "spaces.jsonl"


def draw_problem(loaded: LoadedModel, task: str, seed: int, space: str, bound: float) -> DevelopmentProblem:
    """Return the problem with a space of this name: the product's, or a control."""
    kind, _, r = space.partition(":")
    if kind not in ("layer", "random"):
        return DevelopmentProblem.draw(loaded, task, seed=seed, space=space, bound=bound)
    problem = DevelopmentProblem.draw(loaded, task, seed=seed, bound=bound)
    if kind == "layer":
        return replace(problem, space=layer_space(problem.space))
    return replace(problem, space=random_space(problem.space, int(r), seed))


def run(loaded: LoadedModel, task: str, seed: int, search: str, space: str, bound: float) -> dict[str, object]:
    """Return what a search in this space reaches; a gradient counts for three evaluations."""
    problem = draw_problem(loaded, task, seed, space, bound)
    result = completed(
        run_search(
            lambda x: problem.objective(problem.angles(x)),
            problem.space.d,
            search=search,
            budget=grid.BUDGET,
            seed=seed,
            value_and_grad=problem.value_and_grad,
            target_score=ANSWER_SCORES["log_probability"].target_score,
        )
    )
    angles = problem.angles(result.best.point)
    searched = angles[problem.space.angle_mask].abs()
    return {
        "coordinates": problem.space.d,
        "documents": len(problem.held_out),
        "trials": len(result.trials),
        "best": round(result.best.score, 4),
        HELD_OUT: problem.held_out.evaluate(angles, problem.sites),
        "root_mean_square": round(float(searched.square().mean().sqrt()), 4),
        "at_the_bound": round(float((searched > 0.999 * bound).float().mean()), 4),
    }


def settings(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what to run; the last task's settings depend on the recorded scores of the tasks before."""
    remaining = [(search, space, round(bound, 4)) for search, space, bound in RUNS]
    for task in TASKS:
        if task == TASKS[-1]:
            before = [line for line in read_lines(path) if line["task"] in TASKS[:-1]]
            remaining = better_half(
                {
                    each: [line["best"] for line in before if (line["search"], line["space"], line["bound"]) == each]
                    for each in remaining
                    if each[0] == "bo"
                }
            ) + [each for each in remaining if each[0] != "bo"]
        for search, space, bound in remaining:
            seed = grid.DEVELOPMENT_SEED
            yield {"model": MODEL, "task": task, "seed": seed, "search": search, "space": space, "bound": bound}


def main() -> None:
    """Measure what is missing."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    measure_missing(RECORDS, settings(RECORDS), run)


if __name__ == "__main__":
    main()
