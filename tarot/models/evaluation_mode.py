"""Run a user's model in evaluation mode without gradients to its weights, and leave it as it was."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ParamSpec, TypeVar

from torch import nn

from tarot.edit.patch import restoring

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@contextmanager
def evaluation_mode(model: nn.Module, tokenizer: Any = None) -> Iterator[None]:
    """Switch off dropout and the gradients to all weights inside the context.

    On exit, also after an error, these are as before: the training flag of each module, `requires_grad` of each
    parameter, and the tokenizer's padding token, which lm-eval sets where there is none.

    Example:
        >>> from torch import nn
        >>> from tarot.models.evaluation_mode import evaluation_mode
        >>> dropout = nn.Dropout(0.5)
        >>> with evaluation_mode(dropout):
        ...     dropout.training
        False
        >>> dropout.training
        True
    """
    training = [(module, module.training) for module in model.modules()]
    differentiable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    padding = getattr(tokenizer, "pad_token", None)

    def restore() -> None:
        for module, flag in training:
            module.training = flag  # `train(flag)` would set the modules inside as well
        for parameter, flag in differentiable:
            parameter.requires_grad_(flag)
        if getattr(tokenizer, "pad_token", None) != padding:
            tokenizer.pad_token = padding

    with restoring(restore):
        model.eval().requires_grad_(False)
        yield


def in_evaluation_mode(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Run a function of `model, tokenizer, ...` within `evaluation_mode`.

    Arguments of other types are passed on unchanged, and the function refuses them.
    """

    @functools.wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        model, tokenizer, *_ = (*args[:2], *(kwargs.get(name) for name in ("model", "tokenizer")[len(args) :]))
        with evaluation_mode(model, tokenizer) if isinstance(model, nn.Module) else nullcontext():
            return function(*args, **kwargs)

    return run
