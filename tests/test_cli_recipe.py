"""`tarot tune RECIPE` and `tarot bench RECIPE`: a recipe gives what options give, and options override it."""

from dataclasses import fields
from enum import Enum
from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml
from cli_suite import INCLUDE, MODEL, SMALL, run_in
from typer.main import get_command

from tarot.cli.bench import bench
from tarot.cli.main import app
from tarot.cli.recipe import PARAMETERS, RECIPE, BenchRecipe, TuneRecipe
from tarot.cli.tune import tune
from tarot.edit.adapter import Adapter
from tarot.evaluation.results.results_file import load_comparisons
from tarot.search import folder
from tarot.search.config import TaRotConfig

pytest_plugins = ["cli_suite"]

GROUP: Any = get_command(app)
GRID = """\
model: [model]
tasks: own_choice
include_path: tasks
num_fewshot: [0, 2]
seeds: 0
search: [random]
space: head
num_samples: 5
budget: 2
draws: 0
max_kl: none
layers: [0, 1]
limit: 4
baseline: [nearest-shots]
"""


def defaults(command: str, file: Path, *arguments: str) -> dict[str, Any]:
    """Return what a command gets from a recipe and arguments."""
    with GROUP.commands[command].make_context(command, [str(file), *arguments]) as context:
        return dict(context.params)


def test_a_recipe_of_tune_has_the_fields_of_the_configuration() -> None:
    names = {field.name for field in fields(TaRotConfig)}
    assert TuneRecipe.__annotations__.keys() - names == {
        "model",
        "dtype",
        "include_path",
        "budget",
        "reward",
        "pick",
    }
    assert names <= TuneRecipe.__annotations__.keys()
    assert RECIPE == folder.RECIPE


def choices(annotation: Any) -> set[str]:
    """Return the words among which an annotation lets one choose."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return {each.value for each in annotation}
    inner = get_args(annotation)
    return set(inner) if get_origin(annotation) is Literal else set().union(*map(choices, inner))


@pytest.mark.parametrize(("command", "schema"), [(tune, TuneRecipe), (bench, BenchRecipe)])
def test_every_key_is_an_option_with_its_choices(command: Any, schema: Any) -> None:
    parameters = signature(command).parameters
    for key, annotation in get_type_hints(schema, include_extras=True).items():
        offered = choices(parameters[PARAMETERS.get(key, key)].annotation)
        assert not offered or choices(annotation) == offered, key


@pytest.mark.parametrize(
    ("layers", "expected"), [("0.5", "0.5"), ("1.0", "1.0"), ("[3]", "3-3"), ("[0, 3]", "0,3"), ("-0.25", "-0.25")]
)
def test_layers_are_read_as_the_configuration_has_them(tmp_path: Path, layers: str, expected: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"model: m\ntask: t\nlayers: {layers}\nnum_fewshot: mix\napply_chat_template: false\n")
    values = defaults("tune", file, "--output-path", str(tmp_path / "new"))
    assert (values["layers"], values["tasks"], values["num_fewshot"]) == (expected, ["t"], "mix")
    assert values["apply_chat_template"] is False and values["model"] == "m"


def test_the_recipe_that_tune_writes_repeats_it(home: Path) -> None:
    written = yaml.safe_load((home / "adapter" / RECIPE).read_text())
    assert written["task"] == "own_choice" and written["budget"] == 4 and written["include_path"] == "tasks"
    assert run_in(home, "tune", f"adapter/{RECIPE}", "--device", "cpu", "--output-path", "repeated") == 0
    adapters = [Adapter.from_pretrained(home / name) for name in ("adapter", "repeated")]
    assert adapters[0].fingerprint == adapters[1].fingerprint
    assert (home / "adapter" / RECIPE).read_bytes() == (home / "repeated" / RECIPE).read_bytes()


@pytest.mark.parametrize("pick", [0, 1, 0.4, 1.0, 1e-5])
def test_a_pick_is_a_trial_or_a_divergence(tmp_path: Path, pick: int | float) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"model": "m", "task": "t", "pick": pick}))
    read = defaults("tune", tmp_path / "a.yaml", "--output-path", str(tmp_path / "new"))["pick"]
    assert (type(read), read) == (type(pick), pick)


def test_the_recipe_repeats_a_pick(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the way the command names its phases, also those before and after the search."""
    search = ("--num-samples", "4", "--budget", "6", "--max-kl", "0.5", "--pick", "1")
    assert run_in(home, "tune", *MODEL, *INCLUDE, "--tasks", "own_choice", *search, "--output-path", "picked") == 0
    lines = capsys.readouterr().err.splitlines()
    begin = lines.index("reading prompts to retain")
    assert lines[begin + 1] == "searching, 6 evaluations" and "reading neutral text" in lines[begin + 2 :]
    assert yaml.safe_load((home / "picked" / RECIPE).read_text())["pick"] == 1


