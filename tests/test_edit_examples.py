"""Examples in the docstrings of the edit package, the file layer and the errors; each edits a model of its own."""

import copy
import doctest
import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapters import random_adapter
from checkpoint import byte_model, write_gguf

import tarot
from tarot.edit.export.peft import to_peft
from tarot.edit.sites import find_sites

PACKAGES = ("tarot.errors", "tarot._files", "tarot.edit")
NEED_THE_HUB = {"tarot.edit.adapter.Adapter.push_to_hub"}
"""Examples that other tests run against a local hub."""


def find_examples() -> list[doctest.DocTest]:
    """Return the docstrings with examples of all modules of the packages."""
    modules = []
    for name in PACKAGES:
        modules.append(importlib.import_module(name))
        paths = getattr(modules[-1], "__path__", [])
        modules += [importlib.import_module(each.name) for each in pkgutil.walk_packages(paths, f"{name}.")]
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for module in modules for test in finder.find(module) if test.examples]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write what the examples read: a GGUF file, an adapter and its PEFT export."""
    folder = tmp_path_factory.mktemp("examples")
    write_gguf(byte_model(heads=4), folder / "model.gguf")
    model, _ = tarot.load_model(str(folder / "model.gguf"), device="cpu")
    provenance = {"task": "synth_color", "model": "wheel:smollm2-135m"}
    adapter = replace(random_adapter(model, layers=[0, 1]), provenance=provenance)
    adapter.save_pretrained(folder / "my-edit")
    to_peft(model, adapter, folder / "my-edit-peft")
    return folder


@pytest.mark.parametrize("example", find_examples(), ids=lambda example: example.name)
def test_the_example_runs(example: doctest.DocTest, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if example.name in NEED_THE_HUB:
        pytest.skip("needs the hub")
    monkeypatch.chdir(model_folder)
    model, tokenizer = tarot.load_model("model.gguf", device="cpu")
    adapter = tarot.Adapter.from_pretrained("my-edit")
    names = {
        **{"tarot": tarot, "torch": torch, "find_sites": find_sites, "model": model, "tokenizer": tokenizer},
        **{"adapter": adapter, "angles": adapter.angles, "first": adapter, "second": adapter.scaled(-1.0)},
        **{"folder": model_folder, "path": model_folder / "file"},
    }
    example = copy.copy(example)
    example.globs = {**example.globs, **names}
    results: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    runner.run(example, out=results.append)
    assert "".join(results) == ""
