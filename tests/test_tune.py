"""tune: every kind of task, every choice of a configuration, and searches that are killed and resumed."""

import json
import math
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from after_trial import AfterTrial
from checkpoint import byte_model, byte_tokenizer, save_checkpoint, write_tasks
from cli_suite import run_in

from tarot.edit.adapter import Adapter
from tarot.edit.adapter_folder import METADATA, WEIGHTS
from tarot.errors import InvalidValueError, TarotError, UnknownName
from tarot.models.loaded_model import LoadedModel
from tarot.search.algorithms.registry import SEARCHES
from tarot.search.callbacks import Callback
from tarot.search.config import TaRotConfig
from tarot.search.folder import RECIPE, TRIALS, read_curve, read_trials
from tarot.search.loop import SearchResult
from tarot.search.retention import Retention
from tarot.search.trials import Trial
from tarot.search.tune import check_request, tune

CONFIG = TaRotConfig("own_choice", num_samples=6, search="random", space="head")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return LoadedModel("bytes", byte_model(), byte_tokenizer())


def scores(folder: Path) -> list[tuple[tuple[float, ...], float]]:
    return [(trial.x, trial.score) for trial in read_trials(folder)]


# Tasks that generate or score a text have no shots to give.
@pytest.mark.parametrize(("name", "shots"), [("choice", 0), ("choice", "mix"), ("generate", 0), ("loglikelihood", 0)])
def test_any_kind_of_task(tmp_path: Path, loaded: LoadedModel, tasks: Path, name: str, shots: int | str) -> None:
    config = replace(CONFIG, task=f"own_{name}", num_fewshot=shots)
    adapter = tune(*loaded, config, output_dir=tmp_path, budget=4, include_path=tasks)
    trials = scores(tmp_path)
    assert len(trials) == 4
    assert adapter.provenance["scores"] == {"identity": trials[0][1], "best": max(score for _, score in trials)}
    restored = Adapter.from_pretrained(tmp_path)
    assert torch.equal(restored.angles, adapter.angles)
    assert restored.provenance["task"] == f"own_{name}"
    samples: Any = restored.provenance["samples_drawn"]
    assert len({sample["key"] for sample in samples}) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"space": "full"},
        {"space": "head"},
        {"rotation": "givens"},
        {"rotation": "scale"},
        {"sites": "mlp"},
        {"layers": (1, 3)},
        {"layers": 0.5},
        {"layers": -0.5},
        {"objective": "margin"},
        {"apply_chat_template": False},
        {"search": "bo"},
        {"search": "adam"},
        {"trials_per_step": 2},
        {"search": "adam", "space": "head"},
        {"search": "adam", "rotation": "givens", "objective": "accuracy"},
    ],
    ids=str,
)
def test_every_choice_of_a_configuration(
    tmp_path: Path, loaded: LoadedModel, tasks: Path, change: dict[str, object]
) -> None:
    adapter = tune(*loaded, replace(CONFIG, **change), output_dir=tmp_path, budget=6, include_path=tasks)
    assert len(adapter.find_sites(loaded.model)) == (2 if "layers" in change else 4)
    with adapter.apply(loaded.model) as model:
        assert torch.isfinite(model(torch.tensor([[3, 4, 5]])).logits).all()


def test_the_model_is_unchanged(loaded: LoadedModel, tasks: Path) -> None:
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    tune(*loaded, CONFIG, budget=3, include_path=tasks)
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())


def test_a_folder_does_not_change_the_numbers(tmp_path: Path, loaded: LoadedModel, tasks: Path) -> None:
    kept = tune(*loaded, CONFIG, budget=5, output_dir=tmp_path, include_path=tasks)
    assert tune(*loaded, CONFIG, budget=5, include_path=tasks).fingerprint == kept.fingerprint


