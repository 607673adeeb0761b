"""`tarot compare`: measure base, few-shot and edited model on the same held-out documents."""

from pathlib import Path
from typing import Annotated, Literal

from tarot._files.paths import check_writable
from tarot.cli.checks import check_results_file
from tarot.cli.compare_answers import check_answers_request, compare_answers
from tarot.cli.compare_request import CompareRequest
from tarot.cli.compare_rewards import check_rewards_request, compare_texts
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
from tarot.cli.progress import announce, announce_tasks
from tarot.errors import TarotError, require_package
from tarot.evaluation.results.comparison import FEW_SHOT_SHOTS, HEADLINE


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
    ] = FEW_SHOT_SHOTS,
    draws: Draws = 0,
    baseline: Baselines = None,
    metric: MetricName = HEADLINE,
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
    from tarot.evaluation.results.reward_comparison import load_results
    from tarot.objectives.kind import ObjectiveKind

    if output and output.exists() and any(comparison.request_digest for comparison in load_results(output)[0]):
        raise TarotError(f"{output} holds the cells of tarot bench; choose another --output-path.")
    edits = {name: Adapter.from_pretrained(name) for name in adapter}
    controls = {name: Adapter.from_pretrained(name) for name in control or ()}
    announce_tasks([*edits.values(), *controls.values()])
    request = CompareRequest(
        edits=edits,
        controls=controls,
        include_path=include_path,
        limit=limit,
        batch_size=batch_size,
        output=output,
        logs=logs,
        num_fewshot=num_fewshot,
        draws=draws,
        baselines=tuple(baseline or ()),
        metric=metric,
        reward=reward,
    )
    for_reward = {bool(reward) or config_of(edit).kind is ObjectiveKind.REWARD for edit in edits.values()}
    if len(for_reward) > 1:
        raise TarotError("Adapters tuned for a reward and adapters tuned on answers need a command each.")
    if for_reward == {True}:
        check_rewards_request(request)
        compare_texts(load(model, device, dtype, device_map), request)
    else:
        check_answers_request(request)
        compare_answers(load(model, device, dtype, device_map), request)
