"""Black-box objective: any number that a function measures on the edited model.

The name `model` stands for a function that is passed to `tarot.tune`; `model:MODULE:FUNCTION` names one to import. A
reward (`tarot.objectives.rewards.registry`) reads prompts and continuations; this function gets the model itself.
"""

import importlib
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.rotation import Angles, Rotation
from tarot.edit.sites import Site
from tarot.errors import InvalidValueError, TarotError, UnknownName
from tarot.objectives.objective import Evaluation, Objective

BLACK_BOX = "model"

# (edited model, tokenizer) -> score, or (score, standard error); higher is better. With a `Serve`, the first argument
# is what that yields.
ModelFunction = Callable[[Any, PreTrainedTokenizerBase], float | tuple[float, float]]
# (unedited model, adapter) -> a context that yields what answers for the edited model, such as an engine
Serve = Callable[[PreTrainedModel, Adapter], AbstractContextManager[Any]]


def is_black_box(name: str) -> bool:
    """Return whether an objective of this name is a function of the edited model.

    Example:
        >>> is_black_box("model"), is_black_box("model:mine:f"), is_black_box("mine:f")
        (True, True, False)
    """
    return name == BLACK_BOX or name.startswith(f"{BLACK_BOX}:")


def check_black_box_name(name: str) -> None:
    """Raise UnknownName for a name that is neither `model` nor `model:MODULE:FUNCTION`; nothing is imported."""
    if name != BLACK_BOX and not re.fullmatch(rf"{BLACK_BOX}:[\w.]+:\w+", name):
        raise UnknownName("objective", name, [BLACK_BOX, f"{BLACK_BOX}:MODULE:FUNCTION"])


def resolve_function(name: str, passed: ModelFunction | None) -> ModelFunction:
    """Return the function that was passed, or import the one that the user named.

    Raises:
        TarotError: neither or both are given, or the function cannot be imported.
    """
    if name == BLACK_BOX:
        if passed is None:
            raise InvalidValueError("The objective 'model' needs a function: tune(..., objective=function).")
        return passed
    if passed is not None:
        raise InvalidValueError(
            f"objective= is given, and the configuration names {name!r}; set its objective to 'model'."
        )
    return import_function(*name.removeprefix(f"{BLACK_BOX}:").split(":"))


def import_function(module: str, name: str, arguments: str = "model, tokenizer") -> Callable[..., Any]:
    """Import a user's function, from the working folder too.

    Raises:
        TarotError: the module cannot be imported, or has no such function.
    """
    sys.path.insert(0, str(Path.cwd()))
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing the module can raise anything
        reason = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise TarotError(f"the function {name} of the module {module}", reason) from error
    finally:
        sys.path.remove(str(Path.cwd()))
    if not callable(function):
        raise TarotError(f"a function {module}:{name}({arguments})", type(function).__name__)
    return function


@contextmanager
def merged(model: PreTrainedModel, adapter: Adapter) -> Iterator[PreTrainedModel]:
    """Yield the edited model; the edit is gone on exit."""
    with adapter.apply(model):
        yield model


class BlackBoxObjective(Objective):
    """Score an edit by a function of the edited model. It has no gradient.

    Args:
        model: the model that is edited; unchanged after every call.
        tokenizer: the model's tokenizer.
        function: measures the edited model.
        edit: where and how to rotate.
        sites: the same, in the model.
        rotation: how angles become a rotation.
        serve: turns the unedited model and an adapter into the function's first argument; None edits the model itself.

    Example:
        >>> from tarot.edit.rotation import ROTARY
        >>> def mean_logit(model, tokenizer):
        ...     return float(model(**tokenizer("It is", return_tensors="pt")).logits.mean())
        >>> sites = adapter.find_sites(model)
        >>> objective = BlackBoxObjective(
        ...     model, tokenizer, mean_logit, edit=adapter.edit, sites=sites, rotation=ROTARY
        ... )
        >>> objective.measure(adapter.angles).error
        0.0
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        function: ModelFunction,
        *,
        edit: Edit,
        sites: Sequence[Site],
        rotation: Rotation,
        serve: Serve | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.function = function
        self.edit = edit
        self.sites = tuple(sites)
        self.rotation = rotation
        self.serve = serve or merged

    def measure(self, angles: Angles) -> Evaluation:
        """Measure the edit of these angles (radians); a score that is not finite is a failed trial.

        Raises:
            TarotError: the function raises an exception, or returns neither a number nor a pair of numbers.
        """
        with torch.no_grad(), self.serve(self.model, Adapter(angles, self.edit, {})) as served:
            try:
                returned = self.function(served, self.tokenizer)
            except Exception as raised:
                expected = "the objective to measure the edited model"
                hint = "a reward of prompts and continuations is --reward, or the configuration's objective"
                raise TarotError(expected, f"{type(raised).__name__}: {raised}", hint) from raised
        score, error = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, 0.0)
        try:
            measured = Evaluation(float(score), error=float(error))
        except (TypeError, ValueError) as wrong:
            expected = "a number, or a number and its standard error, from the objective"
            raise TarotError(expected, f"{type(returned).__name__}") from wrong
        if not 0 <= measured.error < math.inf:
            raise TarotError("a standard error of at least 0 from the objective", str(measured.error))
        return measured
