"""`tarot compare`: measure base, few-shot and edited model on the same documents."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tarot.cli.console import out
from tarot.cli.models import load
from tarot.cli.options import (
    BatchSize,
    Device,
    DeviceMap,
    Dtype,
    IncludePath,
    Metric,
    Model,
    Reward,
    check_output,
    path,
    rows_of,
)
from tarot.cli.tables import print_again, print_table
from tarot.errors import TarotError
from tarot.evaluation.grid import FEW_SHOT_SHOTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tarot.edit.adapter import Adapter
    from tarot.models.loaded_model import LoadedModel


def compare(
    model: Model,
    adapter: Annotated[list[Path], typer.Option(parser=path, help="folder of an adapter; repeat for several")],
    control: Annotated[
        list[Path] | None,
        typer.Option(parser=path, help="adapter of another search, as a further arm; repeat for several"),
    ] = None,
    shots: Annotated[
        int,
        typer.Option(help="labelled examples in few-shot prompts; an edit tuned on shots keeps its own", min=0),
    ] = FEW_SHOT_SHOTS,
    draws: Annotated[
        int, typer.Option(help="average few-shot prompting over so many choices and orders of its shots", min=0)
    ] = 0,
    include_path: IncludePath = None,
    limit: Annotated[int | None, typer.Option(help="only the first documents")] = None,
    metric: Metric = "greedy_f1",
    reward: Reward = None,
    output: Annotated[
        Path | None, typer.Option(parser=path, help="JSON file for cells or rewarded texts, which `tarot report` reads")
    ] = None,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
) -> None:
    """Measure base, few-shot and edited model on the same documents, none of them tuned on.

    Adapters tuned for a reward: base and edited texts, judged side by side.
    """
    from tarot.objectives.task_names import check_include_path

    check_output(output)
    check_include_path(include_path)
    from tarot._files.atomic import write_atomically
    from tarot.edit.adapter import Adapter
    from tarot.evaluation import compare as measuring
    from tarot.evaluation import compare_rewards as judging
    from tarot.evaluation import reward_results as rewarded
    from tarot.evaluation.as_tuned import config_of
    from tarot.evaluation.metrics import HEADLINE, METRICS, metric_named
    from tarot.evaluation.results import missing_number_notes
    from tarot.evaluation.results_file import comparisons_to_json
    from tarot.evaluation.scored_comparison import score_comparisons as compared
    from tarot.objectives.rewards import is_reward
    from tarot.report.table import ARM_HEADER, arm_rows
    from tarot.search.folder import TRIALS, read_curve

    rows = rows_of(batch_size)
    metric_named(metric)
    if output and output.exists() and any(comparison.asked for comparison in rewarded.load_results(output)[0]):
        hint = "choose another --output"
        raise TarotError("a file of its own to write", f"{output}, in which tarot bench keeps cells", hint)
    edits = {folder: Adapter.from_pretrained(folder) for folder in adapter}
    configs = {folder: config_of(edit) for folder, edit in edits.items()}
    for_rewards = [bool(reward) or is_reward(config.objective) for config in configs.values()]
    if any(for_rewards):
        if not all(for_rewards):
            raise TarotError("adapters that are all tuned for a reward, or none", "both", "compare them one by one")
        if control or draws or shots != FEW_SHOT_SHOTS or metric != HEADLINE:
            asked = "--control, --draws, --shots or --metric"
            raise TarotError("no arms beside base and edited texts, judged by a reward", asked, "leave them out")
        for edit in edits.values():
            judging.check_compare_rewards(edit, reward, include_path=include_path, limit=limit)
        _compare_rewards(load(model, device, dtype, device_map), edits, reward, include_path, limit, rows, output)
        return
    beside = {folder: Adapter.from_pretrained(folder) for folder in control or ()}
    searches = {folder: config_of(edit).search for folder, edit in beside.items()}
    if len(set(searches.values())) < len(beside):
        raise TarotError("controls of different searches", ", ".join(searches.values()), "")
    searched = {folder: {**searches, folder: config.search} for folder, config in configs.items()}
    # Only for a picture: what was pruned, imported or copied without its trials has none.
    curves = {
        folder: {s: read_curve(f, s) for f, s in those.items() if (f / TRIALS).exists()}
        for folder, those in searched.items()
    }
    for edit in [*edits.values(), *beside.values()]:
        measuring.check_compare(edit, shots=shots, draws=draws, include_path=include_path, limit=limit)
    loaded = load(model, device, dtype, device_map)
    for edit in edits.values():
        measuring.check_controls(loaded, edit, beside.values())
    measured = []
    for folder, edit in edits.items():
        comparison = measuring.compare(
            loaded.model,
            loaded.tokenizer,
            edit,
            shots=shots,
            include_path=include_path,
            limit=limit,
            batch_size=rows,
            curves=curves[folder],
            controls={f"{searches[f]} search": each for f, each in beside.items()},
            draws=draws,
        )
        measured.append(comparison)
        if output:  # what is measured is kept, whatever becomes of the next
            write_atomically(output, comparisons_to_json(measured).encode())
    for scored in compared(measured, metric):
        comparison = scored.comparison
        title = (
            f"{comparison.task}, {len(comparison.gold):,} documents, {METRICS[metric].title}, seed {comparison.seed}"
        )
        print_table(ARM_HEADER, arm_rows(scored), title)
        for note in missing_number_notes(comparison):
            out.print(note)
        print_again(comparison)


def _compare_rewards(
    loaded: "LoadedModel",
    edits: "Mapping[Path, Adapter]",
    reward: str | None,
    include_path: Path | None,
    limit: int | None,
    batch_size: int | None,
    output: Path | None,
) -> None:
    from tarot._files.atomic import write_atomically
    from tarot.evaluation import compare_rewards as judging
    from tarot.evaluation import reward_results as rewarded
    from tarot.objectives.text_scores import TEXT_SCORES_FILE, read_text_scores
    from tarot.report.rewards import FRONT_HEADER, REWARD_HEADER, front_rows, reward_rows

    for edit in edits.values():
        edit.find_sites(loaded.model)  # or it does not fit
    compared = []
    for folder, edit in edits.items():
        written = judging.compare_rewards(
            loaded,
            edit,
            reward=reward,
            include_path=include_path,
            limit=limit,
            batch_size=batch_size,
            outcomes=read_text_scores(folder) if (folder / TEXT_SCORES_FILE).exists() else None,
        )
        compared.append(written)
        if output:
            write_atomically(output, rewarded.rewards_to_json(compared).encode())
    for each in compared:
        title = f"{each.task}, {each.gain.n:,} documents, {each.reward}, seed {each.seed}"
        print_table(REWARD_HEADER, reward_rows(each.base, each.edited, each.gain, each.fluency_gain), title)
        if each.outcomes:
            title = "trials that no other beats in both, on the samples"
            print_table(FRONT_HEADER, front_rows(each.outcomes, each.front), title)
        print_again(each)
