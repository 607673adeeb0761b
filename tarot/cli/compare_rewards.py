"""`tarot compare` for adapters that were tuned for a reward."""

from pathlib import Path
from typing import TYPE_CHECKING

from tarot.cli.checks import kept_answers
from tarot.cli.compare_request import CompareRequest
from tarot.cli.progress import evaluation_progress
from tarot.cli.tables import print_command, print_table
from tarot.errors import TarotError
from tarot.evaluation.results.comparison import FEW_SHOT_SHOTS, HEADLINE

if TYPE_CHECKING:
    from tarot.models.loaded_model import LoadedModel


def check_rewards_request(request: CompareRequest) -> None:
    """Raise what the comparison would raise that is known without the model."""
    from tarot.evaluation.compare_rewards import check_compare_rewards

    given = {
        "--control": bool(request.controls),
        "--draws": bool(request.draws),
        "--baseline": bool(request.baselines),
        "--num-fewshot": request.num_fewshot != FEW_SHOT_SHOTS,
        "--metric": request.metric != HEADLINE,
    }
    if unused := [name for name, is_given in given.items() if is_given]:
        raise TarotError(f"{unused[0]} has no use for an adapter tuned for a reward; leave it out.")
    for edit in request.edits.values():
        check_compare_rewards(edit, request.reward, include_path=request.include_path, limit=request.limit)


def compare_texts(loaded: "LoadedModel", request: CompareRequest) -> None:
    """Score the texts of base and edited model for each adapter, write the file after each, and print the tables."""
    from tarot.evaluation.arms import LoggedAnswers
    from tarot.evaluation.compare import check_fit
    from tarot.evaluation.compare_rewards import compare_rewards
    from tarot.objectives.rewards.text_scores import TextScoreLog
    from tarot.report.inspect_log import write_reward_logs
    from tarot.report.results_csv import save_rewards
    from tarot.report.rewards import FRONT_HEADER, REWARD_HEADER, front_rows, reward_rows

    check_fit(loaded, request.edits.values())
    comparisons = []
    with kept_answers(request.output) as answers:
        for folder, edit in request.edits.items():
            logged: LoggedAnswers = {}
            with evaluation_progress() as show:
                comparison = compare_rewards(
                    loaded,
                    edit,
                    reward=request.reward,
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
        rows = reward_rows(comparison)
        print_table(REWARD_HEADER, rows, title)
        if comparison.outcomes:
            title = "trials that no other trial beats in both scores, on the samples"
            print_table(FRONT_HEADER, front_rows(comparison.outcomes, comparison.front), title)
        print_command(comparison)
    request.print_logs()
