"""`tarot tune`: search for an edit."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from tarot.cli.console import out
from tarot.cli.models import load
from tarot.cli.options import (
    Address,
    BatchSize,
    Cpus,
    Device,
    DeviceMap,
    Dtype,
    Engine,
    Gpus,
    IncludePath,
    Memory,
    Model,
    NoChat,
    check_names,
    check_output,
    path,
    rows_of,
    whole_number,
)
from tarot.cli.progress import trial_progress


def tune(
    model: Model,
    task: Annotated[str, typer.Option(help="an lm-eval task with a split to tune on")],
    output: Annotated[Path, typer.Option(parser=path, help="new folder for the adapter and its trials")],
    include_path: IncludePath = None,
    num_fewshot: Annotated[
        str, typer.Option(help="shots in each prompt, or `mix`: 0, 2, 4 or 6, drawn for each sample")
    ] = "0",
    samples: Annotated[int, typer.Option("--num-samples", "--samples", help="labelled samples")] = 20,
    budget: Annotated[int, typer.Option(help="evaluations of the objective")] = 120,
    space: Annotated[
        str,
        typer.Option(help="full, head-gradient, head, layer or random:R; the search's own if left out"),
    ] = "",
    search: Annotated[
        str, typer.Option(help="adam, bo, paper, published or random; adam, or bo for a reward, if left out")
    ] = "",
    objective: Annotated[
        str,
        typer.Option(
            help="log_probability, probability, margin or accuracy; or a reward of generated texts: "
            "sentiment:positive, sentiment:negative, toxicity:low, fluency, classifier:REF#LABEL, "
            "or your MODULE:FUNCTION"
        ),
    ] = "log_probability",
    sites: Annotated[str, typer.Option(help="heads or mlp")] = "heads",
    layers: Annotated[
        str, typer.Option(help="fraction from the first (0.5) or last (-0.5), or 4-11, or 0,3,5")
    ] = "1.0",
    rotation: Annotated[str, typer.Option(help="rotary or givens; scale, no rotation, multiplies a head")] = "rotary",
    bound: Annotated[float, typer.Option(help="largest angle, radians")] = 0.785,
    seed: Annotated[int, typer.Option(help="decides the samples; shots and proposals too, where they are drawn")] = 0,
    fluency_floor: Annotated[
        str | None,
        typer.Option(help="with a reward: most that fluency may fall, in nats a token (0.3) or percent (10%)"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the trials in the output folder")] = False,
    no_chat: NoChat = False,
    batch: Annotated[
        int,
        typer.Option(
            "--trials-per-step",
            "--batch",
            help="candidates proposed before any of their scores is known; for bo and random",
        ),
    ] = 1,
    engine: Engine = "local",
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory: Memory = "4GB",
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
) -> None:
    """Find angles that raise a task's score on a few labelled samples, and save them as an adapter."""
    from tarot.edit.layers import parse_layers
    from tarot.evaluation.grid import parse_engine as known_engine

    known_engine(engine)
    check_output(output, folder=True)
    check_names([task], include_path)
    from tarot.evaluation.ray.candidates import RayScorer
    from tarot.evaluation.ray.cluster import Resources
    from tarot.search import trial_cost
    from tarot.search.config import TaRotConfig
    from tarot.search.problem import check_samples
    from tarot.search.tune import check, tune

    config = TaRotConfig(
        task=task,
        num_fewshot=num_fewshot if num_fewshot == "mix" else whole_number("shots", num_fewshot),
        num_samples=samples,
        space=space,
        search=search,
        objective=objective,
        sites=sites,
        layers=parse_layers(layers),
        rotation=rotation,
        bound=bound,
        seed=seed,
        apply_chat_template=not no_chat,
        trials_per_step=batch,
        fluency_floor=fluency_floor,
    )
    rows = rows_of(batch_size)
    needs = Resources.parse(cpus, gpus, memory)
    check(config, output, budget, resume)
    check_samples(config, include_path)
    with ExitStack() as stack:
        folder = str(include_path) if include_path else None
        elsewhere = (
            stack.enter_context(
                RayScorer(model, config, needs, address, dtype=dtype, include_path=folder, batch_size=rows)
            )
            if engine == "ray"
            else None
        )
        stack.enter_context(needs.threads())
        loaded = load(model, device, dtype, device_map)
        start, advance = stack.enter_context(trial_progress(budget, trial_cost(config.search)))
        adapter = tune(
            loaded.model,
            loaded.tokenizer,
            config,
            output_dir=output,
            budget=budget,
            include_path=include_path,
            resume=resume,
            batch_size=rows,
            candidates=elsewhere,
            on_start=start,
            on_trial=advance,
        )
    said: Any = adapter.provenance
    scores, seconds, trials = said["scores"], said["seconds"], said["trials"]
    total = sum(seconds.values())
    out.print(
        f"{objective} on {samples} samples: identity {scores['identity']:.4f}, best {scores['best']:.4f} "
        f"(trial {said['best_trial']} of 0-{trials - 1})"
    )
    if said["fitted"] and said["spent"] <= budget - trial_cost(config.search):
        out.print(f"ended after {said['spent']} of {budget} evaluations, the samples being fitted")
    out.print(f"{total:.0f} s, {seconds['proposing'] / total:.0%} of them spent on proposing")
    out.print(f"adapter {adapter.fingerprint} in {output}" + (", interrupted" if said["interrupted"] else ""))
