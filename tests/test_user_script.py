"""A user's script needs the public names only."""

import ast
from pathlib import Path

import pytest
import user_script
from checkpoint import save_checkpoint, write_tasks


def test_it_imports_tarot_and_transformers_only() -> None:
    tree = ast.parse(Path(user_script.__file__).read_text(encoding="utf-8"))
    modules = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"pathlib", "sys", "tarot", "transformers"}


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(tmp_path / "model")
    arguments = [str(tmp_path / "model"), "own_choice", str(write_tasks(tmp_path / "tasks")), str(tmp_path / "edit")]
    assert user_script.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("own_choice: ")
    assert user_script.main(arguments) == 2  # the folder is taken
    assert str(tmp_path / "edit") in capsys.readouterr().err
