"""Imports point up the house: a room imports rooms above it, and nothing it must not know. The list is the design's."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from jaxtyping import TypeCheckError

from tarot.edit.rotation import ROTARY

PROJECT = Path(__file__).parent.parent

TORCH = frozenset({"torch", "transformers", "safetensors", "accelerate", "peft", "lm_eval", "botorch", "gpytorch"})
MODELS = frozenset({"transformers", "accelerate", "peft", "lm_eval", "huggingface_hub"})
SEARCH = frozenset({"botorch", "gpytorch", "tarot.search.space", "tarot.search"})
EDITS = frozenset(f"tarot.{room}" for room in ("sites", "intervention", "models", "samples", "scoring", "objective"))

ROOMS: dict[str, frozenset[str]] = {
    # from the roof down: a room, and what it must not know besides the rooms below it
    "errors": TORCH,
    "files": TORCH,
    "json_files": TORCH,
    "provenance": TORCH,
    "template_limit": TORCH,
    "outcomes": TORCH,
    "rotation": MODELS | SEARCH,
    "patch": SEARCH | {"tarot.edit.rotation"},
    "below": SEARCH | {"tarot.edit.rotation"},
    "sites": SEARCH | {"tarot.edit.rotation"},
    "intervention": SEARCH | {"lm_eval"},
    "causal": SEARCH | {"lm_eval", "datasets"},
    "gguf_metadata": SEARCH | {"lm_eval", "datasets"},
    "models": SEARCH | {"lm_eval", "datasets"},
    "task_names": TORCH,
    "task_code": TORCH - {"lm_eval"},
    "answers": TORCH,
    "documents": TORCH - {"lm_eval"},
    "shots": TORCH - {"lm_eval"},
    "samples": TORCH - {"lm_eval"},
    "chat": TORCH,
    "scoring": SEARCH | {"tarot.edit.rotation", "tarot.edit.hooks"},
    "rewards": SEARCH | {"lm_eval", "tarot.edit.hooks"},
    "objective": SEARCH,
    "space": MODELS | EDITS,
    "search": MODELS | EDITS,
    "hub": TORCH | SEARCH,
    "adapter": SEARCH,
    "composition": MODELS - {"transformers"} | SEARCH,
    "exports": SEARCH | {"peft", "lm_eval"},
    "harness": SEARCH,
    "generation": SEARCH,
    "tuning": frozenset(),
    "cells": TORCH,
    "baselines": frozenset(),
    "measuring": frozenset(),
    "cache": frozenset(),
    "grid": SEARCH | {"tarot.edit.rotation", "tarot.edit.hooks"},
    "machines": SEARCH | {"tarot.edit.rotation", "tarot.edit.hooks"},
    "gains": TORCH,
    "rewarded": TORCH,
    "pareto": MODELS,
    "judging": frozenset(),
    "gate": TORCH,
    "report": TORCH,
    "analysis": SEARCH,
    "effects": SEARCH,
    "plugin": frozenset(),
    "console": TORCH,
    "cli": TORCH - {"lm_eval"},
}
FACADES = {"__init__", "__main__"}
WITHOUT_TORCH = (
    "tarot",
    "tarot.evaluation.results",
    "tarot.evaluation.grid",
    "tarot.evaluation.statistics",
    "tarot.evaluation.reward_results",
    "tarot.report",
    "tarot.pytest_plugin",
    "tarot.cli.main",
)
"""What pytest, or a command that only answers `--help`, imports: in less time than torch takes."""


class Import(NamedTuple):
    """`module`, imported in `file`; of `from tarot import room` the room."""

    file: Path
    line: int
    module: str


def imports(file: Path, package: str) -> Iterator[Import]:
    """Every import of a file, those inside functions too; `package` is what a relative one starts from."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            stem = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (stem, node.module)))
            modules = [f"{module}.{alias.name}" for alias in node.names] if module == "tarot" else [module]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            modules = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        for module in modules:
            yield Import(file, node.lineno, module)


