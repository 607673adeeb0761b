"""The `tarot` command: thin, one function a subcommand."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from tarot.errors import TarotError

if TYPE_CHECKING:
    from tarot.models import LoadedModel
    from tarot.search import Result, Trial

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
out = Console()
err = Console(stderr=True)

Model = Annotated[str, typer.Option("--model", help="hub id, folder, PATH.gguf or wheel:NAME; see `tarot models`")]
IncludePath = Annotated[Path | None, typer.Option("--include-path", help="folder of further lm-eval task files")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda:N")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")]
BatchSize = Annotated[str, typer.Option("--batch-size", help="most sequences of one pass, or auto")]
Metric = Annotated[str, typer.Option(help="greedy_f1, greedy_acc, f1 or acc")]
Reward = Annotated[
    str | None, typer.Option(help="judge generated texts by it: sentiment:positive, toxicity:low, MODULE:FUNCTION ...")
]
NoChat = Annotated[bool, typer.Option("--no-chat", help="plain text prompts, even where there is a chat template")]


def _load(model: str, device: str, dtype: str) -> "LoadedModel":
    from tarot.models import load_model

    with err.status(f"loading {model}"):
        return load_model(model, device=device, dtype=dtype)


def _rows(batch_size: str) -> int | None:
    from tarot.harness import parse_batch_size

    return None if batch_size == "auto" else parse_batch_size(batch_size)


@app.command()
def models() -> None:
    """List the models that can be loaded here and now."""
    from tarot.models import available

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
    output: Annotated[Path, typer.Option(help="new folder for the adapter and its trials")],
    include_path: IncludePath = None,
    num_fewshot: Annotated[
        str, typer.Option(help="shots in each prompt, or `mix`: 0, 2, 4 or 6, drawn for each sample")
    ] = "0",
    samples: Annotated[int, typer.Option(help="labelled samples")] = 20,
    budget: Annotated[int, typer.Option(help="evaluations of the objective")] = 120,
    space: Annotated[str, typer.Option(help="gradient, head-gradient, head, layer, full or random:R")] = "gradient",
    search: Annotated[str, typer.Option(help="bo, paper or random")] = "bo",
    objective: Annotated[
        str,
        typer.Option(
            help="log_probability, probability, margin or accuracy; or a reward of generated texts: "
            "sentiment:positive, sentiment:negative, toxicity:low, fluency, classifier:REF#LABEL, "
            "or your MODULE:FUNCTION"
        ),
    ] = "log_probability",
    sites: Annotated[str, typer.Option(help="heads or mlp")] = "heads",
    layers: Annotated[str, typer.Option(help="fraction from the first (0.5), range (4-11) or list (0,3,5)")] = "0.5",
    bound: Annotated[float, typer.Option(help="largest angle, radians")] = 0.785,
    seed: Annotated[int, typer.Option(help="decides samples, shots and proposals")] = 0,
    fluency_floor: Annotated[
        str | None,
        typer.Option(help="with a reward: most that fluency may fall, in nats a token (0.3) or percent (10%)"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the trials in the output folder")] = False,
    no_chat: NoChat = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
) -> None:
    """Find angles that raise a task's score on a few labelled samples, and save them as an adapter."""
    from tarot import tuning

    recipe = tuning.Recipe(
        task=task,
        num_fewshot=num_fewshot if num_fewshot == "mix" else _whole("shots", num_fewshot),
        samples=samples,
        space=space,
        search=search,
        objective=objective,
        sites=sites,
        layers=layers,
        bound=bound,
        seed=seed,
        chat=not no_chat,
        fluency_floor=fluency_floor,
    )
    rows = _rows(batch_size)
    tuning.check(recipe, output, budget, resume)
    loaded = _load(model, device, dtype)
    with _Trials(budget) as bar:
        adapter = tuning.tune(
            loaded,
            recipe,
            output,
            budget=budget,
            include_path=include_path,
            resume=resume,
            batch_size=rows,
            on_start=bar.start,
            on_trial=bar.advance,
        )
    scores, seconds = adapter.provenance["scores"], adapter.provenance["seconds"]
    assert isinstance(scores, dict) and isinstance(seconds, dict)
    total = sum(seconds.values())
    out.print(
        f"{objective} on {samples} samples: identity {scores['identity']:.4f}, best {scores['best']:.4f} "
        f"(trial {adapter.provenance['best_trial']} of {adapter.provenance['trials']})"
    )
    out.print(f"{total:.0f} s, {seconds['proposing'] / total:.0%} of them spent on proposing")
    out.print(
        f"adapter {adapter.fingerprint} in {output}" + (", interrupted" if adapter.provenance["interrupted"] else "")
    )


