"""Base, few-shot and edited model on the same documents: from lm-eval's results to the plain data of a cell."""

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.task import Task

from tarot.adapter import Adapter
from tarot.cells import OUTSIDE, Arm, Cell
from tarot.errors import TarotError
from tarot.harness import evaluate
from tarot.models import LoadedModel
from tarot.samples import document_key, load_task
from tarot.tuning import LIBRARIES, Recipe

ZERO_SHOT, FEW_SHOT, EDITED = "zero-shot", "few-shot", "edited"


def answers(results: Mapping[str, Any], task: str) -> tuple[tuple[int, ...], Arm]:
    """Right answers and an arm (nameless, of no labels) from the documents that lm-eval logged.

    A document without choices has one right answer, 0: greedy decoding wrote it, or something OUTSIDE.
    """
    gold, predicted, greedy, probability = [], [], [], []
    for sample in results["samples"][task]:
        scored = sample["filtered_resps"]
        if isinstance(scored[0], str):
            right = float(sample.get("exact_match", math.nan))
            if math.isnan(right):
                raise TarotError(f"choices or the metric exact_match in {task}", f"{sample['metrics']}", "evaluate it instead")
            gold.append(0)
            predicted.append(0 if right else OUTSIDE)
            greedy.append(predicted[-1])
            probability.append(right)
            continue
        values = [float(value) for value, _ in scored]
        flagged = [i for i, (_, flag) in enumerate(scored) if flag]
        target = sample["target"] if len(scored) > 1 else 0
        gold.append(int(target))
        # A choice that begins another is greedy whenever the longer one is.
        longest = max(flagged, key=lambda i: len(sample["arguments"][i][1]), default=OUTSIDE)
        greedy.append(longest)
        predicted.append(max(range(len(values)), key=values.__getitem__) if len(values) > 1 else longest)
        probability.append(math.exp(values[int(target)]))
    return tuple(gold), Arm("", 0, tuple(predicted), tuple(greedy), tuple(probability), 0.0)


def reference_workload() -> float:
    """Seconds of a fixed matrix product, to express times of one session in those of another."""
    a = torch.ones(768, 768)
    started = time.perf_counter()
    for _ in range(20):
        a = (a @ a).clamp(-1, 1)
    return time.perf_counter() - started


def command(model: str, recipe: Recipe, budget: int, shots: int, limit: int | None, include_path: str | Path | None) -> str:
    """Shell lines that repeat a cell."""
    reference, options = shlex.quote(model), [f"--include-path {shlex.quote(str(include_path))}"] if include_path else []
    chat = [] if recipe.chat else ["--no-chat"]
    default = Recipe(recipe.task)
    changed = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in vars(recipe).items()
        if name not in ("task", "chat") and value != getattr(default, name)
    ]
    tune = ["tarot tune", f"--model {reference}", f"--task {recipe.task}", *options, *changed, f"--budget {budget}", *chat]
    limited = [f"--limit {limit}"] if limit else []
    compare = ["tarot compare", f"--model {reference}", "--adapter DIR", f"--shots {shots}", *options, *limited]
    return " ".join([*tune, "--output DIR"]) + " && " + " ".join(compare)


def measure(
    loaded: LoadedModel,
    adapter: Adapter,
    *,
    shots: int = 6,
    include_path: str | Path | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    curves: Mapping[str, Sequence[float]] | None = None,
    controls: Mapping[str, Adapter] | None = None,
) -> Cell:
    """Evaluate base, few-shot and edited model on the documents that the adapter's task evaluates.

    The edited model sees prompts of as many shots as it was tuned on (none for `mix`), and so does the base of that name;
    the arm "zero-shot" has none, the arm "few-shot" `shots`.

    Args:
        loaded: model and tokenizer; unchanged afterwards.
        adapter: what `tarot.tune` returned or saved.
        shots: of the few-shot arm, the first documents of the training split.
        include_path: folder of further task files.
        limit: only the first documents.
        batch_size: most sequences of one pass; None leaves it to us.
        curves: scores of each search's trials, for pictures.
        controls: other edits by name, such as that of a random search.

    Raises:
        TarotError: an adapter without a recipe, or one that does not fit the model.
    """
    recipe = recipe_of(adapter)
    own = recipe.num_fewshot if isinstance(recipe.num_fewshot, int) else 0
    started = time.perf_counter()
    labels = recipe.samples + own
    arms: dict[str, tuple[Adapter | None, int, int]] = {ZERO_SHOT: (None, 0, 0), FEW_SHOT: (None, shots, shots)}
    arms[EDITED] = (adapter, own, labels)
    if own not in (0, shots):
        arms[f"{own}-shot"] = (None, own, own)
    arms |= {name: (edit, own, labels) for name, edit in (controls or {}).items()}
    measured: list[Arm] = []
    gold: tuple[int, ...] = ()
    for name, (edit, k, n_labels) in arms.items():
        begun = time.perf_counter()
        results = evaluate(
            loaded,
            [recipe.task],
            adapter=edit,
            include_path=include_path,
            num_fewshot=k,
            limit=limit,
            chat=recipe.chat,
            batch_size=batch_size,
        )
        gold, arm = answers(results, recipe.task)
        seconds = round(time.perf_counter() - begun, 3)
        measured.append(Arm(name, n_labels, arm.predicted, arm.greedy, arm.gold_probability, seconds))
    task = load_task(recipe.task, include_path)
    docs = [doc for _, doc in zip(range(len(gold)), task.eval_docs, strict=False)]
    budget = adapter.provenance["budget"]
    assert isinstance(budget, int)
    return Cell(
        model=loaded.reference,
        task=recipe.task,
        num_fewshot=own,
        seed=recipe.seed,
        samples=recipe.samples,
        budget=budget,
        search=recipe.search,
        space=recipe.space,
        objective=recipe.objective,
        command=command(loaded.reference, recipe, budget, shots, limit, include_path),
        keys=tuple(document_key(task, doc) for doc in docs),
        gold=gold,
        texts=tuple(_said(task, doc) for doc in docs),
        arms=tuple(measured),
        seconds=round(time.perf_counter() - started, 3),
        reference_seconds=round(reference_workload(), 6),
        adapter=adapter.fingerprint,
        layers=adapter.edit.layers,
        head_angles=tuple(tuple(round(float(a), 6) for a in row) for row in adapter.angles.mean(-1)),
        curves={name: tuple(curve) for name, curve in (curves or {}).items()},
        versions={name: version(name) for name in LIBRARIES},
    )


def recipe_of(adapter: Adapter) -> Recipe:
    """The recipe in an adapter's provenance; TarotError when there is none."""
    known = Recipe.__dataclass_fields__
    found = {name: value for name, value in adapter.provenance.items() if name in known}
    if "task" not in found:
        raise TarotError("an adapter that says what it was tuned on", "one without a task", "tune it with tarot")
    return Recipe(**found)  # type: ignore[arg-type]  # JSON that Recipe was written to


def _said(task: Task, doc: Any) -> str:
    text = task.doc_to_text(doc)
    return text if isinstance(text, str) else str(task.doc_to_choice(doc))
