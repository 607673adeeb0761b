"""Run a model in evaluation mode without gradients to its weights, and leave it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch off dropout and the gradients to all weights inside the context.

    The training flag of each module and `requires_grad` of each parameter are restored on exit, also after an error.

    Args:
        model: any module; its modules and parameters stay the same objects.

    Example:
        >>> from tarot.models.evaluation_mode import evaluation_mode
        >>> module = torch.nn.Dropout(0.5)
        >>> with evaluation_mode(module):
        ...     module.training
        False
        >>> module.training
        True
    """
    training = [(module, module.training) for module in model.modules()]
    differentiable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, flag in training:
            module.training = flag  # `train(flag)` would set all modules inside as well
        for parameter, flag in differentiable:
            parameter.requires_grad_(flag)
