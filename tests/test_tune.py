"""From a model and a task to an adapter: every kind of task, killed anywhere, resumed as if never killed."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, save_checkpoint, write_tasks

from tarot._files.lock import hold_lock
from tarot.edit.adapter import Adapter
from tarot.edit.adapter_folder import METADATA, WEIGHTS
from tarot.errors import TarotError, UnknownName
from tarot.models.loaded_model import LoadedModel
from tarot.search import trial_cost
from tarot.search.config import TaRotConfig
from tarot.search.folder import LOCK, TRIALS, read_curve, read_trials
from tarot.search.tune import check, tune

RECIPE = TaRotConfig("own_choice", num_samples=6, search="random", space="head-gradient")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return LoadedModel("bytes", byte_model(), byte_tokenizer())


def scores(folder: Path) -> list[tuple[tuple[float, ...], float]]:
    return [(trial.x, trial.score) for trial in read_trials(folder)]


# The other two have no shots to give.
@pytest.mark.parametrize(("name", "shots"), [("choice", 0), ("choice", "mix"), ("generate", 0), ("loglikelihood", 0)])
def test_any_kind_of_task(tmp_path: Path, loaded: LoadedModel, folder: Path, name: str, shots: int | str) -> None:
    config = replace(RECIPE, task=f"own_{name}", num_fewshot=shots)
    adapter = tune(loaded.model, loaded.tokenizer, config, output_dir=tmp_path / "out", budget=4, include_path=folder)
    found = scores(tmp_path / "out")
    assert len(found) == 4
    assert adapter.provenance["scores"] == {"identity": found[0][1], "best": max(score for _, score in found)}
    loaded_again = Adapter.from_pretrained(tmp_path / "out")
    assert torch.equal(loaded_again.angles, adapter.angles)
    assert loaded_again.provenance["task"] == f"own_{name}"
    drawn = loaded_again.provenance["samples_drawn"]
    assert len({sample["key"] for sample in drawn}) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"space": "full"},
        {"space": "layer"},
        {"space": "random:3"},
        {"rotation": "givens"},
        {"rotation": "scale"},
        {"sites": "mlp"},
        {"layers": "1,3"},
        {"objective": "margin"},
        {"chat": False},
        {"search": "bo"},
        {"search": "adam"},
        {"search": "adam", "space": "random:3"},
        {"search": "adam", "rotation": "givens", "objective": "accuracy"},
    ],
    ids=str,
)
def test_every_choice_can_be_chosen(
    tmp_path: Path, loaded: LoadedModel, folder: Path, change: dict[str, object]
) -> None:
    adapter = tune(
        loaded.model, loaded.tokenizer, replace(RECIPE, **change), output_dir=tmp_path, budget=6, include_path=folder
    )
    assert len(adapter.find_sites(loaded.model)) == (2 if "layers" in change else 4)
    with adapter.apply(loaded.model) as model:
        assert torch.isfinite(model(torch.tensor([[3, 4, 5]])).logits).all()


def test_tuning_leaves_the_model_as_it_was(tmp_path: Path, loaded: LoadedModel, folder: Path) -> None:
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    tune(loaded.model, loaded.tokenizer, RECIPE, output_dir=tmp_path, budget=3, include_path=folder)
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())


@pytest.mark.parametrize(("search", "budget"), [("random", 14), ("bo", 14), ("adam", 42)])
def test_resumed_equals_uninterrupted(
    tmp_path: Path, loaded: LoadedModel, folder: Path, search: str, budget: int
) -> None:
    config = replace(RECIPE, search=search)
    whole = tune(
        loaded.model, loaded.tokenizer, config, output_dir=tmp_path / "whole", budget=budget, include_path=folder
    )
    assert whole.provenance["trials"] == 14 and whole.provenance["spent"] == budget
    resumed_at = []

    def stop(trial: object, result: object) -> None:
        if len(result.trials) == 12:  # type: ignore[attr-defined]  # a Result
            raise RuntimeError("the machine went away")

    with pytest.raises(RuntimeError, match="the machine went away"):
        tune(
            loaded.model,
            loaded.tokenizer,
            config,
            output_dir=tmp_path / "cut",
            budget=budget,
            include_path=folder,
            on_trial=stop,
        )
    with (tmp_path / "cut" / TRIALS).open("ab") as file:
        file.write(b'{"index": 12, "x": [0.1')  # killed while writing
    again = tune(
        loaded.model,
        loaded.tokenizer,
        config,
        output_dir=tmp_path / "cut",
        budget=budget,
        include_path=folder,
        resume=True,
        on_start=resumed_at.append,
    )
    assert resumed_at == [12]
    assert scores(tmp_path / "cut") == scores(tmp_path / "whole")
    assert again.fingerprint == whole.fingerprint


def test_the_default_climbs_and_says_what_it_spent(tmp_path: Path, loaded: LoadedModel, folder: Path) -> None:
    adapter = tune(
        loaded.model,
        loaded.tokenizer,
        TaRotConfig("own_choice", num_samples=6),
        output_dir=tmp_path,
        budget=31,
        include_path=folder,
    )
    identity, *rest = read_curve(tmp_path, "adam")
    assert adapter.provenance["spent"] == 30 == 1 + len(rest)
    assert adapter.provenance["search"] == "adam" and adapter.provenance["space"] == "full"
    assert max(rest) == adapter.provenance["scores"]["best"] > identity  # type: ignore[index]  # JSON that tune wrote
    assert adapter.edit.layers == (0, 1, 2, 3)


def test_interrupted_keeps_the_best_so_far(tmp_path: Path, loaded: LoadedModel, folder: Path) -> None:
    def stop(trial: object, result: object) -> None:
        if len(result.trials) == 3:  # type: ignore[attr-defined]  # a Result
            raise KeyboardInterrupt

    adapter = tune(
        loaded.model, loaded.tokenizer, RECIPE, output_dir=tmp_path, budget=9, include_path=folder, on_trial=stop
    )
    assert adapter.provenance["interrupted"] and adapter.provenance["trials"] == 3
    assert Adapter.from_pretrained(tmp_path).fingerprint == adapter.fingerprint
    finished = tune(
        loaded.model, loaded.tokenizer, RECIPE, output_dir=tmp_path, budget=9, include_path=folder, resume=True
    )
    assert not finished.provenance["interrupted"] and len(read_trials(tmp_path)) == 9


KILLED = """
import os, signal
from tarot.cli.main import main
from tarot.search import TrialLog
append = TrialLog.append

