"""The folder of an analysis: figures and their numbers."""

import csv
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint import write_tasks

from tarot.analysis.adapter_objective import adapter_objective
from tarot.analysis.mechanism import measure_mechanism
from tarot.analysis.pruning import prune_adapter
from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.models.loaded_model import LoadedModel
from tarot.report.mechanism import write_mechanism
from tarot.search.config import TaRotConfig
from tarot.search.tune import tune


def identity_of(tuned_adapter: Adapter) -> Adapter:
    return replace(tuned_adapter, angles=torch.zeros_like(tuned_adapter.angles))


def analyse(loaded: LoadedModel, adapter: Adapter, folder: Path, **options: Any) -> list[Path]:
    return write_mechanism(measure_mechanism(loaded, adapter, **options), folder)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_folder_has_figures_and_their_numbers(
    loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path, tmp_path: Path
) -> None:
    steps = []
    files = analyse(
        loaded, tuned_adapter, tmp_path / "a", include_path=tasks_folder, on_step=lambda *step: steps.append(step)
    )
    names = {"lens", "heads", "heads-alone", "heads-missed", "flips", "attention"}
    assert {file.stem for file in files} == names and all(file.stat().st_size for file in files)
    ends = {step: (done, total) for step, done, total in steps}
    assert ends == {"lens": (24, 24), "heads": (14, 14), "flips": (2, 2), "attention": (1, 1)}
    for file in files:
        if file.suffix == ".svg":
            root = ElementTree.fromstring(file.read_text())
            assert root.attrib["role"] == "img" and root.find("{*}title").text and root.find("{*}desc").text
            assert "var(" not in file.read_text() and "currentColor" not in file.read_text()
    lens = rows_of(tmp_path / "a" / "lens.csv")
    assert [row["edited_layer"] for row in lens] == ["True", "True", "False", "False"]
    for row in lens:
        assert float(row["difference"]) == pytest.approx(float(row["edited"]) - float(row["base"]), abs=1e-5)
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
    heads = rows_of(tmp_path / "a" / "heads.csv")
    assert [(row["layer"], row["head"]) for row in heads] == [(str(i), str(j)) for i in range(2) for j in range(3)]
    again = analyse(loaded, tuned_adapter, tmp_path / "b", include_path=tasks_folder)
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]


def test_the_identity_changes_nothing(
    loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path, tmp_path: Path
) -> None:
    analyse(loaded, identity_of(tuned_adapter), tmp_path, include_path=tasks_folder, limit=5)
    lens = rows_of(tmp_path / "lens.csv")
    assert all(row[key] == "0" for row in lens for key in ("difference", "low", "high"))
    assert all(row[key] == "0" for row in rows_of(tmp_path / "heads.csv") for key in ("alone", "missed"))
    assert rows_of(tmp_path / "flips.csv") == []
    assert "no head matters" in (tmp_path / "heads-alone.svg").read_text()
    assert not (tmp_path / "flips.svg").exists()


def test_unscorable_answers_are_rejected_before_anything_is_written(loaded: LoadedModel, tmp_path: Path) -> None:
    tasks_folder = write_tasks(tmp_path / "tasks")
    (file := tasks_folder / "generate.yaml").write_text(file.read_text().replace("metric: exact_match", "metric: bleu"))
    config = TaRotConfig("own_generate", num_samples=6, search="random", space="head", layers=0.5)
    edit = tune(
        loaded.model, loaded.tokenizer, config, output_dir=tmp_path / "edit", budget=2, include_path=tasks_folder
    )
    with pytest.raises(TarotError, match="exact_match"):
        analyse(loaded, edit, tmp_path / "drawn", include_path=tasks_folder)
    assert not (tmp_path / "drawn").exists()


def test_adapters_tuned_for_a_reward_are_pruned_and_drawn(
    loaded: LoadedModel, reward_adapter: Adapter, tmp_path: Path
) -> None:
    smaller = prune_adapter(loaded, reward_adapter, 0.5)
    scores = smaller.provenance["pruned"]["scores"]
    assert scores["pruned"] >= scores["identity"] + 0.5 * (scores["whole"] - scores["identity"])
    assert adapter_objective(loaded, smaller)(smaller.angles) == pytest.approx(scores["pruned"])
    for name in ("lens.svg", "heads.csv", "notes.txt"):
        (tmp_path / name).write_text("of another adapter")
    files = analyse(loaded, reward_adapter, tmp_path, limit=2)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", *(file.name for file in files)}
    assert [file.name for file in files] == ["attention.csv", "attention.svg", "layers.csv", "layers.svg"]
    rows = rows_of(tmp_path / "layers.csv")
    assert [row["layer"] for row in rows] == ["0", "1"] and all(row["heads"] == "3" for row in rows)
    score = adapter_objective(loaded, reward_adapter)
    first = torch.cat([reward_adapter.angles[:1], torch.zeros_like(reward_adapter.angles[1:])])
    assert float(rows[0]["alone"]) == pytest.approx(score(first) - scores["identity"], abs=1e-4)
    assert float(rows[1]["missed"]) == pytest.approx(scores["whole"] - score(first), abs=1e-4)
