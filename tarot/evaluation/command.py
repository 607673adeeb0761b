"""FIXME: one sentence on this module."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tarot.edit.adapter import Adapter
from tarot.evaluation.as_tuned import config_of
from tarot.models.loaded_model import LoadedModel
from tarot.search.config import TaRotConfig


def repeat_command(
    loaded: LoadedModel,
    adapter: Adapter,
    shots: int | None,
    draws: int = 0,
    limit: int | None = None,
    include_path: str | Path | None = None,
    controls: Sequence[Adapter] = (),
    reward: str | None = None,
) -> str:
    """Shell line that repeats a cell; each control's search gets a folder of its own, named by it.

    Rewarded texts have no shots: None leaves them out. `not_repeated` says what the line does not do again.
    """
    options = [f"--include-path {shlex.quote(str(include_path))}"] if include_path else []
    searched = {"DIR": adapter, **{f"DIR-{config_of(control).search}": control for control in controls}}
    made = {folder: _steps(loaded.reference, edit, folder, options) for folder, edit in searched.items()}
    (edited, *beside) = (folder for _, folder in made.values())
    arms = [] if shots is None else [f"--shots {shots}", *([f"--draws {draws}"] if draws else [])]
    arms += [f"--reward {shlex.quote(reward)}"] if reward else []
    compare = [
        "tarot compare",
        f"--model {shlex.quote(loaded.reference)}",
        *_dtype(loaded.dtype),
        f"--adapter {edited}",
        *(f"--control {folder}" for folder in beside),
        *arms,
        *options,
        *([f"--limit {limit}"] if limit else []),
    ]
    return " && ".join([*(step for steps, _ in made.values() for step in steps), " ".join(compare)])


def not_repeated(adapter: Adapter) -> str:
    """What became of an edit that its command does not repeat, in words; empty for one that a search ended with."""
    said, words = adapter.provenance, []
    if said.get("interrupted"):
        words.append(f"its search stopped after {said.get('spent')} of {said['budget']} evaluations")
    parents: Any = said.get("parents", ())
    words += [f"scaled by {parent['strength']:g}" for parent in parents]
    pruned: Any = said.get("pruned")
    if pruned and pruned.get("before"):
        words.append("pruned more than once")
    return ", ".join(words)


def _steps(model: str, adapter: Adapter, folder: str, options: list[str]) -> tuple[list[str], str]:
    """Command lines that make an edit, and the folder that it is in then."""
    config, said = config_of(adapter), adapter.provenance
    # What each field is where it is left out, a space by its search and a search by its objective.
    search = TaRotConfig(config.task, objective=config.objective).search
    default = replace(TaRotConfig(config.task, search=config.search), search=search)
    reference = f"--model {shlex.quote(model)}"
    changed = [
        f"--{name.replace('_', '-')} {shlex.quote(_text(value))}"
        for name, value in vars(config).items()
        if name not in ("task", "apply_chat_template") and value != getattr(default, name)
    ]
    dtype = _dtype(str(said.get("dtype", "auto")))
    tune = ["tarot tune", reference, f"--task {shlex.quote(config.task)}", *dtype, *options, *changed]
    tune += [f"--budget {said['budget']}", *([] if config.apply_chat_template else ["--no-chat"]), f"--output {folder}"]
    pruned: Any = said.get("pruned")
    if not pruned:
        return [" ".join(tune)], folder
    prune = ["tarot prune", reference, *dtype, f"--adapter {folder}", *options, f"--keep {pruned['keep']:g}"]
    return [" ".join(tune), " ".join([*prune, f"--output {folder}-pruned"])], f"{folder}-pruned"


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _dtype(dtype: str) -> list[str]:
    return [] if dtype == "auto" else [f"--dtype {shlex.quote(dtype)}"]
