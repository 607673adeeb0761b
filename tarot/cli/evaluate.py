"""`tarot evaluate`: run lm-eval tasks on a model, edited or not."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tarot.arguments import require_strength
from tarot.cli.checks import check_results_file, kept_answers
from tarot.cli.console import out
from tarot.cli.models import load
from tarot.cli.options import (
    BatchSize,
    ChatTemplate,
    Device,
    DeviceMap,
    Dtype,
    IncludePath,
    Limit,
    ModelReference,
    Reward,
    Tasks,
    edit_option,
    output_path_option,
    prompt_option,
    reference,
)
from tarot.cli.progress import announce, evaluation_progress
from tarot.cli.tables import print_table
from tarot.errors import TarotError

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter

ResultsFile = Annotated[
    Path | None,
    output_path_option(
        metavar="FILE", help="JSON file for the results and the answer to each document.", show_default="none"
    ),
]


RESULTS_HEADER = ("task", "documents", "shots", "metric", "value", "stderr")


def evaluate(
    model: ModelReference,
    tasks: Tasks,
    adapter: Annotated[
        str | None,
        edit_option(
            "--adapter",
            parser=reference,
            metavar="REF",
            help="Adapter: a folder or a hub id.",
            show_default="the base model",
        ),
    ] = None,
    strength: Annotated[
        float, edit_option("--strength", metavar="NUMBER", help="Factor of the adapter's angles, 0 to 1.")
    ] = 1.0,
    include_path: IncludePath = None,
    limit: Limit = None,
    reward: Reward = None,
    num_fewshot: Annotated[
        int | None,
        prompt_option("--num-fewshot", metavar="N", help="Shots in each prompt.", show_default="each task's own"),
    ] = None,
    apply_chat_template: ChatTemplate = True,
    output: ResultsFile = None,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    batch_size: BatchSize = None,
) -> None:
    """Evaluate a model, edited or not, with lm-evaluation-harness."""
    check_results_file(output)
    from tarot.objectives.tasks.task_names import check_task_names

    check_task_names(tasks, include_path)
    require_strength(strength)
    announce("evaluate")
    from tarot.edit.adapter import Adapter
    from tarot.evaluation.evaluate import check_tasks
    from tarot.evaluation.evaluate import evaluate as evaluate_model
    from tarot.evaluation.reward_metrics import add_rewards
    from tarot.objectives.generated import check_generates
    from tarot.objectives.rewards.registry import check_reward

    edit = Adapter.from_pretrained(adapter) if adapter else None
    if edit is None and strength != 1:
        raise TarotError("--strength scales an adapter; add --adapter.")
    if edit and strength != 1:
        edit = edit.scaled(strength)
    if reward:
        check_reward(reward)
    for task in check_tasks(tasks, edit, include_path=include_path, num_fewshot=num_fewshot, limit=limit):
        if reward:
            check_generates(task, reward)
    loaded = load(model, device, dtype, device_map)
    with kept_answers(output) as answers, evaluation_progress():
        results = evaluate_model(
            loaded.model,
            loaded.tokenizer,
            tasks,
            adapter=edit,
            include_path=include_path,
            num_fewshot=num_fewshot,
            limit=limit,
            apply_chat_template=apply_chat_template,
            batch_size=batch_size,
            answers=answers,
        )
        _write(results, output)  # before a reward can fail
        add_rewards(loaded, results, reward)
        _write(results, output)
    _print_results(results)
    out.print(f"model {model}, adapter {edit.fingerprint if edit else 'none (base)'}")
    if edit:
        _print_other_shots(results, edit)
        _print_other_reward(results, edit)


def _write(results: Mapping[str, Any], output: Path | None) -> None:
    from lm_eval.utils import handle_non_serializable

    from tarot._files.atomic import write_atomically
    from tarot.models.missing_numbers import replace_nonfinite
    from tarot.report.csv_file import csv_beside, write_csv

    if output:
        content = json.dumps(replace_nonfinite(results), indent=1, default=handle_non_serializable, ensure_ascii=False)
        write_atomically(output, content.encode())
        write_csv(csv_beside(output), RESULTS_HEADER, _metric_rows(results))


def _metric_rows(results: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """Return task, documents, shots, metric, value and standard error (or None) of each metric."""
    from tarot.evaluation.lm_eval_results import n_documents

    rows: list[tuple[object, ...]] = []
    for name in results["n-samples"]:
        values = results["results"][name]
        for key, value in values.items():
            metric, _, filter_name = key.partition(",")
            if isinstance(value, float) and not metric.endswith("_stderr"):
                stderr = values.get(f"{metric}_stderr,{filter_name}")
                title = metric if filter_name in ("", "none") else f"{metric}, {filter_name}"
                if metric == "reward" and (reward := _reward_of(results, name)):
                    title = f"reward {reward}"
                error = stderr if isinstance(stderr, float) else None
                rows.append((name, n_documents(results, name), results["n-shot"][name], title, value, error))
    return rows


def _print_results(results: Mapping[str, Any]) -> None:
    """Print one row a metric, then the documents for which the model gave no number."""
    from tarot.evaluation.lm_eval_results import n_documents
    from tarot.models.missing_numbers import describe_missing_by_task

    rows, previous = [], None
    for name, documents, shots, metric, value, error in _metric_rows(results):
        task = (str(name), str(documents), str(shots)) if name != previous else ("", "", "")
        rows.append((*task, str(metric), f"{value:.4f}", _two_digits(error) if isinstance(error, float) else ""))
        previous = name
    print_table(RESULTS_HEADER, rows)
    counts = {name: n_documents(results, name) for name in results["n-samples"]}
    for note in describe_missing_by_task(results["without_number"], counts):
        out.print(note)


def _two_digits(error: float) -> str:
    """Return a standard error with the two digits that it has: 100 resamples, or 100 documents, tell it to 7%."""
    return f"{float(f'{error:.2g}'):g}"


def _print_other_shots(results: Mapping[str, Any], edit: "Adapter") -> None:
    """Print a note if the adapter's own task was evaluated under other shots than it was tuned on."""
    tuned_on = edit.provenance.get("num_fewshot")
    if isinstance(tuned_on, int) and results["n-shot"].get(edit.provenance.get("task"), tuned_on) != tuned_on:
        out.print(f"the edit was tuned on prompts of {tuned_on} shots; --num-fewshot {tuned_on} evaluates it on those")


def _print_other_reward(results: Mapping[str, Any], edit: "Adapter") -> None:
    """Print a note for each task whose texts are scored by another reward than the adapter was tuned for."""
    tuned_for = edit.provenance.get("objective")
    for name in results["n-samples"]:
        reward = _reward_of(results, name)
        if reward and tuned_for and reward != tuned_for:
            out.print(f"{name} is scored by {reward}; the edit was tuned for {tuned_for}")


def _reward_of(results: Mapping[str, Any], task: str) -> str | None:
    """Return the reward that scored a task's texts, if one did."""
    if "reward,none" not in results["results"][task]:
        return None
    reward = (results["configs"][task].get("metadata") or {}).get("reward")
    return str(reward) if reward else None
