"""The command that repeats a comparison."""

import shlex
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from checkpoint import byte_model, byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compare import folder, loaded, tuned
from test_config import configs
from typer.main import get_command

from tarot.cli.main import app
from tarot.cli.tune import objective_name
from tarot.edit.fingerprint import weights_fingerprint
from tarot.edit.layers import parse_layers
from tarot.evaluation.as_tuned import edit_settings
from tarot.evaluation.command import edited_folder, not_repeated, repeat_command
from tarot.evaluation.compare import compare
from tarot.evaluation.grid.grid import parse_shots
from tarot.models.loaded_model import LoadedModel
from tarot.report.answer import effects_command
from tarot.search.config import TaRotConfig

__all__ = ["folder", "loaded"]  # fixtures

GROUP: Any = get_command(app)
task_names = st.text("abc _-'$", min_size=1).filter(str.strip).map(str.strip)


def parse(line: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the command and the values of each command line, as the CLI itself reads them."""
    parsed = []
    for words in map(shlex.split, line.split(" && ")):
        with GROUP.make_context("tarot", words[1:]) as context:
            name, command, rest = GROUP.resolve_command(context, words[1:])
            parsed.append((name, command.make_context(name, rest, parent=context).params))
    return parsed


@pytest.fixture(scope="module")
def my_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("my tasks")


@settings(max_examples=40)
@given(
    configs,
    task_names,
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(0, 99) | st.floats(0.001, 1),
    st.integers(0, 5),
    st.none() | st.integers(1, 9) | st.just(0.5),
)
def test_the_cli_reads_the_printed_commands(
    loaded: LoadedModel,
    my_tasks: Path,
    config: TaRotConfig,
    task: str,
    pruned: bool,
    gated: bool,
    pick: float | None,
    draws: int,
    limit: float | None,
) -> None:
    """It reads exactly the configuration, the edit and the settings that were measured."""
    config = replace(config, task=task)
    provenance = {**config.to_dict(), "budget": 7, "dtype": "bfloat16", "pruned": {"keep": 0.25} if pruned else None}
    provenance |= {} if pick is None else {"pick": str(pick)}
    provenance |= {"gate": {"layer": 0}} if gated else {}
    edit: Any = SimpleNamespace(provenance=provenance, has_other_weights=lambda model: False)
    line = repeat_command(loaded, edit, num_fewshot=6, draws=draws, limit=limit, include_path=my_tasks, controls=[edit])
    made_by = ["tune", *["prune"] * pruned, *["gate"] * gated]
    parsed = parse(line)
    assert [name for name, _ in parsed] == [*made_by, *made_by, "compare"]
    tune, comparison = parsed[0][1], parsed[-1][1]
    assert (tune["pick"], type(tune["pick"])) == (pick, type(pick))
    values = {field.name: tune[field.name] for field in fields(TaRotConfig) if field.name in tune}
    (values["num_fewshot"],) = parse_shots(tune["num_fewshot"])
    values |= {"task": tune["tasks"][0], "layers": parse_layers(tune["layers"])}
    values["objective"] = objective_name(tune["objective"], tune["reward"])
    values |= {name: tune[name] or "" for name in ("search", "space")}  # None takes the default
    values["max_kl"] = None if tune["max_kl"] == "none" else tune["max_kl"]
    assert TaRotConfig(**values) == config
    others = ("model", "dtype", "budget", "include_path")
    assert [tune[name] for name in others] == ["bytes", "bfloat16", 7, my_tasks]
    assert [comparison[name] for name in ("num_fewshot", "draws", "limit")] == [6, draws, limit]
    folders = [str(values["output"]) for _, values in parsed[: len(made_by)]]
    assert folders[0] == "DIR" and comparison["adapter"] == folders[-1:] and len(comparison["control"]) == 1
    assert [values["adapter"] for _, values in parsed[1 : len(made_by)]] == folders[:-1]
    values = {"dtype": loaded.dtype, "include_path": str(my_tasks), "folder": edited_folder(edit)}
    measured: Any = SimpleNamespace(model="bytes", **values)
    ((name, effects),) = parse(effects_command(measured))
    assert name == "effects" and effects["adapter"] == comparison["adapter"]  # after pruning and fitting the gate
    assert [effects[name] for name in ("model", "dtype", "include_path")] == ["bytes", loaded.dtype, my_tasks]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"layers": (0, 2), "bound": 0.5},
        {"rotation": "givens", "sites": "mlp"},
        {"apply_chat_template": False},
        {"retain": ("synth_color",)},
        {"search": "bo", "trials_per_step": 2},
    ],
)
def test_settings_of_the_edit_that_are_no_fields_of_a_comparison(change: dict[str, Any]) -> None:
    fields = {"num_fewshot": 2, "seed": 3, "num_samples": 9}
    provenance = {**TaRotConfig(**{"task": "own_choice", **fields, **change}).to_dict(), "budget": 7}
    edit: Any = SimpleNamespace(provenance=provenance)
    expected = {name: value for name, value in change.items() if name != "search"}
    assert edit_settings(edit) == expected
    provenance |= {"pick": "3", "pruned": {"keep": 0.25, "before": {"keep": 0.5}}, "gate": {"layer": 0}}
    assert edit_settings(edit) == {**expected, "pick": "3", "keep": (0.5, 0.25), "gate": True}


def test_the_command_repeats_the_comparison(loaded: LoadedModel, folder: Path) -> None:
    named = replace(loaded, reference="a model")
    edit = tuned(loaded, folder, space="head")
    edit = replace(edit, provenance={**edit.provenance, "seed": 5, "budget": 9})
    assert repeat_command(named, edit, num_fewshot=6, limit=40, include_path="my tasks") == (
        "tarot tune --model 'a model' --tasks own_choice --include-path 'my tasks' --num-samples 6 --space head "
        "--seed 5 --max-kl 0.02 --budget 9 --output-path DIR && "
        "tarot compare --model 'a model' --dtype float32 --adapter DIR --num-fewshot 6 "
        "--include-path 'my tasks' --limit 40"
    )
    assert repeat_command(named, edit, num_fewshot=6, draws=5).endswith("--adapter DIR --num-fewshot 6 --draws 5")
    control = replace(edit, provenance={**edit.provenance, "search": "paper", "budget": 8, "max_kl": None})
    with_control = repeat_command(replace(loaded, reference="m"), edit, num_fewshot=6, controls=[control])
    assert with_control.count("--search paper") == 1
    assert "--search paper --seed 5 --max-kl none --budget 8 --output-path DIR-paper" in with_control
    assert with_control.endswith(
        "tarot compare --model m --dtype float32 --adapter DIR --control DIR-paper --num-fewshot 6"
    )
    again = replace(control, provenance={**control.provenance, "budget": 12})
    with_both = repeat_command(replace(loaded, reference="m"), edit, controls=[control, again])
    assert "--budget 8 --output-path DIR-paper &&" in with_both
    assert "--budget 12 --output-path DIR-paper2 &&" in with_both
    assert "--control DIR-paper --control DIR-paper2" in with_both
    for space, option in (("head", ""), ("full", " --space full")):  # a default is left out
        bo = tuned(loaded, folder, search="bo", space=space)
        assert repeat_command(loaded, bo, num_fewshot=6).startswith(
            f"tarot tune --model bytes --tasks own_choice --num-samples 6{option} --search bo --max-kl none --budget 3 "
        )


@pytest.mark.parametrize("limit", [0.02, 0.03])
def test_a_limit_is_written_even_where_it_is_the_default(limit: float) -> None:
    """The default has changed before; the command of an older result must not take the new one."""
    provenance = {**TaRotConfig("own_choice", max_kl=limit).to_dict(), "budget": 9}
    edit: Any = SimpleNamespace(provenance=provenance, has_other_weights=lambda model: False)
    model: Any = SimpleNamespace(reference="m", dtype="auto", model=None)
    assert f" --max-kl {limit:g} --budget 9 " in repeat_command(model, edit)


def test_the_command_makes_the_edit_that_was_measured(loaded: LoadedModel, folder: Path) -> None:
    """The command repeats dtypes and pruning and quotes names; `not_repeated` names what it does not repeat."""
    edit = tuned(loaded, folder)
    provenance = {**edit.provenance, "dtype": "bfloat16", "task": "my choice; x", "pruned": {"keep": 0.9}}
    line = repeat_command(
        LoadedModel("bytes", byte_model().half(), byte_tokenizer()), replace(edit, provenance=provenance), num_fewshot=6
    )
    tune, prune, comparison = line.split(" && ")
    assert "--tasks 'my choice; x' --dtype bfloat16 " in tune and tune.endswith("--output-path DIR")
    assert prune == "tarot prune --model bytes --dtype bfloat16 --adapter DIR --keep 0.9 --output-path DIR-pruned"
    assert comparison == "tarot compare --model bytes --dtype float16 --adapter DIR-pruned --num-fewshot 6"
    assert not not_repeated(edit)
    again = replace(edit, provenance={**provenance, "pruned": {"keep": 0.9, "before": {"keep": 0.95, "before": None}}})
    assert not_repeated(again) == "pruned more than once" and not not_repeated(replace(edit, provenance=provenance))
    stopped = replace(edit, provenance={**edit.provenance, "interrupted": True, "spent": 2})
    scaled = stopped.scaled(0.5).scaled(0.5)
    assert not_repeated(scaled) == "its search stopped after 2 of 3 evaluations, scaled by 0.25"
    assert edit_settings(scaled) == {"scale": 0.25, "stopped_after": 2}
    stopped = replace(stopped, provenance={**stopped.provenance, "bound": 0.5})
    compared = compare(loaded.model, loaded.tokenizer, stopped, include_path=folder, limit=2)
    assert compared.not_repeated.startswith("its search stopped") and compared.settings == {
        "bound": 0.5,
        "stopped_after": 2,
    }


def test_the_command_tunes_on_the_model_that_the_adapter_was_tuned_on(loaded: LoadedModel, folder: Path) -> None:
    edit = tuned(loaded, folder)
    known = {"model": "bytes", "model_weights": weights_fingerprint(loaded.model)}
    edit = replace(edit, provenance={**edit.provenance, **known})
    assert " --model bytes " in repeat_command(loaded, edit) and "#" not in repeat_command(loaded, edit)
    other = LoadedModel("mine", byte_model(seed=1), byte_tokenizer())
    tune, comparison = repeat_command(other, edit).split(" && ")
    assert " --model bytes " in tune and " --model mine " in comparison and "#" not in comparison
    assert "# the model had other weights when tuning DIR" in repeat_command(replace(other, reference="bytes"), edit)
