"""`tarot compare` for adapters that were tuned on labelled answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tarot.cli.checks import kept_answers
from tarot.cli.compare_request import CompareRequest
from tarot.cli.console import out
from tarot.cli.progress import evaluation_progress
from tarot.cli.tables import print_command, print_table
from tarot.errors import TarotError

if TYPE_CHECKING:
    from tarot.models.loaded_model import LoadedModel


def check_answers_request(request: CompareRequest) -> None:
    """Raise what the comparison would raise that is known without the model."""
    from tarot.evaluation.as_tuned import config_of
    from tarot.evaluation.compare import check_compare

    searches = [config_of(control).search for control in request.controls.values()]
    if len(set(searches)) < len(searches):
        raise TarotError("controls of different searches", ", ".join(searches))
    for edit in request.edits.values():
        check_compare(
            edit,
            controls=request.controls.values(),
            num_fewshot=request.num_fewshot,
            draws=request.draws,
            baselines=request.baselines,
            include_path=request.include_path,
            limit=request.limit,
        )


def compare_answers(loaded: "LoadedModel", request: CompareRequest) -> None:
    """Compare each adapter with the base model, write the file after each, and print a table for each."""
    from tarot.evaluation.arms import LoggedAnswers
    from tarot.evaluation.as_tuned import config_of
    from tarot.evaluation.compare import check_fit, compare
    from tarot.evaluation.results.metrics import METRICS
    from tarot.evaluation.results.notes import arm_notes, missing_number_notes
    from tarot.evaluation.results.scored_comparison import score_comparisons
    from tarot.report.costs import COST_HEADER, cost_note, cost_rows
    from tarot.report.inspect_log import write_inspect_logs
    from tarot.report.results_csv import save_comparisons
    from tarot.report.table import ARM_HEADER, OTHER_ARMS_HEADER, arm_rows, other_arm_rows

    searches = {name: config_of(control).search for name, control in request.controls.items()}
    check_fit(loaded, [*request.edits.values(), *request.controls.values()])
    comparisons = []
    with kept_answers(request.output) as answers:
        for name, edit in request.edits.items():
            logged: LoggedAnswers = {}
            with evaluation_progress() as show:
                comparison = compare(
                    loaded.model,
                    loaded.tokenizer,
                    edit,
                    num_fewshot=request.num_fewshot,
                    include_path=request.include_path,
                    limit=request.limit,
                    batch_size=request.batch_size,
                    curves=_curves({**searches, name: config_of(edit).search}),
                    trade_off=_trade_off(name) if config_of(edit).max_kl is not None else (),
                    controls={f"{searches[name]} search": control for name, control in request.controls.items()},
                    draws=request.draws,
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
    for scored in score_comparisons(comparisons, request.metric):
        comparison = scored.comparison
        documents = f"{len(comparison.gold):,} documents"
        title = f"{comparison.task}, {documents}, {METRICS[request.metric].title}, seed {comparison.seed}"
        print_table(ARM_HEADER, arm_rows(scored), title)
        if others := other_arm_rows(scored):
            print_table(OTHER_ARMS_HEADER, others, "the edit against each other arm")
        if request.baselines:
            print_table(
                COST_HEADER, cost_rows(comparison), "what each arm costs; prepare: all of its search or training"
            )
            if note := cost_note(comparison):
                out.print(note)
        for note in [*arm_notes(comparison, request.metric), *missing_number_notes(comparison)]:
            out.print(note)
        print_command(comparison)
    request.print_logs()


def _curves(searches: Mapping[str, str]) -> dict[str, Sequence[float]]:
    """Return the scores of the searches in adapters' folders, for a figure; an adapter without its trials has none."""
    from tarot.search.folder import TRIALS, read_curve

    return {search: read_curve(folder, search) for folder, search in searches.items() if Path(folder, TRIALS).exists()}


def _trade_off(folder: str) -> Sequence[tuple[float, float]]:
    """Return divergence and score of the trials in an adapter's folder, if they are there."""
    from tarot.search.folder import TRIALS
    from tarot.search.pareto import read_trade_off

    return read_trade_off(folder) if Path(folder, TRIALS).exists() else []