@pytest.mark.parametrize(("search", "budget"), [("random", 14), ("bo", 14), ("adam", 42)])
def test_resumed_equals_uninterrupted(
    tmp_path: Path, loaded: LoadedModel, tasks: Path, search: str, budget: int
) -> None:
    config = replace(CONFIG, search=search)
    uninterrupted = tune(*loaded, config, output_dir=tmp_path / "one", budget=budget, include_path=tasks)
    assert uninterrupted.provenance["trials"] == 14 and uninterrupted.provenance["spent"] == budget
    resumed_from: list[int] = []

    class Resumed(Callback):
        def on_search_begin(self, *_: object, resumed: Sequence[Trial], **__: object) -> None:
            resumed_from.extend(trial.index for trial in resumed)

    def fail(trial: Trial, result: SearchResult) -> None:
        if len(result.trials) == 12:
            raise RuntimeError("the machine went away")

    with pytest.raises(RuntimeError, match="went away"):
        tune(
            *loaded,
            config,
            output_dir=tmp_path / "two",
            budget=budget,
            include_path=tasks,
            callbacks=[AfterTrial(fail)],
        )
    with (tmp_path / "two" / TRIALS).open("ab") as file:
        file.write(b'{"index": 12, "x": [0.1')  # killed while writing
    resumed = tune(
        *loaded,
        config,
        output_dir=tmp_path / "two",
        budget=budget,
        include_path=tasks,
        resume=True,
        callbacks=[Resumed()],
    )
    assert resumed_from == list(range(12))
    assert scores(tmp_path / "two") == scores(tmp_path / "one")
    assert resumed.fingerprint == uninterrupted.fingerprint


def test_a_search_without_a_limit_climbs_and_records_what_it_spent(
    tmp_path: Path, loaded: LoadedModel, tasks: Path
) -> None:
    config = TaRotConfig("own_choice", num_samples=6, max_kl=None)
    adapter = tune(*loaded, config, output_dir=tmp_path, budget=31, include_path=tasks)
    identity, *others = read_curve(tmp_path, "adam")
    assert adapter.provenance["spent"] == 30 == 1 + len(others)
    assert adapter.provenance["search"] == "adam" and adapter.provenance["space"] == "full"
    assert max(others) == adapter.provenance["scores"]["best"] > identity
    assert adapter.edit.layers == (0, 1, 2, 3)
    assert not adapter.has_other_weights(loaded.model) and adapter.has_other_weights(byte_model(seed=1))


def test_the_default_climbs_within_its_limit(loaded: LoadedModel, tasks: Path) -> None:
    adapter = tune(*loaded, TaRotConfig("own_choice", num_samples=6), budget=90, include_path=tasks)
    provenance = adapter.provenance
    assert provenance["scores"]["best"] > provenance["scores"]["identity"]
    assert 0 < provenance["retention"]["kl"] <= provenance["max_kl"]


