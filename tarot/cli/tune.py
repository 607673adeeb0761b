"""`tarot tune`: search for an edit."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tarot._files.paths import check_writable
from tarot.cli.console import err, out
from tarot.cli.models import load
from tarot.cli.options import (
    Address,
    BatchSize,
    ChatTemplate,
    Cpus,
    Device,
    DeviceMap,
    Dtype,
    Engine,
    Gpus,
    IncludePath,
    Layers,
    MaxKl,
    Memory,
    ModelReference,
    NewFolder,
    NumSamples,
    Retain,
    SingleTask,
    Space,
    edit_option,
    optional_names,
    output_option,
    prompt_option,
    search_option,
    trial_or_kl,
)
from tarot.cli.progress import StepProgress, announce
from tarot.cli.recipe import TuneRecipeFile, requested_by_user
from tarot.cli.tables import print_table
from tarot.errors import TarotError, UnknownName
from tarot.search.names import SearchName

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter
    from tarot.search.config import TaRotConfig


def tune(
    model: ModelReference,
    tasks: SingleTask,
    output: NewFolder,
    recipe: TuneRecipeFile = None,
    include_path: IncludePath = None,
    objective: Annotated[
        str | None,
        search_option(
            "--objective",
            metavar="NAME",
            help="What to maximise: log_probability, probability, margin or accuracy of the right answers (gradient "
            "searches on accuracy follow log_probability); or your function of the edited model and the tokenizer "
            "(MODULE:FUNCTION).",
            show_default="log_probability",
            callback=requested_by_user,
        ),
    ] = None,
    reward: Annotated[
        str | None,
        search_option(
            "--reward",
            metavar="NAME",
            help="Maximise a reward of generated texts instead: sentiment:positive, sentiment:negative, toxicity:low, "
            "length:short, length:long, format:json, keywords:A,B, refusal:low, refusal:high, regex:PATTERN, fluency, "
            "classifier:REF#LABEL, your function of prompts and continuations (MODULE:FUNCTION), or a weighted sum "
            "such as fluency*0.3+length:short.",
            show_default="none",
            callback=requested_by_user,
        ),
    ] = None,
    num_samples: NumSamples = 20,
    search: Annotated[
        SearchName | None,
        search_option(
            "--search",
            metavar="NAME",
            help=f"How to search: {', '.join(SearchName)}.",
            show_default="adam; policy-gradient for a reward",
        ),
    ] = None,
    space: Space = None,
    budget: Annotated[
        int | None,
        search_option(
            "--budget",
            metavar="N",
            help="Evaluations of the objective; a gradient counts for 3.",
            show_default="120; 240 for a reward",
        ),
    ] = None,
    trials_per_step: Annotated[
        int,
        search_option(
            "--trials-per-step",
            "--batch",
            metavar="N",
            help="Points proposed before the score of any is known; for bo and random.",
        ),
    ] = 1,
    fluency_floor: Annotated[
        str | None,
        search_option(
            "--fluency-floor",
            metavar="NATS|PERCENT",
            help="With a reward: how far fluency may fall, in nats a token (0.3) or percent (10%).",
            show_default="any",
        ),
    ] = None,
    max_kl: MaxKl = "auto",
    retain: Retain = None,
    cross_validate: Annotated[
        bool,
        search_option(
            "--cross-validate",
            help="Search on each half of the samples first, and leave the model unedited if that does not help the "
            "other half; takes about twice as long.",
        ),
    ] = False,
    front: Annotated[
        bool,
        output_option("--front", help="Print the trials that no other beats in both score and divergence."),
    ] = False,
    pick: Annotated[
        float | None,
        output_option(
            "--pick",
            parser=trial_or_kl,
            metavar="N|NATS",
            help="Save trial N, or the best trial within this divergence (0.02), as it was scored: none "
            "is shrunk. With --resume, a finished search is not run again.",
            show_default="the best within --max-kl",
        ),
    ] = None,
    seed: Annotated[
        int, search_option("--seed", metavar="N", help="Random seed for drawing samples, shots and proposals.")
    ] = 0,
    num_fewshot: Annotated[
        str,
        prompt_option(
            "--num-fewshot", metavar="N|mix", help="Shots in each prompt; mix draws 0, 2, 4 or 6 for each sample."
        ),
    ] = "0",
    apply_chat_template: ChatTemplate = True,
    sites: Annotated[
        Literal["heads", "mlp"], edit_option("--sites", help="Where to edit: attention heads or MLP outputs.")
    ] = "heads",
    layers: Layers = "1.0",
    rotation: Annotated[
        Literal["rotary", "givens", "scale"],
        edit_option("--rotation", help="Form of the edit; scale multiplies a head and does not rotate it."),
    ] = "rotary",
    bound: Annotated[float, edit_option("--bound", metavar="RADIANS", help="Largest angle, in radians.")] = 0.785,
    report_to: Annotated[
        list[str] | None,
        output_option(
            "--report-to",
            callback=optional_names,
            metavar="NAMES",
            help="Show the trials in tensorboard, mlflow or wandb; several are separated by commas.",
            show_default="none",
        ),
    ] = None,
    resume: Annotated[bool, output_option("--resume", help="Continue the search in the output folder.")] = False,
    engine: Engine = "local",
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory: Memory = "4GB",
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    batch_size: BatchSize = None,
) -> None:
    """Find angles that raise a task's score on a few labelled samples, and save them as an adapter.

    Ctrl-C saves the best so far.
    """
    check_writable(output, folder=True)
    from tarot.objectives.tasks.task_names import check_task_names

    check_task_names(tasks, include_path)
    announce("tune")
    from tarot.analysis.divergence import measure_held_out
    from tarot.cli.progress import trial_progress
    from tarot.edit.layers import parse_layers
    from tarot.evaluation.grid.grid import parse_shots
    from tarot.evaluation.ray.candidates import RayScorer
    from tarot.evaluation.ray.cluster import Resources
    from tarot.models.generation.own_text import has_first_token
    from tarot.search.algorithms.registry import SEARCHES
    from tarot.search.config import TaRotConfig
    from tarot.search.folder import TRIALS
    from tarot.search.pick import require_pick
    from tarot.search.problem import check_samples
    from tarot.search.trackers import make_trackers
    from tarot.search.tune import check_request
    from tarot.search.tune import tune as run_search

    shots = parse_shots(num_fewshot)
    if len(shots) > 1:
        raise TarotError("one number of shots, or mix", repr(num_fewshot))
    config = TaRotConfig(
        task=tasks[0],
        num_fewshot=shots[0],
        num_samples=num_samples,
        space=space or "",
        search=search.value if search else "",
        objective=objective_name(objective, reward),
        sites=sites,
        layers=parse_layers(layers),
        rotation=rotation,
        bound=bound,
        seed=seed,
        apply_chat_template=apply_chat_template,
        trials_per_step=trials_per_step,
        fluency_floor=fluency_floor,
        max_kl=None if max_kl == "none" else max_kl,
        retain=tuple(retain or ()),
        cross_validate=cross_validate,
    )
    resources = Resources.parse(cpus, gpus, memory)
    budget = SEARCHES[config.search].default_budget if budget is None else budget
    check_request(config, budget=budget, output_dir=output, resume=resume)
    if resume and not (output / TRIALS).exists():
        raise TarotError(f"There is no search to resume in {output}.", hint="correct the path, or leave out --resume")
    require_pick(config, pick)
    if front and config.max_kl is None:
        raise TarotError("--front shows divergences, which only a search with a limit measures; set --max-kl.")
    trackers = make_trackers(report_to or (), output)
    check_samples(config, include_path)
    with ExitStack() as stack:
        folder = str(include_path) if include_path else None
        remote = (
            stack.enter_context(
                RayScorer(model, config, resources, address, dtype=dtype, include_path=folder, batch_size=batch_size)
            )
            if engine == "ray"
            else None
        )
        stack.enter_context(resources.threads())
        loaded = load(model, device, dtype, device_map)
        with trial_progress(budget, config.search) as bar:
            adapter = run_search(
                loaded.model,
                loaded.tokenizer,
                config,
                output_dir=output,
                budget=budget,
                include_path=include_path,
                resume=resume,
                batch_size=batch_size,
                pick=pick,
                score_batch=remote,
                callbacks=[bar, *trackers],
            )
        if config.max_kl is not None and has_first_token(loaded.tokenizer):
            with StepProgress() as show:
                adapter = measure_held_out(loaded, adapter, batch_size, on_step=show)
            adapter.save_pretrained(output)
    _print_outcome(adapter, config, pick)
    if config.max_kl is not None:
        _print_retention(adapter, float(config.max_kl), pick)
        if front:
            _print_front(output)
    out.print(f"adapter {adapter.fingerprint} in {output}")
    if adapter.provenance["interrupted"]:
        err.print("stopped before the budget was spent; the same command with --resume continues the search")
        raise KeyboardInterrupt


def objective_name(objective: str | None, reward: str | None) -> str:
    """Return the configuration's objective: a reward's name, or `model:` before a function of the edited model."""
    from tarot.objectives.rewards.registry import KNOWN, is_reward, needs_consent, split_sum

    if objective and reward:
        raise TarotError("--objective or --reward", "both", "add the reward of texts to your function, or choose one")
    if reward:
        if not is_reward(reward):
            raise UnknownName("reward", reward, KNOWN, "a score of answers is --objective")
        return reward
    name = objective or "log_probability"
    # Named rewards were given as --objective before --reward existed, and are clear without it. A function is not.
    kind = name.partition(":")[0]
    is_function = needs_consent(name) and len(split_sum(name)) == 1 and kind not in ("classifier", "regex")
    return f"model:{name}" if is_function else name


def _print_outcome(adapter: "Adapter", config: "TaRotConfig", pick: int | float | None) -> None:
    """Print scores and times, and whether the adapter edits anything."""
    provenance: Mapping[str, Any] = adapter.provenance
    scores, seconds = provenance["scores"], provenance["seconds"]
    helps = True
    if halves := provenance.get("cross_validation"):
        helps = halves["edited"] > halves["base"]
        out.print(
            f"cross-validated log-probability: base {halves['base']:.4f}, edited {halves['edited']:.4f}"
            + ("" if helps else "; the search does not help samples that it has not seen, so nothing is edited")
        )
    samples = f" on {config.num_samples} samples" if config.n_drawn else ""
    out.print(
        f"{config.objective}{samples}: identity {scores['identity']:.4f}, "
        f"{'best' if pick is None else 'picked'} {scores['best']:.4f} "
        f"(trial {provenance['best_trial']} of 0-{provenance['trials'] - 1})"
    )
    if helps and not adapter.angles.any():
        limit = config.max_kl if pick is None else pick
        within = "" if limit is None else f" within {limit:g} nats a token"
        found = "trial 0 was picked" if pick == 0 else f"no trial{within} scores higher than the unedited model"
        out.print(f"{found}: the adapter changes nothing")
    trials = seconds["evaluating"] + seconds["proposing"]
    share = seconds["proposing"] / max(trials, 1e-3)
    proposing = f" ({share:.0%} of them to propose points)" * (share >= 0.01)
    out.print(
        f"tuning the loaded model took {trials + seconds['other']:.0f} s: {trials:.0f} s of trials{proposing}, "
        f"{seconds['other']:.0f} s of preparing and choosing"
    )


def _print_front(output: Path) -> None:
    from tarot.search.pareto import read_front

    rows = [
        (
            str(point.index),
            f"{point.score:.4f}",
            "-" if point.measured_kl is None else f"{point.measured_kl:.4f}",
            f"{point.estimated_kl:.4f}",
        )
        for point in read_front(output)
    ]
    header = ("trial", "score on the samples", "KL, nats a token", "KL (estimate)")
    print_table(header, rows, "front of score and divergence")


def _print_retention(adapter: "Adapter", max_kl: float, pick: int | float | None) -> None:
    retention: Any = adapter.provenance["retention"]
    if retention["strength"] < 1:
        out.print(f"the edit has {retention['strength']:.0%} of that trial's angles, to be within the limit")
    if isinstance(pick, int):
        allowed = f"of trial {pick}, which was picked"
    else:
        allowed = f"at most {max_kl:g} allowed" if pick is None else f"at most {pick:g} picked"
    out.print(f"KL(base || edited) on retained prompts: {retention['kl']:.4f} nats a token, {allowed}")
    if held_out := retention.get("held_out"):
        from tarot.evaluation.statistics.formatting import interval

        kl = f"{held_out['kl']:.4f} {interval(held_out['low'], held_out['high'], '{:.4f}'.format)}"
        perplexity = f"perplexity x{held_out['perplexity_ratio']:.3f}"
        out.print(f"on {held_out['tokens']} tokens of held-out text: {kl}; {perplexity}")
