"""`python -m benchmarks.study.stopping`: where a search should end, and which layers it should turn.

The development runs that chose both. A task's training split gives the labelled samples and as many unseen documents as
it has left, up to eighty; documents that the study evaluates are not touched. The default search goes on until the
samples' mean log-probability is near zero, and whenever it passes one of the levels, the unseen documents are answered.
Like the study it can be stopped and started at any time.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.study import grid
from benchmarks.study.run import quick
from tarot.files import write_atomically
from tarot.gains import weighted_f1
from tarot.harness import TarotLM, chat_template
from tarot.intervention import merged
from tarot.models import LoadedModel, load_model
from tarot.objective import Objective
from tarot.samples import Sample, draw, load_task
from tarot.scoring import Request, Scorer
from tarot.search import maximise
from tarot.sites import alive, find_sites, parse_layers
from tarot.space import make_space
from tarot.tuning import Recipe

LEVELS = (-0.5, -0.2, -0.1, -0.05, -0.02)
LAYERS = ("1.0", "0.5", "-0.5")
UNSEEN = 80
SEED = 100  # none of the study's
CELLS = tuple((model, task, 6) for task in ("ag_news", "entailed_polarity") for model in grid.MODELS)
RESULTS = Path(__file__).parent / "stopping.jsonl"


def run(loaded: LoadedModel, model: str, task_name: str, shots: int, layers: str) -> dict[str, object]:
    """Steps, F1 and log-probability of unseen documents at each level that the search reaches."""
    recipe = Recipe(f"tarot_{task_name}", num_fewshot=shots, seed=SEED, layers=layers)
    lm, task = TarotLM(loaded.model, tokenizer=loaded.tokenizer), load_task(f"tarot_{task_name}")
    most = min(grid.SAMPLES + UNSEEN, len(list(task.training_docs())) - shots)
    drawn = draw(task, most, num_fewshot=shots, seed=SEED, chat_template=chat_template(lm, True))
    sites = find_sites(loaded.model, "heads", parse_layers(layers))
    objective = Objective(loaded.model, drawn[: grid.SAMPLES], lm.encode, sites=sites)
    space = make_space(recipe.space, alive(sites, objective.rotation.n_angles), recipe.bound, SEED, None)
    unseen = Unseen(loaded, lm, drawn[grid.SAMPLES :])

    def slope(x: Tensor) -> tuple[float, Tensor]:
        with torch.enable_grad():
            angles = space.angles(point := x.clone().requires_grad_()).float()
        score, gradient = objective.slope(angles.detach())
        return score, torch.autograd.grad(angles, point, gradient)[0]

    trials = maximise(
        lambda _: 0.0, space.d, search="adam", budget=grid.BUDGET, seed=SEED, slope=slope, enough=LEVELS[-1]
    ).trials
    levels = {}
    for level in LEVELS:
        if reached := next((trial for trial in trials if trial.score >= level), None):
            angles = space.angles(torch.tensor(reached.x, dtype=torch.float64)).float()
            with torch.no_grad(), merged(loaded.model, angles, sites):
                levels[str(level)] = {"steps": reached.index, **unseen.answered()}
    cell = {"model": model, "task": task_name, "shots": shots, "seed": SEED, "layers": layers}
    return {**cell, "documents": most - grid.SAMPLES, "base": unseen.answered(), "levels": levels}


class Unseen:
    """Documents with choices, answered again and again."""

    def __init__(self, loaded: LoadedModel, lm: TarotLM, documents: list[Sample]) -> None:
        pairs = [lm.encode(*pair) for document in documents for pair in document.pairs]
        self.scorer = Scorer(loaded.model, [Request(tuple(c), tuple(t)) for c, t in pairs])
        self.sizes = [len(document.pairs) for document in documents]
        self.gold = [document.gold for document in documents]

    @torch.no_grad()
    def answered(self) -> dict[str, float]:
        """Weighted F1 of the greedy answer, and the right answer's mean log-probability in nats."""
        scored, greedy = (values.split(self.sizes) for values in self.scorer.log_probabilities())
        written = [next(iter(flags.nonzero().flatten().tolist()), -1) for flags in greedy]
        right = [float(values[gold]) for values, gold in zip(scored, self.gold, strict=True)]
        return {
            "greedy_f1": round(weighted_f1(self.gold, written), 4),
            "log_probability": round(sum(right) / len(right), 4),
        }


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    named = ("model", "task", "shots", "seed", "layers")
    done = {tuple(json.loads(line)[name] for name in named) for line in lines}
    models: dict[str, LoadedModel] = {}
    for model, task, shots in CELLS:
        for layers in LAYERS:
            if (model, task, shots, SEED, layers) in done:
                continue
            if model not in models:
                models[model] = load_model(grid.MODELS[model])
            with quick(models[model]):
                lines.append(json.dumps(run(models[model], model, task, shots, layers)))
            write_atomically(RESULTS, ("\n".join(lines) + "\n").encode())
            print(lines[-1], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
