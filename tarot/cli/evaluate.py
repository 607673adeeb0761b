"""`tarot evaluate`: run lm-eval tasks on a model, edited or not."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tarot.cli.analysis import kl_text, print_changes
from tarot.cli.console import err, out
from tarot.cli.models import load
from tarot.cli.options import (
    BatchSize,
    Device,
    DeviceMap,
    Dtype,
    IncludePath,
    Model,
    NoChat,
    Reward,
    check_names,
    check_output,
    path,
    rows_of,
    task_names,
)
from tarot.cli.progress import step_progress
from tarot.cli.tables import print_table
from tarot.errors import TarotError


def evaluate(
    model: Model,
    tasks: Annotated[str, typer.Option(help="lm-eval tasks, separated by commas")],
    adapter: Annotated[
        Path | None, typer.Option(parser=path, help="folder of an adapter; none for the base model")
    ] = None,
    include_path: IncludePath = None,
    num_fewshot: Annotated[
        int | None, typer.Option(help="shots in each prompt; each task's own number if left out")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="only the first documents of each task")] = None,
    reward: Reward = None,
    output: Annotated[
        Path | None, typer.Option(parser=path, help="JSON file for results and per-document predictions")
    ] = None,
    strength: Annotated[float, typer.Option(help="factor of the adapter's angles, 0 to 1")] = 1.0,
    side_effects: Annotated[
        bool, typer.Option("--side-effects", help="also what changes on the suite's other tasks and on neutral text")
    ] = False,
    suite: Annotated[str, typer.Option(help="tasks, groups or tags for --side-effects")] = "tarot_synthetic",
    tokens: Annotated[int, typer.Option(help="neutral text for --side-effects, at least so many tokens")] = 20_000,
    no_chat: NoChat = False,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
) -> None:
    """Evaluate a model, edited or not, with lm-evaluation-harness."""
    names, others = task_names(tasks), task_names(suite)
    check_output(output)
    check_names([*names, *(others if side_effects else [])], include_path)
    from lm_eval.utils import handle_non_serializable

    from tarot._files.atomic import write_atomically
    from tarot.analysis.neutral_text import check_tokens
    from tarot.analysis.side_effects import check_strength, measure_side_effects
    from tarot.edit.adapter import Adapter
    from tarot.evaluation import compare_rewards as judging
    from tarot.evaluation.evaluate import check_tasks
    from tarot.evaluation.evaluate import evaluate as evaluate_model
    from tarot.evaluation.lm_eval_results import n_documents
    from tarot.models.missing_numbers import notes, strict
    from tarot.objectives import rewards
    from tarot.objectives.generated import check_generates

    rows = rows_of(batch_size)
    edit = Adapter.from_pretrained(adapter) if adapter else None
    check_strength(strength)
    if edit is None and (side_effects or strength != 1):
        raise TarotError("an adapter for --strength and --side-effects", "none", "add --adapter DIR")
    if edit and strength != 1:
        edit = edit.scaled(strength)
    if reward:
        rewards.check_reward(reward)
    for task in check_tasks(names, edit, include_path=include_path, num_fewshot=num_fewshot, limit=limit):
        if reward:
            check_generates(task, reward)
    if side_effects:
        check_tokens(tokens)
        check_tasks(others, include_path=include_path, limit=limit)
    kept = output.with_name(f".{output.name}.answers.jsonl") if output else None
    loaded = load(model, device, dtype, device_map)
    try:
        results = evaluate_model(
            loaded.model,
            loaded.tokenizer,
            names,
            adapter=edit,
            include_path=include_path,
            num_fewshot=num_fewshot,
            limit=limit,
            apply_chat_template=not no_chat,
            batch_size=rows,
            answers=kept,
        )
    except (TarotError, KeyboardInterrupt):
        if kept and kept.exists():
            err.print(f"the answers so far are kept in {kept}: the same command goes on from them", soft_wrap=True)
        raise

    def keep() -> None:
        if output:
            content = json.dumps(strict(results), indent=1, default=handle_non_serializable, ensure_ascii=False)
            write_atomically(output, content.encode())

    keep()  # before anything of the tasks' rewards can fail
    if kept:
        kept.unlink(missing_ok=True)  # the results hold the answers
    judging.add_rewards(loaded, results, reward)
    keep()
    rows_of_tasks = []
    for name in results["n-samples"]:
        named = (name, str(n_documents(results, name)), str(results["n-shot"][name]))
        values = results["results"][name]
        for key, value in values.items():
            metric, _, through = key.partition(",")
            if isinstance(value, float) and not metric.endswith("_stderr"):
                stderr = values.get(f"{metric}_stderr,{through}")
                error = f"{stderr:.4f}" if isinstance(stderr, float) else ""
                called = metric if through in ("", "none") else f"{metric}, {through}"
                rows_of_tasks.append((*named, called, f"{value:.4f}", error))
                named = ("", "", "")
    print_table(("task", "documents", "shots", "metric", "value", "stderr"), rows_of_tasks)
    counts = {name: n_documents(results, name) for name in results["n-samples"]}
    for note in notes(results["without_number"], counts):
        out.print(note)
    out.print(f"model {model}, adapter {edit.fingerprint if edit else 'none (base)'}")
    own = edit.provenance.get("num_fewshot") if edit else None
    if edit and isinstance(own, int) and results["n-shot"].get(edit.provenance.get("task"), own) != own:
        out.print(f"the edit was tuned on prompts of {own} shots: --num-fewshot {own} evaluates it on the same")
    if edit and side_effects:
        with step_progress() as show:
            found = measure_side_effects(
                loaded,
                edit,
                others,
                n_tokens=tokens,
                include_path=include_path,
                limit=limit,
                apply_chat_template=not no_chat,
                batch_size=rows,
                on_step=show,
            )
        print_changes("side effects: tasks that it was not tuned on", found.changes)
        drift = found.drift
        out.print(f"{drift.tokens:,} tokens that the base model wrote:")
        out.print(f"perplexity {drift.base_perplexity:.2f} without the edit, {drift.perplexity:.2f} with it")
        out.print(f"KL {kl_text(drift)} nats a token")
