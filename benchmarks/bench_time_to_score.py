"""Time a search, LoRA's usual training loop and the published search until held-out documents reach a score.

All three start from a loaded model and the same 20 labelled samples without shots. The timed run keeps the state after
each step; its held-out documents are answered afterwards, outside the clock.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import pytest
import torch
from bench_objective import plain_loop
from torch import Tensor
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from tarot.edit.merge import merge_temporarily
from tarot.edit.sites import find_sites
from tarot.evaluation.baselines.trained import peft_layers
from tarot.evaluation.evaluate import evaluate
from tarot.models.loaded_model import LoadedModel
from tarot.models.precision import fast_products
from tarot.search.config import TaRotConfig
from tarot.search.loop import SearchResult, run_search
from tarot.search.problem import Problem
from tarot.search.trials import Trial

TASK = "synth_implicatives"
BUDGET, DOCUMENTS = 120, 60
TARGETS = (0.5, 0.7)
RATE, BATCH, EPOCHS = 1e-3, 4, 10


class State(NamedTuple):
    """A state of the model while it is tuned.

    Attributes:
        seconds: since the start.
        apply: puts the model into this state for the body of a `with`.
    """

    seconds: float
    apply: Callable[[], AbstractContextManager[object]]


def search_angles(loaded: LoadedModel, search: str, layers: float, plain: bool) -> list[State]:
    """Search as `tarot tune --max-kl none` does, and keep each trial that is better than all before it.

    Args:
        loaded: the model.
        search: name of the search.
        layers: share of the layers that are edited.
        plain: whether to score angles by the plain loop.
    """
    started = perf_counter()
    config = TaRotConfig(TASK, search=search, space="full", layers=layers, max_kl=None)
    problem = Problem.from_config(loaded, config)
    objective, space = problem.objective, problem.make_space()
    states: list[State] = []

    def score(x: Tensor) -> float:
        angles = space.applied_angles(x)
        with torch.no_grad():
            return float(plain_loop(objective, angles).mean()) if plain else objective(angles)

    def keep(trial: Trial, result: SearchResult) -> None:
        if result.best is trial:
            angles = space.angles(torch.tensor(trial.x)).float()
            apply = partial(merge_temporarily, loaded.model, angles, objective.sites)
            states.append(State(perf_counter() - started, apply))

    run_search(
        score,
        space.d,
        search=search,
        budget=BUDGET,
        seed=config.seed,
        value_and_grad=lambda x: space.value_and_grad(x, objective.value_and_grad),
        target_score=objective.target_score,
        on_trial=keep,
    )
    return states


def train_lora(loaded: LoadedModel, folder: Path) -> list[State]:
    """Train LoRA with transformers' own loop on the right answers, in batches of four, and keep each step."""
    started = perf_counter()
    objective = Problem.from_config(loaded, TaRotConfig(TASK, max_kl=None)).objective
    rows = [
        {"input_ids": [*context, *answer], "labels": [-100] * len(context) + [*answer]}
        for context, answer in objective.scorer.requests
    ]
    projections = [site.name for site in find_sites(loaded.model, "heads", 1.0)]
    states: list[State] = []

    @contextmanager
    def trained(values: list[Tensor]) -> Iterator[None]:
        with peft_layers("lora", loaded.model, projections, 0) as (_, parameters):
            for parameter, value in zip(parameters, values, strict=True):
                parameter.data.copy_(value)
            yield

    with peft_layers("lora", loaded.model, projections, 0) as (wrapped, parameters):

        class Keep(TrainerCallback):
            def on_step_end(self, *_: object, **__: object) -> None:
                values = [parameter.detach().clone() for parameter in parameters]
                states.append(State(perf_counter() - started, partial(trained, values)))

        settings = TrainingArguments(
            str(folder),
            learning_rate=RATE,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        collator = DataCollatorForSeq2Seq(loaded.tokenizer)
        Trainer(wrapped, settings, train_dataset=rows, data_collator=collator, callbacks=[Keep()]).train()
    loaded.model.eval()
    return states


WAYS = {
    "tarot": lambda loaded, folder: search_angles(loaded, "adam", 1.0, plain=False),
    "lora": train_lora,
    "published": lambda loaded, folder: search_angles(loaded, "paper", 0.5, plain=True),
}


@pytest.mark.parametrize("how", WAYS)
def bench_time_to_score(benchmark: Any, tarot_model: LoadedModel, tmp_path: Path, how: str) -> None:
    """Time a whole run, and keep the seconds until held-out documents first reached each score."""
    benchmark.group = f"time to a held-out score {tarot_model.reference}"
    with fast_products():  # as the search does by itself
        states = benchmark.pedantic(WAYS[how], args=(tarot_model, tmp_path))
    scores = []
    for state in states:
        with state.apply():
            results = evaluate(tarot_model.model, tarot_model.tokenizer, [TASK], limit=DOCUMENTS)
        scores.append(results["results"][TASK]["greedy_f1,none"])
    benchmark.extra_info.update(model=tarot_model.reference, highest=round(max(scores), 3), last=round(scores[-1], 3))
    for target in TARGETS:
        reached = (state.seconds for state, score in zip(states, scores, strict=True) if score >= target)
        benchmark.extra_info[f"seconds_to_{target}"] = next((round(seconds, 1) for seconds in reached), None)