def test_seconds_are_those_of_the_whole_search(
    tmp_path: Path, loaded: LoadedModel, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parts add up. Of a part that left no adapter only the trials are known."""
    now = [0.0]
    for module in ("tune", "loop"):
        monkeypatch.setattr(f"tarot.search.{module}.perf_counter", lambda: now[0])

    def take(seconds: float, score: float = 0.0) -> float:
        now[0] += seconds
        return score

    class Slow(Callback):
        def on_search_begin(self, *_: object, **__: object) -> None:
            take(100)

        def on_trial(self, trial: Trial, result: SearchResult) -> None:
            take(10)
            if trial.index == 4:
                raise RuntimeError("the machine went away")

    def seconds_of_part(budget: int) -> dict[str, float]:
        found = tune(
            *loaded,
            replace(CONFIG, objective="model"),
            objective=lambda model, tokenizer: take(1),
            output_dir=tmp_path,
            budget=budget,
            include_path=tasks,
            resume=budget > 2,
            callbacks=[Slow()],
        )
        assert Adapter.from_pretrained(tmp_path).provenance["seconds"] == found.provenance["seconds"]
        return dict(found.provenance["seconds"])

    assert seconds_of_part(2) == {"evaluating": 2, "proposing": 0, "other": 120}
    assert seconds_of_part(3) == {"evaluating": 3, "proposing": 0, "other": 230} and now == [233]
    with pytest.raises(RuntimeError, match="went away"):
        seconds_of_part(9)
    assert seconds_of_part(7) == {"evaluating": 7, "proposing": 0, "other": 230 + 120}


def test_a_complete_search_is_resumed_without_reading_what_it_retains(
    tmp_path: Path, loaded: LoadedModel, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TaRotConfig("own_choice", num_samples=6)
    first = tune(*loaded, config, budget=9, output_dir=tmp_path, include_path=tasks)
    (tmp_path / WEIGHTS).write_bytes(b"damaged")
    monkeypatch.setattr(Retention, "from_problem", lambda *_: pytest.fail("the contexts were read again"))
    again = tune(*loaded, config, budget=9, output_dir=tmp_path, include_path=tasks, resume=True)
    assert again == Adapter.from_pretrained(tmp_path)
    assert again == replace(first, provenance={**first.provenance, "seconds": again.provenance["seconds"]})


def test_ctrl_c_keeps_the_best_so_far(tmp_path: Path, loaded: LoadedModel, tasks: Path) -> None:
    def interrupt(trial: Trial, result: SearchResult) -> None:
        if len(result.trials) == 3:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"output_dir": tmp_path, "budget": 9, "include_path": tasks}
    adapter = tune(*loaded, CONFIG, **options, callbacks=[AfterTrial(interrupt)])
    assert adapter.provenance["interrupted"] and adapter.provenance["trials"] == 3
    assert Adapter.from_pretrained(tmp_path).fingerprint == adapter.fingerprint
    finished = tune(*loaded, CONFIG, **options, resume=True)
    assert not finished.provenance["interrupted"] and len(read_trials(tmp_path)) == 9


def test_the_recipe_gives_the_adapter_that_is_beside_it(tmp_path: Path, loaded: LoadedModel, tasks: Path) -> None:
    """After Ctrl-C, and after more, less or failed work in the folder."""
    output, repeats = tmp_path / "out", count()

    def work(budget: int, folder: Path = output, *, stop: BaseException | None = None) -> Adapter:
        def end(trial: Trial, result: SearchResult) -> None:
            if stop and trial.index == budget - 2:
                raise stop

        options: dict[str, Any] = {"include_path": tasks, "resume": folder.exists(), "callbacks": [AfterTrial(end)]}
        return tune(*loaded, CONFIG, budget=budget, output_dir=folder, **options)

    def check(budget: int) -> None:
        recipe = yaml.safe_load((output / RECIPE).read_text())
        again = work(recipe["budget"], tmp_path / f"repeat {next(repeats)}")
        assert again.fingerprint == Adapter.from_pretrained(output).fingerprint
        assert recipe["budget"] == budget

    work(4, stop=KeyboardInterrupt())
    check(3)
    work(12)
    check(12)
    assert work(2).provenance["budget"] == 12
    check(12)
    with pytest.raises(RuntimeError, match="went away"):
        work(16, stop=RuntimeError("the machine went away"))
    check(12)


KILLED = """
import os, signal
from tarot.cli.main import main
from tarot.search.trials import TrialLog
append = TrialLog.append

def append_and_die(log, trial):
    append(log, trial)
    if len(log.trials) == 5:
        os.kill(os.getpid(), signal.SIGKILL)

TrialLog.append = append_and_die
main()
"""


def test_a_killed_command_is_resumed(tmp_path: Path, tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After SIGKILL the command with --resume reports where it starts, and ends where an unbroken run does."""
    model = save_checkpoint(tmp_path / "model")
    options = [
        *("tune", "--model", str(model), "--tasks", "own_choice", "--include-path", str(tasks)),
        *("--num-samples", "6", "--search", "random", "--space", "head", "--budget", "100"),
        *("--cpus", "1"),  # as here: with several threads, some processors round sums differently
    ]
    output = tmp_path / "out"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *options, "--output-path", str(output)], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (output / METADATA).exists() and not (output / WEIGHTS).exists()
    assert len(read_trials(output)) == 5
    assert run_in(tmp_path, *options, "--output-path", str(output), "--resume") == 0
    assert "after 5 trials" in capsys.readouterr().err
    loaded = LoadedModel(str(model), byte_model(), byte_tokenizer())
    tune(*loaded, CONFIG, output_dir=tmp_path / "unbroken", budget=100, include_path=tasks)
    assert scores(output) == scores(tmp_path / "unbroken")
    assert Adapter.from_pretrained(output).fingerprint == Adapter.from_pretrained(tmp_path / "unbroken").fingerprint