class _Trials:
    """Progress bar of a search: evaluations spent, best, identity, time left."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.progress = Progress(
            TextColumn("evaluation"),
            MofNCompleteColumn(),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=err,
        )

    def __enter__(self) -> "_Trials":
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def start(self, resumed: int) -> None:
        if resumed:
            err.print(f"resuming after {resumed} trials")
        self.progress.start()
        self.bar = self.progress.add_task("", total=self.budget, completed=resumed)

    def advance(self, trial: "Trial", result: "Result") -> None:
        if trial.score != trial.score:
            self.progress.console.print(f"trial {trial.index}: no finite score, or refused; skipped")
        description = f"best {result.best.score:.4f}  identity {result.identity.score:.4f}"
        self.progress.update(self.bar, completed=result.spent, description=description)


def _whole(what: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise TarotError(f"a number of {what}", repr(text))
    return int(text)


@app.command()
def evaluate(
    model: Model,
    tasks: Annotated[str, typer.Option(help="lm-eval tasks, separated by commas")],
    adapter: Annotated[Path | None, typer.Option(help="folder of an adapter; none for the base model")] = None,
    include_path: IncludePath = None,
    num_fewshot: Annotated[
        int | None, typer.Option(help="shots in each prompt; each task's own number if left out")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="only the first documents of each task")] = None,
    reward: Reward = None,
    output: Annotated[Path | None, typer.Option(help="JSON file for results and per-document predictions")] = None,
    no_chat: NoChat = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
) -> None:
    """Evaluate a model, edited or not, with lm-evaluation-harness."""
    from lm_eval.utils import handle_non_serializable

    from tarot import harness, judging, rewards
    from tarot.adapter import Adapter
    from tarot.files import write_atomically

    rows = _rows(batch_size)
    edit = Adapter.load(adapter) if adapter else None
    names = _names(tasks)
    if reward:
        rewards.check_reward(reward)
    loaded = _load(model, device, dtype)
    results = harness.evaluate(
        loaded,
        names,
        adapter=edit,
        include_path=include_path,
        num_fewshot=num_fewshot,
        limit=limit,
        chat=not no_chat,
        batch_size=rows,
    )
    judging.add_rewards(loaded, results, reward)
    if output:
        content = json.dumps(results, indent=1, default=handle_non_serializable, ensure_ascii=False)
        write_atomically(output, content.encode())
    table = Table("task", "documents", "shots", "metric", "value", "stderr")
    for name in results["n-samples"]:
        values = {key.partition(",")[0]: value for key, value in results["results"][name].items()}
        for i, key in enumerate(
            key for key in values if isinstance(values[key], float) and not key.endswith("_stderr")
        ):
            stderr = values.get(f"{key}_stderr")
            row = (
                (name, str(harness.n_documents(results, name)), str(results["n-shot"][name]))
                if i == 0
                else ("", "", "")
            )
            table.add_row(*row, key, f"{values[key]:.4f}", f"{stderr:.4f}" if isinstance(stderr, float) else "")
    out.print(table)
    out.print(f"model {model}, adapter {edit.fingerprint if edit else 'none (base)'}")


def _names(tasks: str) -> list[str]:
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise TarotError("names of tasks separated by commas", repr(tasks), "for example synth_color")
    return names


@app.command()
def compare(
    model: Model,
    adapter: Annotated[list[Path], typer.Option(help="folder of an adapter; repeat for several")],
    shots: Annotated[int, typer.Option(help="labelled examples in the few-shot arm's prompts")] = 6,
    include_path: IncludePath = None,
    limit: Annotated[int | None, typer.Option(help="only the first documents")] = None,
    metric: Metric = "greedy_f1",
    reward: Reward = None,
    output: Annotated[
        Path | None, typer.Option(help="JSON file for the cells, which `tarot report` reads, or for rewarded texts")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
) -> None:
    """Measure base, few-shot and edited model on the same documents, none of them tuned on.

    Adapters tuned for a reward: base and edited texts, judged side by side.
    """
    from tarot import cells, measuring, tuning
    from tarot.adapter import Adapter
    from tarot.files import write_atomically
    from tarot.report import ARM_HEADER, METRICS, arm_rows
    from tarot.report import compare as compared
    from tarot.rewards import is_reward

    rows = _rows(batch_size)
    edits = [Adapter.load(folder) for folder in adapter]
    if any(reward or is_reward(measuring.recipe_of(edit).objective) for edit in edits):
        _compare_rewards(_load(model, device, dtype), adapter, reward, include_path, limit, rows, output)
        return
    loaded = _load(model, device, dtype)
    measured = [
        measuring.measure(
            loaded,
            edit,
            shots=shots,
            include_path=include_path,
            limit=limit,
            batch_size=rows,
            curves={measuring.recipe_of(edit).search: [trial.score for trial in tuning.trials(folder)]},
        )
        for folder, edit in zip(adapter, edits, strict=True)
    ]
    if output:
        write_atomically(output, cells.to_json(measured).encode())
    for comparison in compared(measured, metric):
        cell = comparison.cell
        title = f"{cell.task}, {len(cell.gold):,} documents, {METRICS[metric].title}, seed {cell.seed}"
        table = Table(*ARM_HEADER, title=title, title_justify="left")
        for row in arm_rows(comparison):
            table.add_row(*row)
        out.print(table)
        out.print(f"again: {cell.command}", soft_wrap=True, highlight=False, markup=False)


def _compare_rewards(
    loaded: "LoadedModel",
    folders: list[Path],
    reward: str | None,
    include_path: Path | None,
    limit: int | None,
    batch_size: int | None,
    output: Path | None,
) -> None:
    from tarot import judging
    from tarot.adapter import Adapter
    from tarot.files import write_atomically
    from tarot.outcomes import OUTCOMES, outcomes
    from tarot.pareto import pareto
    from tarot.report import FRONT_HEADER, REWARD_HEADER, front_rows, reward_rows

    compared = [
        judging.compare_rewards(
            loaded,
            Adapter.load(folder),
            reward=reward,
            include_path=include_path,
            limit=limit,
            batch_size=batch_size,
            outcomes=outcomes(folder) if (folder / OUTCOMES).exists() else None,
        )
        for folder in folders
    ]
    if output:
        write_atomically(output, judging.to_json(compared).encode())
    for each in compared:
        title = f"{each.task}, {each.gain.n:,} documents, {each.reward}, seed {each.seed}"
        table = Table(*REWARD_HEADER, title=title, title_justify="left")
        for row in reward_rows(each.base, each.edited, each.gain, each.fluency_gain):
            table.add_row(*row)
        out.print(table)
        front = Table(*FRONT_HEADER, title="trials that no other beats in both, on the samples", title_justify="left")
        for row in front_rows(each.outcomes, pareto(each.outcomes)):
            front.add_row(*row)
        if each.outcomes:
            out.print(front)
        out.print(f"again: {each.command}", soft_wrap=True, highlight=False, markup=False)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="files that `tarot compare --output` wrote")],
    output: Annotated[Path, typer.Option(help="folder for the page")],
    metric: Metric = "greedy_f1",
) -> None:
    """One HTML page of measured cells: table, pictures, flipped documents, and how to repeat each."""
    from tarot.cells import load
    from tarot.report import write_report

    out.print(f"report in {write_report([cell for path in results for cell in load(path)], output, metric)}")


@app.command()
def merge(
    model: Model,
    adapter: Annotated[Path, typer.Option(help="folder of the adapter")],
    output: Annotated[Path, typer.Option(help="new folder for the checkpoint")],
    device: Device = "cpu",
    dtype: Dtype = "auto",
) -> None:
    """Fold an adapter into the weights: an ordinary checkpoint, tokenizer and chat template included."""
    from tarot.adapter import Adapter
    from tarot.models import save_checkpoint

    edit = Adapter.load(adapter)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise TarotError("an empty output folder", f"{output} with files in it", "choose another --output")
    loaded = _load(model, device, dtype)
    edit.merge(loaded.model)
    save_checkpoint(loaded, output)
    out.print(f"merged adapter {edit.fingerprint} into {output}")


@app.command(
    name="lm-eval",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def lm_eval(context: typer.Context) -> None:
    """lm-evaluation-harness' own command line, with the model `tarot` and our tasks."""
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    from tarot.samples import tasks_folder

    sys.argv = ["tarot lm-eval", *context.args]
    setup_logging()
    cli = HarnessCLI()
    args = cli.parse_args()
    if "--device" not in context.args:
        args.device = "auto"  # lm-eval's own default is a GPU, there or not
    if hasattr(args, "include_path"):
        theirs = args.include_path.split(":") if isinstance(args.include_path, str) else args.include_path or []
        args.include_path = [str(tasks_folder()), *theirs]
    cli.execute(args)


def _fail(message: str) -> NoReturn:
    err.print(f"error: {message}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)


def main() -> Any:
    """Run the command; whatever the user got wrong ends in one line and exit code 2."""
    try:
        return app(standalone_mode=False)
    except TarotError as error:
        _fail(str(error))
    except UsageError as error:
        _fail(f"{error.format_message()} Try `tarot --help`.")
    except (typer.Abort, KeyboardInterrupt):
        err.print("interrupted")
        sys.exit(130)