def test_options_override_the_recipe(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("model: other\ntask: own_choice\nbudget: 4\nnum_samples: 5\nseed: 3\n")
    given = (str(tmp_path / "a.yaml"), *MODEL, *INCLUDE, *SMALL, "--budget", "2", "--output-path", "overridden")
    assert run_in(home, "tune", *given) == 0
    provenance = Adapter.from_pretrained(home / "overridden").provenance
    assert (provenance["budget"], provenance["seed"], provenance["num_samples"]) == (2, 3, 5)


def test_the_recipe_that_bench_writes_repeats_it(home: Path) -> None:
    (home / "grid.yaml").write_text(GRID)
    assert run_in(home, "bench", "grid.yaml", "--output-path", "grid.json") == 0
    assert run_in(home, "bench", "grid.recipe.yml", "--output-path", "repeated.json") == 0
    grids = [load_comparisons(home / name) for name in ("grid.json", "repeated.json")]
    assert [cell.request_digest for cell in grids[0]] == [cell.request_digest for cell in grids[1]]
    assert [cell.num_fewshot for cell in grids[0]] == [0, 2] and len(grids[0][0].gold) == 4
    assert grids[0][0].arm("nearest-shots").labels == 5
    assert {cell.layers for cells in grids for cell in cells} == {(0, 1)}
    own = home / "grid.recipe.yml"
    own.write_text(text := f"# my grid\n{own.read_text()}")
    assert run_in(home, "bench", own.name, "--output-path", "grid.json") == 0 and own.read_text() == text


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("model: model\nbugdet: 3\n", ("line 2", "'bugdet'", "'budget'")),
        ("model: model\n\nbudget: many\n", ("line 3", "budget", "many")),
        ("search: adams\n", ("line 1", "search", "adams")),
        ("output_path: x\n", ("line 1", "'output_path'")),
        ("model: model\nmax_kl: null\n", ("line 2", "max_kl has no value")),
    ],
)
def test_a_wrong_recipe_ends_in_one_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, keywords: tuple[str, ...]
) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    assert run_in(home, "tune", str(tmp_path / "wrong.yaml"), "--output-path", "wrong") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert [keyword for keyword in (*keywords, "wrong.yaml") if keyword not in line] == []
    assert not (home / "wrong").exists()


@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ("reward: evil:score", "--reward evil:score"),
        ("objective: evil:score", "--objective evil:score"),
        ("objective: model:evil:score", "--objective evil:score"),
        ("reward: fluency*0.5+evil:score*0.5", "--reward 'fluency*0.5+evil:score*0.5'"),
        ("reward: regex:(a+)+b", "--reward 'regex:(a+)+b'"),
    ],
)
def test_a_recipe_alone_runs_no_code(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str, option: str
) -> None:
    (home / "evil.py").write_text("raise RuntimeError('the module was imported')\n")
    monkeypatch.syspath_prepend(home)
    (home / "evil.yaml").write_text(f"model: model\ntask: own_generate\n{setting}\n")
    assert run_in(home, "tune", "evil.yaml", *INCLUDE, "--output-path", "evil") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the recipe names" in line and f"if you trust it, pass {option}" in line
    assert not (home / "evil").exists()


def test_a_function_on_the_command_line_counts_beside_a_recipe(home: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "a.yaml"
    recipe.write_text("model: model\ntask: own_generate\nreward: evil:score\n")
    given = defaults("tune", recipe, "--reward", "evil:score", "--output-path", str(tmp_path / "new"))
    assert given["reward"] == "evil:score"


def test_what_a_recipe_lacks_is_asked_for(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text("task: own_choice\n")
    assert run_in(home, "tune", str(tmp_path / "a.yaml"), "--output-path", "lacking") == 2
    assert "--model" in capsys.readouterr().err


def test_trackers_are_checked_before_the_model_is_loaded(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--model", "no-such-model", "--tasks", "own_choice", *INCLUDE, "--output-path", "untracked")
    assert run_in(home, "tune", *given, "--report-to", "mlflow,commet") == 2
    assert "'commet'" in capsys.readouterr().err