def test_no_finite_score_is_an_error(tasks: Path) -> None:
    model = byte_model()
    model.get_output_embeddings().weight.fill_(torch.nan)
    broken = LoadedModel("broken", model, byte_tokenizer())
    for space, search, objective in (
        ("head", "random", "log_probability"),
        ("full", "adam", "log_probability"),
        ("full", "random", "accuracy"),
    ):
        config = replace(CONFIG, space=space, search=search, objective=objective)
        with pytest.raises(TarotError, match="finite score"):
            tune(*broken, config, budget=3 * SEARCHES[search].trial_cost, include_path=tasks)


def test_other_settings_cannot_be_resumed(tmp_path: Path, loaded: LoadedModel, tasks: Path) -> None:
    """Settings, prompts and weights of a resumed search must be those it was started with."""
    output = tmp_path / "out"
    tune(*loaded, CONFIG, output_dir=output, budget=3, include_path=tasks)
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def refused(config: TaRotConfig, include_path: Path, keyword: str) -> None:
        with pytest.raises(TarotError, match=keyword):
            tune(*loaded, config, output_dir=output, budget=9, include_path=include_path, resume=True)

    refused(replace(CONFIG, seed=1), tasks, "seed")
    reworded = write_tasks(tmp_path / "reworded")
    (file := reworded / "choice.yaml").write_text(file.read_text().replace("Name what it says", "Say what it names"))
    refused(CONFIG, reworded, "prompts")
    weight = next(loaded.model.parameters())
    with torch.no_grad():
        weight.neg_()
        refused(CONFIG, tasks, "weights")
        weight.neg_()
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_a_smaller_budget_does_not_reduce_what_was_spent(tmp_path: Path, loaded: LoadedModel, tasks: Path) -> None:
    tune(*loaded, CONFIG, output_dir=tmp_path, budget=5, include_path=tasks)
    adapter = tune(*loaded, CONFIG, output_dir=tmp_path, budget=3, include_path=tasks, resume=True)
    assert (adapter.provenance["budget"], adapter.provenance["spent"]) == (5, 5)


def test_unknown_task_suggests_the_nearest(tmp_path: Path, loaded: LoadedModel, tasks: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'own_choice'"):
        tune(*loaded, replace(CONFIG, task="own_choise"), output_dir=tmp_path / "out", budget=3, include_path=tasks)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "keyword"),
    [
        ({"budget": 0}, "budget"),
        ({"budget": 2.5}, "budget"),
        ({"budget": "9"}, "budget"),
        ({"budget": math.nan}, "budget"),
        ({"config": replace(CONFIG, search="adam"), "budget": 2}, "budget"),
        ({"config": "own_choice"}, "TaRotConfig"),
        ({"config": {"task": "own_choice"}}, "TaRotConfig"),
        ({"resume": True}, "output_dir"),
    ],
    ids=str,
)
def test_bad_requests_are_refused_without_a_model(loaded: LoadedModel, arguments: dict[str, Any], keyword: str) -> None:
    arguments = {"config": CONFIG, "budget": 9, **arguments}
    with pytest.raises(InvalidValueError, match=keyword):
        check_request(**arguments)
    with pytest.raises(InvalidValueError, match=keyword):
        tune(*loaded, **arguments)


def test_provenance_repeats_the_search(tmp_path: Path, loaded: LoadedModel, tasks: Path) -> None:
    tune(*loaded, CONFIG, output_dir=tmp_path, budget=3, include_path=tasks)
    provenance = json.loads((tmp_path / METADATA).read_text())["provenance"]
    assert TaRotConfig.from_dict(provenance) == CONFIG
    assert set(provenance["versions"]) >= {"torch", "transformers", "lm-eval", "botorch", "python"}
