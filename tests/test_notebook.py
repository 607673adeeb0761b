"""The notebook in the docs: it has outputs, and its cells run, on a tiny model in place of SmolLM2."""

import re
from pathlib import Path
from typing import Any

import pytest
from test_docs import substitute

nbformat: Any = pytest.importorskip("nbformat", reason="needs nbclient, which is in the extra dev")
nbclient: Any = pytest.importorskip("nbclient", reason="needs nbclient, which is in the extra dev")

NOTEBOOK = Path(__file__).parent.parent / "docs" / "tutorials" / "one-edit.ipynb"


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> list[tuple[str, ...]]:
    """Return the kind of each output of a cell, without warnings of the libraries."""
    outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    return [(each.output_type, *sorted(each.get("data", ()))) for each in outputs]


@pytest.fixture(scope="module")
def published() -> Any:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_it_has_ten_cells_with_outputs(published: Any) -> None:
    cells = code_cells(published)
    assert [cell.execution_count for cell in cells] == list(range(1, 11))
    assert sum(bool(cell.outputs) for cell in cells) == 9  # the first loads the model
    assert "error" not in {kind for cell in cells for kind, *_ in kinds(cell)}
    assert all(each.get("name") != "stderr" for cell in cells for each in cell.outputs)


def test_its_outputs_show_no_path_of_a_machine(published: Any) -> None:
    assert not any(word in str(published) for word in ("/tmp", "/home", "/root", "site-packages"))


def test_its_cells_run(published: Any, byte_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").symlink_to(byte_folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    run = nbformat.from_dict(published)
    for cell in code_cells(run):
        smaller = re.sub(r"budget=\d+", "budget=6", re.sub(r"limit=\d+", "limit=4", cell.source))
        cell.source, cell.outputs = substitute(smaller), []
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(run, timeout=300, kernel_name="python3", resources=place).execute()
    assert (tmp_path / "my-model" / "config.json").exists() and (tmp_path / "report" / "index.html").exists()
    # A random model's edit may change no document, so what that cell prints may differ.
    assert [kinds(cell) for cell in code_cells(run)] == [kinds(cell) for cell in code_cells(published)]
