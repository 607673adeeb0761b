"""`tarot compare`: measure base, few-shot and edited model on the same held-out documents."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tarot._files.paths import check_writable
from tarot.cli.checks import check_results_file, kept_answers
from tarot.cli.console import out
from tarot.cli.models import load
from tarot.cli.options import (
    AdapterReferences,
    Baselines,
    BatchSize,
    Device,
    DeviceMap,
    Draws,
    Dtype,
    IncludePath,
    Limit,
    MetricName,
    ModelReference,
    Reward,
    edit_option,
    output_option,
    output_path_option,
    prompt_option,
    reference,
)
from tarot.cli.progress import announce, announce_tasks, evaluation_progress
from tarot.cli.tables import print_command, print_table
from tarot.errors import TarotError, require_package

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter
    from tarot.models.loaded_model import LoadedModel

DEFAULT_SHOTS = 6  # FEW_SHOT_SHOTS, without the import


def compare(
    model: ModelReference,
    adapter: AdapterReferences,
    control: Annotated[
        list[str] | None,
        edit_option(
            "--control",
            parser=reference,
            metavar="REF",
            help="Adapter of another search, as a further arm; may be repeated.",
            show_default="none",
        ),
    ] = None,
    include_path: IncludePath = None,
    limit: Limit = None,
    reward: Reward = None,
    num_fewshot: Annotated[
        int,
        prompt_option(
            "--num-fewshot",
            "--shots",
            min=0,
            help="Shots of the few-shot arm; an adapter tuned on shots keeps its own number.",
        ),
    ] = DEFAULT_SHOTS,
    draws: Draws = 0,
    baseline: Baselines = None,
    metric: MetricName = "greedy_f1",
    output: Annotated[
        Path | None,
        output_path_option(
            metavar="FILE", help="JSON file for the comparisons, which `tarot report` reads.", show_default="none"
        ),
    ] = None,
    log_format: Annotated[
        Literal["inspect"] | None,
        output_option(
            "--log-format",
            help="Write each arm as a log too, for `inspect view --log-dir FILE.logs`.",
            show_default="none",
        ),
    ] = None,
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    batch_size: BatchSize = None,
) -> None:
    """Compare base, few-shot and edited model on the same held-out documents.

    For adapters tuned for a reward: generate texts with base and edited model, and score both.
    """
    check_results_file(output)
    logs: Path | None = None
    if log_format:
        if not output:
            raise TarotError("--log-format writes logs beside the results; add --output-path.")
        check_writable(logs := output.with_suffix(".logs"), folder=True)
        require_package("inspect_ai", "A log of Inspect", "inspect")
    announce("compare")
    from tarot.edit.adapter import Adapter
    from tarot.evaluation.as_tuned import config_of
    from tarot.evaluation.compare_rewards import check_compare_rewards
    from tarot.evaluation.results.reward_comparison import load_results
    from tarot.objectives.kind import ObjectiveKind

    if output and output.exists() and any(comparison.request_digest for comparison in load_results(output)[0]):
        raise TarotError(f"{output} holds the cells of tarot bench; choose another --output-path.")
    edits = {name: Adapter.from_pretrained(name) for name in adapter}
    controls = {name: Adapter.from_pretrained(name) for name in control or ()}
    announce_tasks([*edits.values(), *controls.values()])
    request = CompareRequest(include_path, limit, batch_size, output, tuple(baseline or ()), logs)
    for_reward = {bool(reward) or config_of(edit).kind is ObjectiveKind.REWARD for edit in edits.values()}
    if for_reward == {False}:
        _check_answers(edits, controls, num_fewshot, draws, request)
        loaded = load(model, device, dtype, device_map)
        _compare_answers(loaded, edits, controls, num_fewshot, draws, metric, request)
        return
    if for_reward != {True}:
        raise TarotError("adapters that are all tuned for a reward, or none", "both", "compare them one by one")
    if controls or draws or baseline or num_fewshot != DEFAULT_SHOTS or metric != "greedy_f1":
        unused = "--control, --draws, --baseline, --num-fewshot or --metric"
        raise TarotError("only options that a reward has a use for", unused, "leave it out")
    for edit in edits.values():
        check_compare_rewards(edit, reward, include_path=include_path, limit=limit)
    _compare_rewards(load(model, device, dtype, device_map), edits, reward, request)


@dataclass(frozen=True)
class CompareRequest:
    """Options for every adapter of one command."""

    include_path: Path | None
    limit: float | None
    batch_size: int | None
    output: Path | None
    baselines: tuple[str, ...] = ()
    logs: Path | None = None


def _check_answers(
    edits: "Mapping[str, Adapter]",
    controls: "Mapping[str, Adapter]",
    num_fewshot: int,
    draws: int,
    request: CompareRequest,
) -> None:
    from tarot.evaluation.as_tuned import config_of
    from tarot.evaluation.compare import check_compare

    searches = [config_of(control).search for control in controls.values()]
    if len(set(searches)) < len(searches):
        raise TarotError("controls of different searches", ", ".join(searches))
    for edit in edits.values():
        check_compare(
            edit,
            controls=controls.values(),
            num_fewshot=num_fewshot,
            draws=draws,
            baselines=request.baselines,
            include_path=request.include_path,
            limit=request.limit,
        )


def _compare_answers(
    loaded: "LoadedModel",
    edits: "Mapping[str, Adapter]",
    controls: "Mapping[str, Adapter]",
    num_fewshot: int,
    draws: int,
    metric: str,
    request: CompareRequest,
) -> None:
    """Compare each adapter with the base model, write the file after each, and print a table for each."""
    from tarot.evaluation.as_tuned import config_of
    from tarot.evaluation.compare import LoggedAnswers, check_fit
    from tarot.evaluation.compare import compare as compare_answers
    from tarot.evaluation.results.metrics import METRICS
    from tarot.evaluation.results.notes import arm_notes, missing_number_notes
    from tarot.evaluation.results.scored_comparison import score_comparisons
    from tarot.report.costs import COST_HEADER, cost_note, cost_rows
    from tarot.report.inspect_log import write_inspect_logs
    from tarot.report.results_csv import save_comparisons
    from tarot.report.table import ARM_HEADER, OTHER_ARMS_HEADER, arm_rows, other_arm_rows

    searches = {name: config_of(control).search for name, control in controls.items()}
    check_fit(loaded, [*edits.values(), *controls.values()])
    comparisons = []
    with kept_answers(request.output) as answers:
        for name, edit in edits.items():
            logged: LoggedAnswers = {}
            with evaluation_progress() as show:
                comparison = compare_answers(
                    loaded.model,
                    loaded.tokenizer,
                    edit,
                    num_fewshot=num_fewshot,
                    include_path=request.include_path,
                    limit=request.limit,
                    batch_size=request.batch_size,
                    curves=_curves({**searches, name: config_of(edit).search}),
                    trade_off=_trade_off(name) if config_of(edit).max_kl is not None else (),
                    controls={f"{searches[name]} search": control for name, control in controls.items()},
                    draws=draws,
                    baselines=request.baselines,
                    on_arm=show.begin_part,
                    logged=logged,
                    answers=answers,
                )
            comparisons.append(comparison)
            if request.output:  # keep what is measured, even if the next adapter fails
                save_comparisons(comparisons, request.output)
            if request.logs:
                write_inspect_logs(request.logs, comparison, logged)
    for scored in score_comparisons(comparisons, metric):
        comparison = scored.comparison
        documents = f"{len(comparison.gold):,} documents"
        title = f"{comparison.task}, {documents}, {METRICS[metric].title}, seed {comparison.seed}"
        print_table(ARM_HEADER, arm_rows(scored), title)
        if others := other_arm_rows(scored):
            print_table(OTHER_ARMS_HEADER, others, "the edit against each other arm")
        if request.baselines:
            print_table(
                COST_HEADER, cost_rows(comparison), "what each arm costs; prepare: all of its search or training"
            )
            if note := cost_note(comparison):
                out.print(note)
        for note in [*arm_notes(comparison, metric), *missing_number_notes(comparison)]:
            out.print(note)
        print_command(comparison)
    _print_logs(request)


def _curves(searches: Mapping[str, str]) -> dict[str, Sequence[float]]:
    """Return the scores of the searches in adapters' folders, for a figure; an adapter without its trials has none."""
    from tarot.search.folder import TRIALS, read_curve

    return {search: read_curve(folder, search) for folder, search in searches.items() if Path(folder, TRIALS).exists()}


