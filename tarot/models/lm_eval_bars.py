"""lm-eval's progress bars: hidden, or as steps that a command shows in its own way."""

import io
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

from lm_eval.api import task
from lm_eval.models import huggingface
from tqdm import tqdm

from tarot.models.progress import OnStep

STEPS = {
    "": "preparing prompts",
    "Tokenizing inputs": "preparing prompts",
    "Scoring answers": "scoring answers",
    "Running generate_until requests": "generating texts",
}
"""Text for users, by the description of the bar."""
LM = "tarot.models.lm_eval_model"


class SilentBar(tqdm):
    """A bar that draws nothing."""

    monitor_interval = 0  # no thread that redraws it

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "file": io.StringIO(), "leave": True})

    def display(self, *_: object, **__: object) -> None:
        """Draw nothing."""


@contextmanager
def bars_as_steps(on_step: OnStep) -> Iterator[None]:
    """Report lm-eval's bars inside the context to a function, instead of drawing them.

    The bars have no hook, so the name `tqdm` is replaced in the modules that draw them. Use it in one thread.

    Args:
        on_step: called with what is being done, how much of it is done, and how much there is.

    Example:
        >>> with bars_as_steps(lambda step, done, total: print(step) if done == total else None):
        ...     results = tarot.evaluate(model, tokenizer, "synth_color", limit=2)
        preparing prompts
        preparing prompts
        scoring answers
    """

    class StepBar(SilentBar):
        """A bar that reports how far it is."""

        def display(self, *_: object, **__: object) -> None:
            """Report it."""
            if self.total:
                description = self.desc.removesuffix(": ") if self.desc else ""
                on_step(STEPS.get(description, description), self.n, int(self.total))

    with _replaced_bars(StepBar):
        yield


def hidden_bars() -> AbstractContextManager[None]:
    """Draw none of lm-eval's bars inside the context. Inside `bars_as_steps` they are still reported."""
    return nullcontext() if issubclass(task.tqdm, SilentBar) else _replaced_bars(SilentBar)


@contextmanager
def _replaced_bars(bar: type[SilentBar]) -> Iterator[None]:
    with ExitStack() as stack:
        for module in (task, huggingface, sys.modules.get(LM)):
            if module is not None:
                stack.enter_context(mock.patch.object(module, "tqdm", bar))
        yield
