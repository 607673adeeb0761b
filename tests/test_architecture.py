"""Each package imports only packages above it in the list; what pytest and `--help` import stays free of torch."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from configparser import ConfigParser
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from jaxtyping import TypeCheckError

from tarot.edit.context import resolve_sites
from tarot.edit.rotation import ROTARY

PROJECT = Path(__file__).parent.parent
PACKAGES = (
    # from top to bottom; the two interfaces do not know each other
    ("errors",),
    ("arguments",),
    ("_files",),
    ("edit",),
    ("models",),
    ("objectives",),
    ("search",),
    ("evaluation",),
    ("analysis",),
    ("report",),
    ("cli", "pytest_plugin"),
)
LEVEL = {name: level for level, names in enumerate(PACKAGES) for name in names}
HEAVY = frozenset({"torch", "transformers", "accelerate", "peft", "lm_eval", "botorch", "gpytorch"})
WITHOUT_TORCH = (
    "errors",
    "arguments",
    "_files",
    "models.formats.hub_cache",
    "models.formats.listing",
    "models.formats.wheels",
    "objectives.front",
    "evaluation.grid.cell_runner",
    "evaluation.grid.grid",
    "evaluation.results",
    "evaluation.regression",
    "evaluation.statistics",
    "search.names",
    "report",
    "cli",
    "pytest_plugin",
)
"""Modules and packages that import none of `HEAVY` at module level."""


class Import(NamedTuple):
    """An import of `module` in `file`; of `from tarot import name` it is `tarot.name`."""

    file: Path
    line: int
    module: str


def imports(file: Path, package: str) -> Iterator[Import]:
    """Yield every import of a file, those inside functions too; relative ones start from `package`."""
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


def violations(project: Path) -> list[str]:
    """Return one line for each import in `tarot/`, `tasks/` or `benchmarks/` that the architecture does not allow."""
    found: list[str] = []
    for file in sorted((project / "tarot").rglob("*.py")):
        parts = file.relative_to(project).with_suffix("").parts
        own, where = parts[1], "/".join(parts)
        if own in ("__init__", "__main__"):
            continue
        if own not in LEVEL:
            found.append(f"{where}: not in the list of packages")
            continue
        for _, line, module in imports(file, ".".join(parts[:-1])):
            if module.split(".")[0] != "tarot":
                continue
            other = module.split(".")[1] if "." in module else ""
            if other not in LEVEL:
                found.append(f"{where}:{line}: {module} is no package; import from where it is defined")
            elif other != own and LEVEL[other] >= LEVEL[own]:
                found.append(f"{where}:{line}: {module} is not above {own}")
    for file in sorted((project / "tasks").rglob("*.py")):
        where = "/".join(file.relative_to(project).with_suffix("").parts)
        for _, line, module in imports(file, "tasks"):
            if module.split(".")[0] == "tarot":
                found.append(f"{where}:{line}: task files do not import {module}")
    for file in sorted((project / "benchmarks").rglob("*.py")):
        where = "/".join(file.relative_to(project).with_suffix("").parts)
        for _, line, module in imports(file, "benchmarks"):
            if module.startswith("tarot._"):
                found.append(f"{where}:{line}: {module} is private")
    return found


def test_packages_import_only_those_above_them() -> None:
    assert violations(PROJECT) == []


def test_the_design_lists_the_same_packages() -> None:
    folders = {path.stem for path in (PROJECT / "tarot").iterdir() if not path.name.startswith("__")}
    assert folders - {"py"} == set(LEVEL)


@pytest.mark.parametrize(
    ("path", "source", "violation"),
    [
        ("tarot/edit/sites.py", "from tarot.search.loop import f", "edit/sites:1: tarot.search.loop is not"),
        ("tarot/edit/hub.py", "def f():\n    from tarot.models import x", "edit/hub:2: tarot.models is not above"),
        ("tarot/search/space.py", "from ..evaluation import grid", "search/space:1: tarot.evaluation is not above"),
        ("tarot/errors.py", "import tarot._files", "errors:1: tarot._files is not above errors"),
        ("tarot/models/load.py", "import_module('tarot.search.tune')", "models/load:1: tarot.search.tune is not"),
        ("tarot/cli/main.py", "import tarot.pytest_plugin", "cli/main:1: tarot.pytest_plugin is not above cli"),
        ("tarot/report/page.py", "from tarot import tune", "report/page:1: tarot.tune is no package"),
        ("tarot/utils.py", "", "tarot/utils: not in the list"),
        ("tasks/paper/free.py", "import tarot.errors", "tasks/paper/free:1: task files do not import tarot.errors"),
        ("benchmarks/gpu.py", "from tarot._files.lock import x", "benchmarks/gpu:1: tarot._files.lock is private"),
    ],
)
def test_the_check_can_fail(tmp_path: Path, path: str, source: str, violation: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    (found,) = violations(tmp_path)
    assert violation in found


def test_a_class_name_has_one_meaning() -> None:
    files = [file for folder in ("tarot", "benchmarks") for file in (PROJECT / folder).rglob("*.py")]
    classes = [
        node.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert len(files) > 200 and [name for name, n in Counter(classes).items() if n > 1] == []


def first_heavy(modules: Sequence[str], path: Path = PROJECT) -> str:
    """Return the first of these modules and packages whose import imports one of `HEAVY`; "" if none does."""
    program = (
        "import importlib, pkgutil, sys\n"
        f"for module in {modules!r}:\n"
        "    root = importlib.import_module(module)\n"
        "    for found in pkgutil.walk_packages(getattr(root, '__path__', []), module + '.'):\n"
        "        importlib.import_module(found.name)\n"
        f"    if {set(HEAVY)!r} & sys.modules.keys():\n"
        "        sys.exit(print(module))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=path, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_they_import_no_torch() -> None:
    assert first_heavy([f"tarot.{module}" for module in WITHOUT_TORCH]) == ""


def test_the_check_for_torch_can_fail(tmp_path: Path) -> None:
    for name, inner in (("light", ""), ("heavy", "import torch")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "inner.py").write_text(inner)
    assert first_heavy(["light", "heavy"], tmp_path) == "heavy"


def test_tox_installs_what_nox_does() -> None:
    tox = ConfigParser()
    tox.read(PROJECT / "tox.ini")
    extras = ",".join(tox["testenv"]["extras"].split())
    assert set(re.findall(r"\.\[(\S+)\]", (PROJECT / "noxfile.py").read_text())) >= {extras}
    assert f"-e .[{extras}]" in (PROJECT / "constraints.txt").read_text()


def test_annotated_shapes_and_dtypes_are_checked() -> None:
    with pytest.raises(TypeCheckError):
        resolve_sites(torch.nn.Linear(2, 2), torch.zeros(2, 4), None, ROTARY)
    with pytest.raises(TypeCheckError):
        ROTARY.matrix(torch.zeros(2, dtype=torch.int64), 4)