def _trade_off(folder: str) -> Sequence[tuple[float, float]]:
    """Return divergence and score of the trials in an adapter's folder, if they are there."""
    from tarot.search.folder import TRIALS
    from tarot.search.pareto import read_trade_off

    return read_trade_off(folder) if Path(folder, TRIALS).exists() else []


def _compare_rewards(
    loaded: "LoadedModel", edits: "Mapping[str, Adapter]", reward: str | None, request: CompareRequest
) -> None:
    """Score the texts of base and edited model for each adapter, write the file after each, and print the tables."""
    from tarot.evaluation.compare import LoggedAnswers, check_fit
    from tarot.evaluation.compare_rewards import compare_rewards
    from tarot.objectives.rewards.text_scores import TextScoreLog
    from tarot.report.inspect_log import write_reward_logs
    from tarot.report.results_csv import save_rewards
    from tarot.report.rewards import FRONT_HEADER, REWARD_HEADER, front_rows, reward_rows

    check_fit(loaded, edits.values())
    comparisons = []
    with kept_answers(request.output) as answers:
        for folder, edit in edits.items():
            logged: LoggedAnswers = {}
            with evaluation_progress() as show:
                comparison = compare_rewards(
                    loaded,
                    edit,
                    reward=reward,
                    include_path=request.include_path,
                    limit=request.limit,
                    batch_size=request.batch_size,
                    outcomes=TextScoreLog(Path(folder)).entries,
                    logged=logged,
                    answers=answers,
                    on_arm=show.begin_part,
                )
            comparisons.append(comparison)
            if request.output:
                save_rewards(comparisons, request.output)
            if request.logs:
                write_reward_logs(request.logs, comparison, logged)
    for comparison in comparisons:
        title = f"{comparison.task}, {comparison.gain.n:,} documents, {comparison.reward}, seed {comparison.seed}"
        rows = reward_rows(comparison.base, comparison.edited, comparison.gain, comparison.fluency_gain)
        print_table(REWARD_HEADER, rows, title)
        if comparison.outcomes:
            title = "trials that no other trial beats in both scores, on the samples"
            print_table(FRONT_HEADER, front_rows(comparison.outcomes, comparison.front), title)
        print_command(comparison)
    _print_logs(request)


def _print_logs(request: CompareRequest) -> None:
    if request.logs:
        out.print(f"logs of each arm: inspect view --log-dir {shlex.quote(str(request.logs))}", soft_wrap=True)
