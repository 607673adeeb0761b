"""Recipes of `tarot tune` and `tarot bench`: a YAML file with values of the command's options."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from annotated_types import Ge, Gt, Interval, MinLen
from pydantic import with_config
from typing_extensions import TypedDict

from tarot._files.strict_json import Name, Number
from tarot.cli.options import path
from tarot.edit.layers import format_layers

RECIPE = "recipe.yml"  # as tarot.search.folder, without the import

_Positive = Annotated[int, Interval(ge=1, lt=2**53)]
_Count = Annotated[int, Interval(ge=0, lt=2**53)]
_Seed = Annotated[int, Interval(gt=-(2**63), lt=2**63)]
_Shots = _Count | Literal["mix"]
_Search = Literal["adam", "bo", "bo-gradient", "paper", "policy-gradient", "random"]
_Space = Literal["full", "head"]
_Layers = Number | Annotated[list[_Count], MinLen(1)]
_MaxKl = Annotated[Number, Gt(0)] | Literal["auto", "none"]


@with_config(extra="forbid")
class TuneRecipe(TypedDict, total=False):
    """Settings of `tarot tune`: the fields of `TaRotConfig`, and what is not part of it."""

    model: Name
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    include_path: Name
    budget: _Positive
    task: Name
    num_fewshot: _Shots
    num_samples: _Positive
    space: _Space
    search: _Search
    objective: Name
    reward: Name
    sites: Literal["heads", "mlp"]
    layers: _Layers
    bound: Annotated[Number, Gt(0)]
    rotation: Literal["rotary", "givens", "scale"]
    seed: _Seed
    apply_chat_template: bool
    trials_per_step: _Positive
    fluency_floor: Name
    max_kl: _MaxKl
    retain: list[Name]
    cross_validate: bool
    pick: Annotated[Number, Ge(0)]


@with_config(extra="forbid")
class BenchRecipe(TypedDict, total=False):
    """Settings of `tarot bench`; where a list is allowed, each value makes cells of its own."""

    model: Name | Annotated[list[Name], MinLen(1)]
    tasks: Name | Annotated[list[Name], MinLen(1)]
    include_path: Name
    limit: Annotated[Number, Gt(0)]
    num_fewshot: _Shots | Annotated[list[_Shots], MinLen(1)]
    draws: _Count
    max_kl: _MaxKl
    retain: list[Name]
    layers: _Layers
    baseline: Name | Annotated[list[Name], MinLen(1)]
    search: _Search | Annotated[list[_Search], MinLen(1)]
    space: _Space
    num_samples: _Positive
    budget: _Positive
    seeds: _Seed | Annotated[list[_Seed], MinLen(1)]


PARAMETERS = {"task": "tasks"}
"""Parameters of the commands whose names differ from the recipe's keys."""


def _reader(schema: Any) -> "Callable[[typer.Context, Path | None], Path | None]":
    def read(context: typer.Context, file: Path | None) -> Path | None:
        if file is not None and not context.resilient_parsing:
            from tarot._files.recipe_file import read_recipe

            repeatable = {option.name for option in context.command.params if getattr(option, "multiple", False)}
            values = {PARAMETERS.get(name, name): value for name, value in read_recipe(file, schema).items()}
            context.default_map = {name: _option_value(name, values[name], name in repeatable) for name in values}
        return file

    return read


def _option_value(name: str, value: Any, repeatable: bool) -> Any:
    """Return a value of a recipe as the command line has it."""
    if repeatable:
        return value if isinstance(value, list) else [value]
    if name == "layers":
        return format_layers(tuple(value) if isinstance(value, list) else float(value))
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, bool) else str(value)


def requested_by_user(context: typer.Context, option: typer.CallbackParam, name: str | None) -> str | None:
    """Return an objective or a reward; TarotError if only a recipe names it, and it runs code or loads a model."""
    source = context.get_parameter_source(str(option.name))
    if name and source and source.name == "DEFAULT_MAP":
        from tarot.objectives.rewards.registry import refuse_unrequested

        refuse_unrequested(name.removeprefix("model:"), "the recipe", str(option.name))
    return name


def _argument(schema: Any) -> Any:
    """Return a command's argument for a recipe, whose values become the defaults of its options."""
    return typer.Argument(
        parser=path,
        metavar="RECIPE.yaml",
        help="File with values of the options below; options on the command line override it.",
        is_eager=True,
        callback=_reader(schema),
        show_default=False,
    )


TuneRecipeFile = Annotated[Path | None, _argument(TuneRecipe)]
BenchRecipeFile = Annotated[Path | None, _argument(BenchRecipe)]
