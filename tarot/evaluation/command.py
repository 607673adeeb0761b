"""The shell line that repeats a comparison."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tarot.edit.adapter import Adapter
from tarot.edit.layers import format_layers
from tarot.evaluation.as_tuned import config_of, kept_shares, scale_of
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.rewards.registry import is_reward


def repeat_command(
    loaded: LoadedModel,
    adapter: Adapter,
    *,
    num_fewshot: int | None = None,
    draws: int = 0,
    baselines: Sequence[str] = (),
    limit: int | float | None = None,
    include_path: str | Path | None = None,
    controls: Sequence[Adapter] = (),
    reward: str | None = None,
) -> str:
    """Return the shell line that tunes an adapter and its controls again and compares them.

    The adapter is written to DIR and each control to DIR-SEARCH, numbered where a search has several. `not_repeated`
    says what the line does not repeat. An adapter that was tuned on another model is tuned on that one again; a comment
    tells if nothing but its weights are other ones.
    """
    shared = [f"--include-path {shlex.quote(str(include_path))}"] if include_path else []
    edits = {"DIR": adapter}
    for control in controls:
        search = config_of(control).search
        n_others = sum(config_of(other).search == search for other in list(edits.values())[1:])
        edits[f"DIR-{search}{n_others + 1 if n_others else ''}"] = control
    models = {
        folder: edit.provenance.get("model") if edit.has_other_weights(loaded.model) else None
        for folder, edit in edits.items()
    }
    made = {
        folder: _making(str(models[folder] or loaded.reference), edit, folder, shared) for folder, edit in edits.items()
    }
    changed = [folder for folder, model in models.items() if model == loaded.reference]
    edited, *others = (folder for _, folder in made.values())
    compare = [
        "tarot compare",
        f"--model {shlex.quote(loaded.reference)}",
        *_dtype_option(loaded.dtype),
        f"--adapter {edited}",
        *(f"--control {folder}" for folder in others),
        *([] if num_fewshot is None else [f"--num-fewshot {num_fewshot}"]),
        *([f"--draws {draws}"] if draws else []),
        *(f"--baseline {name}" for name in baselines),
        *([f"--reward {shlex.quote(reward)}"] if reward else []),
        *shared,
        *([f"--limit {limit}"] if limit else []),
    ]
    command = " && ".join([*(line for lines, _ in made.values() for line in lines), " ".join(compare)])
    return f"{command}  # the model had other weights when tuning {' and '.join(changed)}" if changed else command


def not_repeated(adapter: Adapter) -> str:
    """Describe what became of an adapter that `repeat_command` does not repeat; "" if its search made it as it is."""
    provenance, notes = adapter.provenance, []
    if provenance.get("interrupted"):
        notes.append(f"its search stopped after {provenance.get('spent')} of {provenance['budget']} evaluations")
    if (scale := scale_of(provenance)) != 1:
        notes.append(f"scaled by {scale:g}")
    if len(kept_shares(provenance)) > 1:
        notes.append("pruned more than once")
    return ", ".join(notes)


def edited_folder(adapter: Adapter) -> str:
    """Return the folder in which `repeat_command` leaves an adapter."""
    return "-".join(["DIR", *(f"{step}d" for step in _later_steps(adapter))])


def _tune_options(adapter: Adapter) -> list[str]:
    """Return the options of `tarot tune` that differ from their defaults, except for task and budget."""
    config, provenance = config_of(adapter), adapter.provenance
    # The default of `max_kl` has changed before, and decides what a search finds.
    written = config.changed().keys() - {"task", "apply_chat_template", "cross_validate"} | {"max_kl"}
    options = [
        f"--{_option(name, value)} {shlex.quote(_argument(name, value))}"
        for name, value in vars(config).items()
        if name in written
    ]
    options += [] if config.apply_chat_template else ["--no-chat"]
    options += ["--cross-validate"] if config.cross_validate else []
    return options + ([f"--pick {shlex.quote(str(provenance['pick']))}"] if "pick" in provenance else [])


def _later_steps(adapter: Adapter) -> dict[str, list[str]]:
    """Return the commands that changed an adapter after its search, with their options."""
    pruned: Any = adapter.provenance.get("pruned")
    # The gate reads prompts before the edit, so it is the same fitted before or after pruning.
    later = {"prune": [f"--keep {pruned['keep']:g}"]} if pruned else {}
    return later | ({"gate": []} if adapter.provenance.get("gate") else {})


def _making(model: str, adapter: Adapter, folder: str, shared: list[str]) -> tuple[list[str], str]:
    """Return the lines that make an adapter, and the folder that they leave it in."""
    reference = f"--model {shlex.quote(model)}"
    dtype = _dtype_option(str(adapter.provenance.get("dtype", "auto")))
    tune = ["tarot tune", reference, f"--tasks {shlex.quote(config_of(adapter).task)}", *dtype, *shared]
    tune += [*_tune_options(adapter), f"--budget {adapter.provenance['budget']}", f"--output-path {folder}"]
    lines = [" ".join(tune)]
    for step, options in _later_steps(adapter).items():
        given = [reference, *dtype, f"--adapter {folder}", *shared, *options]
        folder = f"{folder}-{step}d"
        lines.append(" ".join([f"tarot {step}", *given, f"--output-path {folder}"]))
    return lines, folder


def _option(name: str, value: object) -> str:
    """Return the option of `tarot tune` that sets a field of the configuration."""
    return "reward" if name == "objective" and is_reward(str(value)) else name.replace("_", "-")


def _argument(name: str, value: Any) -> str:
    """Return the value as the option of `tarot tune` takes it."""
    if name == "layers":
        return format_layers(value)
    if name == "retain":
        return ",".join(value)
    return "none" if value is None else str(value)


def _dtype_option(dtype: str) -> list[str]:
    return [] if dtype == "auto" else [f"--dtype {shlex.quote(dtype)}"]
