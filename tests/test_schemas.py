"""The published JSON schemas are those of the code, accept what tarot writes, and refuse what it would not read."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fabricated import fabricated
from jsonschema import Draft202012Validator

from tarot.evaluation.compare_rewards import compare_rewards
from tarot.evaluation.results.results_file import comparisons_to_json
from tarot.evaluation.results.reward_comparison import rewards_to_json
from tarot.search.config import TaRotConfig
from tarot.search.tune import tune

DOCS = Path(__file__).parent.parent / "docs"


def written() -> dict[str, str]:
    specification: Any = importlib.util.spec_from_file_location("write_schemas", DOCS / "write_schemas.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return dict(module.schemas())


SCHEMAS = {file.name.partition(".")[0]: json.loads(file.read_text()) for file in (DOCS / "schemas").iterdir()}


def accepts(name: str, value: object) -> bool:
    Draft202012Validator.check_schema(SCHEMAS[name])
    return bool(Draft202012Validator(SCHEMAS[name]).is_valid(value))


def test_the_published_schemas_are_those_of_the_code() -> None:
    published = {file.name: file.read_text(encoding="utf-8") for file in (DOCS / "schemas").iterdir()}
    assert published == written(), "run `python docs/write_schemas.py`"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, loaded: Any, tasks_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    config = TaRotConfig("own_choice", num_samples=4, layers=(0, 2))
    tune(loaded.model, loaded.tokenizer, config, budget=6, include_path=tasks_folder, output_dir=folder)
    return folder


def test_files_of_a_search_fit(searched: Path) -> None:
    assert accepts("adapter", json.loads((searched / "tarot.json").read_text()))
    assert accepts("tune-recipe", yaml.safe_load((searched / "recipe.yml").read_text()))
    _, *trials = (searched / "trials.jsonl").read_text().splitlines()
    assert len(trials) == 2 and all(accepts("trial", json.loads(line)) for line in trials)


def test_results_fit(loaded: Any, reward_adapter: Any) -> None:
    comparison = fabricated(curves={"adam": (float("nan"), 1.0)})
    assert accepts("results", json.loads(comparisons_to_json([comparison])))
    rewards = compare_rewards(loaded, reward_adapter, limit=2)
    assert accepts("results", json.loads(rewards_to_json([rewards])))


def test_a_grid_fits() -> None:
    assert accepts("bench-recipe", {"model": "m", "tasks": ["a", "b"], "num_fewshot": [0, "mix"], "seeds": 1})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("adapter", lambda values: values["edit"].pop("layers")),
        ("adapter", lambda values: values["edit"].update(unknown=1)),
        ("adapter", lambda values: values["provenance"].update(seed="0")),
        ("tune-recipe", lambda values: values.update(bugdet=1)),
        ("tune-recipe", lambda values: values.update(budget=0)),
        ("tune-recipe", lambda values: values.update(layers=[])),
    ],
)
def test_a_wrong_file_does_not_fit(searched: Path, name: str, change: Callable[[Any], Any]) -> None:
    file = searched / {"adapter": "tarot.json", "tune-recipe": "recipe.yml"}[name]
    values = yaml.safe_load(file.read_text())
    change(values)
    assert not accepts(name, values)


def test_wrong_results_do_not_fit() -> None:
    values = json.loads(comparisons_to_json([fabricated()]))
    assert accepts("results", values)
    assert not accepts("results", {"format": 1}) and not accepts("results", {**values, "format": 2})
    values["cells"][0]["arms"][0]["greedy"] = ["yes"]
    assert not accepts("results", values)