def append_and_die(log, trial):
    append(log, trial)
    if len(log.trials) == 5:
        os.kill(os.getpid(), signal.SIGKILL)

TrialLog.append = append_and_die
main()
"""


def test_killed_for_real(tmp_path: Path, folder: Path) -> None:
    """SIGKILL in mid-search; the command started again says that it resumes and ends where an unbroken run does."""
    model = save_checkpoint(tmp_path / "model")
    options = [
        "tune",
        "--model",
        str(model),
        "--task",
        "own_choice",
        "--include-path",
        str(folder),
        "--samples",
        "6",
        "--search",
        "random",
        "--space",
        "head-gradient",
        "--budget",
        "100",
        "--cpus",
        "1",  # as here: sums of other threads' parts differ in the last bit on some processors
    ]
    output = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, *options, "--output", str(output)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not (output / METADATA).exists() and not (output / WEIGHTS).exists()
    before = len(read_trials(output))
    assert before == 5
    command = [sys.executable, "-c", "from tarot.cli.main import main; main()", *options]
    again = subprocess.run([*command, "--output", str(output), "--resume"], capture_output=True, text=True, check=True)
    assert f"resuming after {before} trials" in again.stderr
    loaded = LoadedModel(str(model), byte_model(), byte_tokenizer())
    tune(loaded.model, loaded.tokenizer, RECIPE, output_dir=tmp_path / "unbroken", budget=100, include_path=folder)
    assert scores(output) == scores(tmp_path / "unbroken")
    assert Adapter.from_pretrained(output).fingerprint == Adapter.from_pretrained(tmp_path / "unbroken").fingerprint


def test_no_score_anywhere_is_an_error(tmp_path: Path, folder: Path) -> None:
    model = byte_model()
    model.get_output_embeddings().weight.fill_(torch.nan)
    nan = LoadedModel("nan", model, byte_tokenizer())
    for name, search, objective in (
        ("head", "random", "log_probability"),
        ("full", "adam", "log_probability"),
        ("layer", "random", "accuracy"),
    ):
        config = replace(RECIPE, space=name, search=search, objective=objective)
        n = 3 if search == "random" else 1  # what follows gradients ends where there is none
        with pytest.raises(TarotError, match=f"expected a finite score in some trial, got none in {n}"):
            tune(
                nan.model,
                nan.tokenizer,
                config,
                output_dir=tmp_path / name,
                budget=3 * trial_cost(search),
                include_path=folder,
            )
    with pytest.raises(TarotError, match="expected a finite gradient that is not zero everywhere"):
        tune(nan.model, nan.tokenizer, RECIPE, output_dir=tmp_path / "out", budget=3, include_path=folder)


def refused(loaded: LoadedModel, output: Path, folder: Path, config: TaRotConfig = RECIPE, **options: object) -> str:
    with pytest.raises(TarotError) as error:
        tune(loaded.model, loaded.tokenizer, config, output_dir=output, include_path=folder, **{"budget": 3, **options})  # type: ignore[arg-type]  # wrong ones on purpose
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(output), "OUT")


def test_folders_that_are_not_free(tmp_path: Path, loaded: LoadedModel, folder: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "expected a folder to write to, got the file" in refused(loaded, tmp_path / "file", folder)
    assert (
        refused(loaded, tmp_path, folder) == "expected an empty output folder, got OUT with files in it; choose another"
    )
    output = tmp_path / "out"
    tune(loaded.model, loaded.tokenizer, RECIPE, output_dir=output, budget=3, include_path=folder)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    assert refused(loaded, output, folder) == (
        "expected an empty output folder, got OUT with tarot.json; add --resume, or choose another"
    )
    other = refused(loaded, output, folder, replace(RECIPE, seed=1), resume=True, budget=9)
    assert "seed" in other
    # What the samples' documents do not say: how the task asks for them, and what the model is at the moment.
    asked = write_tasks(tmp_path / "asked")
    (file := asked / "choice.yaml").write_text(file.read_text().replace("Name what it says", "Say what it names"))
    assert "prompts" in refused(loaded, output, asked, resume=True, budget=9)
    weight = next(loaded.model.parameters())
    with torch.no_grad():
        weight.neg_()
        assert "weights" in refused(loaded, output, folder, resume=True, budget=9)
        weight.neg_()
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    with hold_lock(output / LOCK):  # another process goes on with it
        assert "another process" in refused(loaded, output, folder, resume=True, budget=9)
    (output / TRIALS).unlink()  # as in what was composed, pruned or imported: there is nothing to go on with
    assert refused(loaded, output, folder, resume=True, budget=9) == (
        "expected an empty output folder, got OUT with tarot.json; choose another"
    )


def test_a_smaller_budget_does_not_make_an_edit_cheaper(tmp_path: Path, loaded: LoadedModel, folder: Path) -> None:
    tune(loaded.model, loaded.tokenizer, RECIPE, output_dir=tmp_path / "out", budget=5, include_path=folder)
    adapter = tune(
        loaded.model, loaded.tokenizer, RECIPE, output_dir=tmp_path / "out", budget=3, include_path=folder, resume=True
    )
    assert (adapter.provenance["budget"], adapter.provenance["spent"]) == (5, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "own_choise"}, "expected a known task, got 'own_choise'; did you mean 'own_choice'?"),
        ({"search": "bayes"}, "expected a known search, got 'bayes'; known: adam, bo, paper, published, random"),
        ({"space": "heads"}, "expected a known space, got 'heads'; did you mean 'head'?"),
        ({"objective": "acuracy"}, "expected a known objective, got 'acuracy'; did you mean 'accuracy'?"),
        ({"rotation": "rotari"}, "expected a known rotation, got 'rotari'; did you mean 'rotary'?"),
        ({"sites": "head"}, "expected a known kind of site, got 'head'; did you mean 'heads'?"),
        ({"bound": 0.0}, "expected a positive bound in radians, got 0.0; try 0.785, which is pi/4"),
        ({"bound": float("nan")}, "expected a positive bound in radians, got nan; try 0.785, which is pi/4"),
        ({"samples": 0}, "expected at least 1 sample, got 0"),
        ({"seed": 2**63}, "expected a seed of at most 63 bits, got 9223372036854775808"),
        ({"num_fewshot": "many"}, "expected a number of shots from 0, or 'mix', got 'many'"),
        ({"layers": "half"}, "expected layers as '0.5', '-0.5', '4-11' or '0,3,5', got 'half'"),
        ({"layers": "0-9999999999"}, "expected layers as '0.5', '-0.5', '4-11' or '0,3,5', got '0-9999999999'"),
    ],
    ids=str,
)
def test_bad_recipes(
    tmp_path: Path, loaded: LoadedModel, folder: Path, change: dict[str, object], message: str
) -> None:
    output = tmp_path / "out"
    assert refused(loaded, output, folder, replace(RECIPE, **change)) == message
    assert not output.exists()
    if "task" not in change:  # all else is told before a model is loaded
        with pytest.raises(TarotError) as error:
            check(replace(RECIPE, **change), output, 9, resume=False)
        assert str(error.value) == message


def test_no_budget(tmp_path: Path, loaded: LoadedModel, folder: Path) -> None:
    assert refused(loaded, tmp_path / "out", folder, budget=0) == (
        "expected a budget of at least 1, what one trial of 'random' counts for, got 0"
    )


def test_unknown_is_a_kind_of_error() -> None:
    assert issubclass(UnknownName, TarotError)


def test_provenance_repeats_the_run(tmp_path: Path, loaded: LoadedModel, folder: Path) -> None:
    tune(loaded.model, loaded.tokenizer, RECIPE, output_dir=tmp_path, budget=3, include_path=folder)
    card = json.loads((tmp_path / METADATA).read_text())["provenance"]
    config = TaRotConfig(**{name: card[name] for name in vars(RECIPE)})
    assert config == RECIPE
    assert set(card["versions"]) >= {"torch", "transformers", "lm-eval", "botorch", "python"}