def is_in(module: str, names: frozenset[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def violations(project: Path) -> list[str]:
    """One line for each thing in `tarot/` and `tasks/` that breaks the order."""
    order = list(ROOMS)
    found: list[str] = []
    for file in sorted((project / "tarot").rglob("*.py")):
        parts = file.relative_to(project).with_suffix("").parts
        room = parts[1]
        if room in FACADES:
            continue
        if room not in ROOMS:
            found.append(f"{'/'.join(parts)}: no room of the list")
            continue
        below = frozenset(f"tarot.{name}" for name in order[order.index(room) + 1 :])
        for _, line, module in imports(file, ".".join(parts[:-1])):
            where = f"{'/'.join(parts)}:{line}"
            if is_in(module, below):
                found.append(f"{where}: {module} is below {room}")
            elif is_in(module, ROOMS[room]):
                found.append(f"{where}: {room} must not know {module}")
            elif module.split(".")[0] == "tarot" and module.split(".")[1:2] not in [[name] for name in order]:
                found.append(f"{where}: {module} goes round the rooms")
    for file in sorted((project / "tasks").rglob("*.py")):
        where = "/".join(file.relative_to(project).with_suffix("").parts)
        for _, line, module in imports(file, "tasks"):
            if is_in(module, frozenset({"tarot"})):
                found.append(f"{where}:{line}: tasks must not know {module}")
    return found


def test_imports_point_up() -> None:
    assert violations(PROJECT) == []


def test_tox_installs_what_nox_does() -> None:
    tox = ConfigParser()
    tox.read(PROJECT / "tox.ini")
    extras = ",".join(tox["testenv"]["extras"].split())
    assert set(re.findall(r"\.\[(\S+)\]", (PROJECT / "noxfile.py").read_text())) >= {extras}
    assert f"-e .[{extras}]" in (PROJECT / "constraints.txt").read_text()


def test_what_a_room_must_not_know_is_spelt_as_a_room() -> None:
    named = {name for names in ROOMS.values() for name in names if name.startswith("tarot.")}
    assert named <= {f"tarot.{room}" for room in ROOMS}


@pytest.mark.parametrize("module", [module for module in WITHOUT_TORCH if find_spec(module)])
def test_importing_it_imports_no_torch(module: str) -> None:
    program = f"import sys, {module}; print(*sorted({set(TORCH)!r} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.parametrize(
    ("path", "source", "violation"),
    [
        ("tarot/edit/rotation.py", "import tarot.edit.sites", "tarot/rotation:1: tarot.edit.sites is below rotation"),
        ("tarot/edit/sites.py", "from tarot import rotation", "tarot/sites:1: sites must not know tarot.edit.rotation"),
        (
            "tarot/edit/sites.py",
            "from tarot.search.bayesian import f",
            "tarot/sites:1: tarot.search.bayesian is below sites",
        ),
        (
            "tarot/edit/adapter.py",
            "def f():\n    from tarot.search import x",
            "tarot/adapter:2: adapter must not know tarot.search",
        ),
        (
            "tarot/search/bayesian.py",
            "from ..samples import Sample",
            "tarot/search/bo:1: search must not know tarot.objectives.samples",
        ),
        (
            "tarot/search/bayesian.py",
            "from .. import harness",
            "tarot/search/bo:1: tarot.models.lm_eval_model is below search",
        ),
        ("tarot/search/space.py", "import transformers.utils", "tarot/space:1: space must not know transformers.utils"),
        ("tarot/evaluation/statistics.py", "if True:\n    import torch", "tarot/gains:2: gains must not know torch"),
        ("tarot/errors.py", "from torch import nn", "tarot/errors:1: errors must not know torch"),
        (
            "tarot/models/lm_eval_model.py",
            "import_module('tarot.search.tune')",
            "tarot/harness:1: tarot.search.tune is below harness",
        ),
        ("tarot/models/lm_eval_model.py", "from tarot import tune", "tarot/harness:1: tarot.tune goes round the rooms"),
        ("tarot/models/lm_eval_model.py", "import tarot", "tarot/harness:1: tarot goes round the rooms"),
        ("tarot/utils.py", "", "tarot/utils: no room of the list"),
        ("tarot/helpers/one.py", "", "tarot/helpers/one: no room of the list"),
        (
            "tasks/paper/free.py",
            "import tarot.objectives.samples",
            "tasks/paper/free:1: tasks must not know tarot.objectives.samples",
        ),
    ],
)
def test_the_check_can_fail(tmp_path: Path, path: str, source: str, violation: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    assert violations(tmp_path) == [violation]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tarot/edit/sites.py", "import torch\nfrom tarot.errors import TarotError"),
        ("tarot/search/bayesian.py", "from tarot.search.trial import Trial\nfrom . import points\nimport botorch"),
        ("tarot/cli/main.py", "from tarot import tuning\ndef f():\n    import tarot.models.lm_eval_model"),
        ("tarot/__init__.py", "from tarot.cli.main import main"),
        ("tasks/metrics.py", "import sklearn\nfrom . import splits"),
    ],
)
def test_the_check_can_pass(tmp_path: Path, path: str, source: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    assert violations(tmp_path) == []


def test_annotated_shapes_and_dtypes_are_checked() -> None:
    with pytest.raises(TypeCheckError):
        ROTARY.apply(torch.zeros(2, 4), torch.zeros(3, 2))
    with pytest.raises(TypeCheckError):
        ROTARY.matrix(torch.zeros(2, dtype=torch.int64), 4)
