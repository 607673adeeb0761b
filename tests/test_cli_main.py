"""The command as a whole: help, version, spellings, errors in usage, completion, interrupts."""

import ast
import re
import subprocess
import sys
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn, get_args

import pytest
import typer
from cli_suite import run_in
from hypothesis import given
from hypothesis import strategies as st
from lm_eval._cli import HarnessCLI
from typer.main import get_command

from tarot.cli import options, recipe
from tarot.cli.main import app
from tarot.cli.tune import tune
from tarot.edit.rotation import ROTATIONS
from tarot.evaluation.baselines.registry import BASELINES
from tarot.evaluation.grid.grid import ENGINES
from tarot.evaluation.results.comparison import FEW_SHOT_SHOTS, HEADLINE
from tarot.evaluation.results.metrics import METRICS
from tarot.models.load import DEVICE_MAPS, DTYPES
from tarot.objectives.answers import ANSWER_SCORES
from tarot.pytest_plugin.options import OPTIONS as PYTEST_OPTIONS
from tarot.search.algorithms.registry import SEARCHES
from tarot.search.names import SearchName
from tarot.search.space import SPACES
from tarot.search.trackers import TRACKERS

pytest_plugins = ["cli_suite"]

GROUP: Any = get_command(app)
COMMANDS = {name: command for name, command in GROUP.commands.items() if name != "lm-eval"}
PANELS = {"Task", "Prompts", "Edit", "Search", "Hardware", "Output"}
# What lm-eval calls an option, and what else tarot accepts for it.
OLDER = {"tasks": "task", "output_path": "output", "num_samples": "samples", "trials_per_step": "batch"}


