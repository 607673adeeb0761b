"""The command `tarot`: the list of its commands, and how their errors are reported."""

import sys
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

from tarot.cli import analysis, bench, compare, edit, evaluate, lm_eval, models, report, tune
from tarot.cli.console import err, escape_log_records, out
from tarot.errors import TarotError

# torch, transformers and lm-eval take seconds to import: each command imports what it needs, so that --help is quick.

# typer brings its own copy of click, or uses the installed one; this is whichever's class of errors in a command line.
UsageError: Any = typer.BadParameter.__base__
INTERRUPTED = 130  # 128 and the signal's number

app = typer.Typer(
    name="tarot",
    help="Edit a language model by rotating its attention heads, and measure what that does.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(models.models)
app.command()(tune.tune)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(bench.bench)
app.command()(report.report)
app.command()(analysis.analysis)
app.command()(edit.prune)
app.command()(analysis.effects)
app.command()(edit.merge)
app.command()(edit.export)
app.command(name="import")(edit.import_)
app.command()(edit.compose)
app.command(
    name="lm-eval",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)(lm_eval.lm_eval)


def _version(requested: bool) -> None:
    if requested:
        out.print(f"tarot {version('tarot-lm')}", highlight=False)
        raise typer.Exit


@app.callback()
def _common(
    requested: Annotated[
        bool, typer.Option("--version", help="say which version this is", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


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
