"""The command that repeats a comparison."""

from dataclasses import replace
from pathlib import Path

from checkpoint import byte_model, byte_tokenizer
from test_compare import folder, loaded, tuned

from tarot.evaluation.command import not_repeated, repeat_command
from tarot.evaluation.compare import compare
from tarot.models.loaded_model import LoadedModel

__all__ = ["folder", "loaded"]  # fixtures


def test_the_command_repeats_the_comparison(loaded: LoadedModel, folder: Path) -> None:
    named = replace(loaded, reference="a model")
    edit = tuned(loaded, folder, space="head")
    edit = replace(edit, provenance={**edit.provenance, "seed": 5, "budget": 9})
    assert repeat_command(named, edit, num_fewshot=6, limit=40, include_path="my tasks") == (
        "tarot tune --model 'a model' --task own_choice --include-path 'my tasks' --num-samples 6 --space head "
        "--seed 5 --budget 9 --output-path DIR && "
        "tarot compare --model 'a model' --dtype float32 --adapter DIR --num-fewshot 6 "
        "--include-path 'my tasks' --limit 40"
    )
    assert repeat_command(named, edit, num_fewshot=6, draws=5).endswith("--adapter DIR --num-fewshot 6 --draws 5")
    control = replace(edit, provenance={**edit.provenance, "search": "paper", "budget": 8})
    with_control = repeat_command(replace(loaded, reference="m"), edit, num_fewshot=6, controls=[control])
    assert with_control.count("--search paper") == 1
    assert "--search paper --seed 5 --budget 8 --output-path DIR-paper" in with_control
    assert with_control.endswith(
        "tarot compare --model m --dtype float32 --adapter DIR --control DIR-paper --num-fewshot 6"
    )
    for space, option in (("head-gradient", ""), ("full", " --space full")):  # a default is left out
        bo = tuned(loaded, folder, search="bo", space=space)
        assert repeat_command(loaded, bo, num_fewshot=6).startswith(
            f"tarot tune --model bytes --task own_choice --num-samples 6{option} --search bo --budget 3 "
        )


def test_the_command_makes_the_edit_that_was_measured(loaded: LoadedModel, folder: Path) -> None:
    """The command repeats dtypes and pruning and quotes names; `not_repeated` names what it does not repeat."""
    edit = tuned(loaded, folder)
    provenance = {**edit.provenance, "dtype": "bfloat16", "task": "my choice; x", "pruned": {"keep": 0.9}}
    line = repeat_command(
        LoadedModel("bytes", byte_model().half(), byte_tokenizer()), replace(edit, provenance=provenance), num_fewshot=6
    )
    tune, prune, comparison = line.split(" && ")
    assert "--task 'my choice; x' --dtype bfloat16 " in tune and tune.endswith("--output-path DIR")
    assert prune == "tarot prune --model bytes --dtype bfloat16 --adapter DIR --keep 0.9 --output-path DIR-pruned"
    assert comparison == "tarot compare --model bytes --dtype float16 --adapter DIR-pruned --num-fewshot 6"
    assert not not_repeated(edit)
    again = replace(edit, provenance={**provenance, "pruned": {"keep": 0.9, "before": {"keep": 0.95, "before": None}}})
    assert not_repeated(again) == "pruned more than once" and not not_repeated(replace(edit, provenance=provenance))
    stopped = replace(edit, provenance={**edit.provenance, "interrupted": True, "spent": 2})
    assert not_repeated(stopped.scaled(0.5)) == "its search stopped after 2 of 3 evaluations, scaled by 0.5"
    assert compare(loaded.model, loaded.tokenizer, stopped, include_path=folder, limit=2).not_repeated.startswith(
        "its search stopped"
    )