def test_help_names_every_command_without_importing_anything_heavy() -> None:
    run_help = "from tarot.cli.main import main; sys.argv = ['tarot', '--help']; main()"
    code = f"import sys; {run_help}; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "lm_eval", "botorch", "scipy", "numpy", "pandas", "matplotlib"}
    assert not {f"'{name}'" for name in heavy} & set(done.stdout.replace(",", "").split())
    assert all(name in done.stdout for name in GROUP.commands)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_an_example_that_parses(
    home: Path, capsys: pytest.CaptureFixture[str], name: str, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert run_in(home, name, flag) == 0
    printed = capsys.readouterr().out
    (example,) = [line.strip() for line in printed.splitlines() if line.strip().startswith("Example: ")]
    arguments = example.removeprefix("Example: tarot ").split()
    context = GROUP.commands[arguments[0]].make_context(arguments[0], arguments[1:])
    assert context.info_name == name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_complete_in_80_columns(
    home: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run_in(home, name, "--help") == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown  # where a name is cut


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_a_panel_and_explained(name: str) -> None:
    parsed = [each for each in COMMANDS[name].params if each.param_type_name == "option" and each.name != "help"]
    assert [each.name for each in parsed if each.rich_help_panel not in PANELS or not each.help] == []


def option_of(command: str, name: str) -> Any:
    (option,) = [option for option in COMMANDS[command].params if option.name == name]
    return option


def own_searches() -> list[str]:
    """Return the searches of tarot: `benchmarks.study.run`, which another test may have imported, adds its own."""
    return [name for name, search in SEARCHES.items() if search.__module__.startswith("tarot.")]


def test_help_lists_the_names_of_the_registries() -> None:
    answer_searches = {*own_searches()} - {"policy-gradient"}
    listed = {
        ("tune", "search"): own_searches(),
        ("bench", "search"): answer_searches,
        ("pytest", "search"): answer_searches,
        **{(command, "space"): SPACES for command in ("tune", "bench", "pytest")},
        **{(command, "baseline"): BASELINES for command in ("compare", "bench", "pytest")},
        ("tune", "objective"): ANSWER_SCORES,
        ("tune", "report_to"): TRACKERS,
        ("tune", "dtype"): DTYPES,
    }
    for (command, name), names in listed.items():
        help_text = PYTEST_OPTIONS[name].help if command == "pytest" else option_of(command, name).help
        assert {*names} - {*re.findall(r"[\w-]+", help_text)} == set(), (command, name)


def test_choices_are_those_of_the_library() -> None:
    """They are typed again in `tarot.cli`, which must not import the libraries that know them."""
    assert set(SearchName) == set(get_args(recipe._Search)) == set(own_searches())
    assert set(get_args(get_args(get_args(options.Space)[0])[0])) == set(SPACES)
    assert set(options.METRIC_NAMES) == set(METRICS)
    assert get_args(get_args(options.Engine)[0]) == ENGINES
    assert set(get_args(get_args(options.Dtype)[0])) == {"auto", *DTYPES}
    assert get_args(get_args(get_args(options.DeviceMap)[0])[0]) == DEVICE_MAPS
    assert set(get_args(get_args(signature(tune).parameters["rotation"].annotation)[0])) == set(ROTATIONS)
    assert option_of("compare", "num_fewshot").default == FEW_SHOT_SHOTS
    assert {option_of(name, "metric").default for name in ("compare", "bench", "report")} == {HEADLINE}


def defaults_of(command: str) -> dict[str, str]:
    """Return the default of each option of a command, as help shows it, by the option's name without hyphens."""
    options = {option.opts[0].removeprefix("--"): option for option in COMMANDS[command].params}
    shown = {name: option.show_default for name, option in options.items()}
    return {name: shown[name] if isinstance(shown[name], str) else str(options[name].default) for name in options}


def test_an_option_means_the_same_in_bench_and_in_pytest() -> None:
    """What decides a cell has the same name and default in both, and no other option has the name of one that does."""
    bench = defaults_of("bench")
    not_of_cells = {"recipe", "output-path", "metric", "work", "engine", "address", "cpus", "gpus", "memory", "help"}
    assert {key for key, option in PYTEST_OPTIONS.items() if option.field} == bench.keys() - not_of_cells
    unset = {"None", "none", "all", "start one here", "as many as torch takes"}
    unset |= {"tarot's own prompts", "the search's own"}
    assert PYTEST_OPTIONS["max-kl"].default == "auto"  # which help explains
    assert bench["work"] == "OUTPUT.work" and "pytest's cache" in PYTEST_OPTIONS["work"].help  # no part of a cell
    for key in PYTEST_OPTIONS.keys() & bench.keys() - {"model", "tasks", "max-kl", "work"}:
        default = PYTEST_OPTIONS[key].default
        text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default or 0)
        assert text in ("", "0") if bench[key] in unset else text == bench[key], key


@pytest.mark.parametrize(
    ("command", "own"), [("compare", {"output-path", "num-fewshot"}), ("tune", {"search", "budget"})]
)
def test_bench_has_the_defaults_of_what_it_does_for_each_cell(command: str, own: set[str]) -> None:
    """The shots of `compare` are those of one arm; the default search and budget of `tune` depend on the objective."""
    one, bench = defaults_of(command), defaults_of("bench")
    assert [name for name in one.keys() & bench.keys() - own if one[name] != bench[name]] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_options_have_lm_evals_names_and_the_older_ones(name: str) -> None:
    spelled = [set(option.opts) for option in COMMANDS[name].params if option.param_type_name == "option"]
    everything = set().union(*spelled) if spelled else set()
    for new, old in OLDER.items():
        new, old = f"--{new.replace('_', '-')}", f"--{old}"
        assert (old in everything) == (new in everything)
        assert all((old in names) == (new in names) for names in spelled)


OPTION = re.compile(r"(?<![\w(-])--[a-z][a-z0-9_-]*[a-z0-9](?![\w-])")  # no variables of CSS, no prefixes
OTHER_PROGRAMS = {
    *("--no-deps", "--force-reinstall", "--dest", "--only-binary", "--no-input", "--quiet"),  # pip
    *("--disable-pip-version-check", "--exclude-editable"),
    "--junitxml",  # pytest
    *("--merge", "--outfile"),  # llama.cpp
    "--multi_gpu",  # accelerate
    "--head",  # ray
    *("--cells", "--methods"),  # the study
    "--rounds",  # the stress tests
    "--logdir",  # TensorBoard
    "--log-dir",  # Inspect
}


def mentioned_options() -> dict[str, str]:
    """Return every option in a message, docstring or page, each with a file that mentions it."""
    project = Path(__file__).parent.parent
    pages = [project / "README.md", *project.glob("docs/**/*.md")]
    texts = {path: path.read_text() for path in pages if "_build" not in path.parts}
    for path in project.glob("tarot/**/*.py"):
        strings = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        texts[path] = "\n".join(string for string in strings if isinstance(string, str))
    return {option: path.name for path, text in texts.items() for option in OPTION.findall(text)}


def test_every_option_that_tarot_mentions_exists() -> None:
    parameters = [parameter for command in GROUP.commands.values() for parameter in command.params]
    commands = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
    names = {name for key, option in PYTEST_OPTIONS.items() for name in (key, *option.aliases)}
    lm_eval = HarnessCLI()._subparsers.choices["run"]._option_string_actions
    known = {"--help", "--version", *commands, *(f"--tarot-{name}" for name in names), *lm_eval, *OTHER_PROGRAMS}
    mentioned = mentioned_options()
    assert {option: mentioned[option] for option in mentioned.keys() - known} == {}


def test_hyphens_and_underscores_are_alike(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home, "evaluate", "--batch_size", "x") == 2
    assert run_in(home, "evaluate", "--batch-size", "x") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == second and "'x'" in first


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_limit_is_a_number_or_a_fraction(number: int, fraction: float) -> None:
    assert options.limit(str(number)) == number
    assert options.limit(repr(fraction)) == fraction


@given(st.text())
def test_any_other_limit_is_quoted(text: str) -> None:
    try:
        assert options.limit(text) > 0
    except typer.BadParameter as error:
        assert repr(text) in error.format_message()


@pytest.mark.parametrize(
    ("arguments", "keyword", "command"),
    [
        (("evalute",), "evalute", "tarot"),
        (("--verion",), "--verion", "tarot"),
        (("tnue",), "Did you mean 'tune'? Try", "tarot"),
        (("compare", "--metric", "f2"), "greedy_f1, greedy_acc, f1, acc", "tarot compare"),
        (("tune", "--tasks", "a,b"), "one task", "tarot tune"),
        (("tune", "--num-fewshot"), "--num-fewshot", "tarot tune"),
        (("tune", "--modle", "x"), "--modle", "tarot tune"),
        (("compare", "--model", "x"), "--adapter", "tarot compare"),
        (("export", "--to", "onnx"), "'--to': 'onnx' is not one of", "tarot export"),
        (("bench", "--tasks", " , "), "' , '", "tarot bench"),
        (("merge", "--adapter", ""), "''", "tarot merge"),
        (("evaluate", "--limit", "1.5"), "'1.5'", "tarot evaluate"),
    ],
)
def test_errors_in_usage_point_to_the_commands_help(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], keyword: str, command: str
) -> None:
    assert run_in(home, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and keyword in line and line.endswith(f"Try `{command} -h`.")


def test_no_arguments_print_the_help(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_in(home) == 2
    printed = capsys.readouterr()
    assert "tune" in printed.out and not printed.err
    assert run_in(home, "--version") == 0
    assert capsys.readouterr().out == f"tarot {version('tarot-lm')}\n"


def test_completion_of_a_shell(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    monkeypatch.setenv("_TAROT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "tarot tune --num-")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert run_in(home) == 0
    assert capsys.readouterr().out.split() == ["--num-samples", "--num-fewshot"]


def test_an_interrupt_is_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def available() -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("tarot.models.formats.listing.available", available)
    assert run_in(home, "models") == 130
    assert capsys.readouterr().err == "interrupted\n"
