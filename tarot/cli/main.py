"""The command `tarot`: the list of its commands, and how their errors are reported.

torch, transformers and lm-eval take seconds to import, so each command imports what it needs when it runs.
"""

import inspect
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tarot.cli import analysis, bench, compare, diff, edit, evaluate, lm_eval, models, report, try_, tune, ui
from tarot.cli.console import err, escape_messages, out
from tarot.errors import TarotError

if TYPE_CHECKING:
    from collections.abc import Callable

# The base class of all usage errors, of typer's own copy of click or of the installed click.
UsageError: Any = typer.BadParameter.__base__
INTERRUPTED = 130  # 128 and the signal's number
MODEL = "wheel:smollm2-135m"
MEASURE, ADAPT, OTHER = "Tune and measure", "Use an adapter elsewhere", "Models and other tools"


def _with_hyphens(name: str) -> str:
    """Read `--num_fewshot` as `--num-fewshot`."""
    return name.replace("_", "-")


app = typer.Typer(
    name="tarot",
    help="Edit a language model by rotating its attention heads, and measure the effect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": _with_hyphens},
)


def _add(command: "Callable[..., None]", panel: str, example: str, **settings: Any) -> None:
    """Add a command to the app, with an example at the end of its help."""
    # typer keeps the line breaks of the source in all paragraphs but the first.
    paragraphs = [" ".join(each.split()) for each in (inspect.getdoc(command) or "").split("\n\n")]
    app.command(rich_help_panel=panel, help="\n\n".join(paragraphs), epilog=f"Example: tarot {example}", **settings)(
        command
    )


_add(tune.tune, MEASURE, f"tune --model {MODEL} --tasks synth_implicatives --output-path my-edit")
_add(try_.try_, MEASURE, f"try --model {MODEL} --adapter my-edit --tasks synth_implicatives", name="try")
_add(ui.ui, MEASURE, f"ui --model {MODEL} --adapter my-edit --tasks synth_implicatives")
_add(evaluate.evaluate, MEASURE, f"evaluate --model {MODEL} --adapter my-edit --tasks synth_navigate --limit 100")
_add(compare.compare, MEASURE, f"compare --model {MODEL} --adapter my-edit --output-path results.json")
_add(bench.bench, MEASURE, f"bench --model {MODEL} --tasks synth_color --seeds 0,1 --output-path grid.json")
_add(diff.diff, MEASURE, "diff old-results.json results.json")
_add(report.report, MEASURE, "report results.json --output-path report")
_add(analysis.analysis, MEASURE, f"analysis --model {MODEL} --adapter my-edit --output-path figures")
_add(analysis.effects, MEASURE, f"effects --model {MODEL} --adapter my-edit --output-path effects")
_add(edit.prune, ADAPT, f"prune --model {MODEL} --adapter my-edit --keep 0.9 --output-path smaller-edit")
_add(edit.gate, ADAPT, f"gate --model {MODEL} --adapter my-edit --output-path gated-edit")
_add(edit.compose, ADAPT, "compose my-edit other-edit --strength 1 --strength 0.5 --output-path both")
_add(edit.merge, ADAPT, f"merge --model {MODEL} --adapter my-edit --output-path my-model")
_add(edit.export, ADAPT, f"export --model {MODEL} --adapter my-edit --to gguf --output-path my-model.gguf")
_add(edit.import_, ADAPT, f"import --model {MODEL} --from-peft my-peft --output-path my-edit", name="import")
_add(models.models, OTHER, "models")
_add(
    lm_eval.lm_eval,
    OTHER,
    f"lm-eval --model tarot --model_args pretrained={MODEL},adapter=my-edit --tasks synth_color",
    name="lm-eval",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)


def _print_version(requested: bool) -> None:
    from importlib.metadata import version

    if requested:
        out.print(f"tarot {version('tarot-lm')}", highlight=False)
        raise typer.Exit


@app.callback()
def _common(
    requested: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _fail(message: str) -> NoReturn:
    err.print(f"error: {message}", highlight=False)
    sys.exit(2)


def main() -> Any:
    """Run the command and return its exit code. An error of the user's ends in one line and exit code 2.

    Raises:
        KeyboardInterrupt: The command was interrupted; `tarot.__main__` reports it.
    """
    escape_messages()
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        # typer turns Ctrl-C into an exit code.
        if (code := app(prog_name="tarot", standalone_mode=False)) == INTERRUPTED:
            raise KeyboardInterrupt
        return code
    except TarotError as error:
        _fail(str(error))
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # with rich, typer has printed the help already
            out.print(error.format_message(), highlight=False)
            sys.exit(2)
        # An option without its argument is found before there is a context; the command is the first argument then.
        command = error.ctx.command_path if error.ctx else " ".join(["tarot", *sys.argv[1:2]])
        message = error.format_message().rstrip(".").replace(": Value error, ", ": ", 1)  # pydantic's name for it
        _fail(f"{message}{'' if message.endswith('?') else '.'} Try `{command} -h`.")
    except OSError as error:  # for example a folder that may not be entered, or a name that is too long
        place = "" if error.filename is None else f": {error.filename}"
        _fail(f"A file or folder cannot be read or written: {error.strerror or error}{place}")
    except typer.Abort:
        raise KeyboardInterrupt from None
