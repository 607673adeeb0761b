"""Callbacks of a search, as transformers' `TrainerCallback`: what to do at its begin, after each trial and at its end.

A callback observes; it changes neither the search nor the edit. `tarot.search.trackers` has those for TensorBoard,
MLflow and W&B.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tarot.search.loop import SearchResult
from tarot.search.trials import Trial

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter
    from tarot.search.config import TaRotConfig


class Callback:
    """Base class of the callbacks of `tarot.tune`. Override the methods that you need; they do nothing here.

    An exception in a callback ends the search, whose trials so far are kept.

    Example:
        >>> class PrintScores(Callback):
        ...     def on_trial(self, trial, result):
        ...         print(f"trial {trial.index}, {result.spent} evaluations")
        >>> config = tarot.TaRotConfig("synth_color", num_samples=8)
        >>> adapter = tarot.tune(model, tokenizer, config, budget=6, callbacks=[PrintScores()])
        trial 0, 3 evaluations
        trial 1, 6 evaluations
    """

    def on_phase(self, phase: str) -> None:
        """Called before work without trials that takes a while; it may be before the search begins.

        Args:
            phase: what is being done, such as `reading prompts to retain`.
        """

    def on_search_begin(self, config: "TaRotConfig", *, model: str, budget: int, resumed: Sequence[Trial]) -> None:
        """Called once, before the first trial.

        Args:
            config: what is searched.
            model: reference of the model.
            budget: evaluations of the objective.
            resumed: trials of the log that the search continues; empty for a new search.
        """

    def on_trial(self, trial: Trial, result: SearchResult) -> None:
        """Called after each new trial, in order.

        Args:
            trial: the new trial.
            result: all trials so far, those of a resumed log included.
        """

    def on_search_end(self, adapter: "Adapter | None") -> None:
        """Called once for each `on_search_begin`.

        Args:
            adapter: the result, also of a search that Ctrl-C ended early; None if an exception ended the search.
        """


@contextmanager
def notify_callbacks(
    callbacks: Sequence[Callback], config: "TaRotConfig", *, model: str, budget: int, resumed: Sequence[Trial]
) -> "Iterator[Callable[[Adapter], None]]":
    """Call `on_search_begin` at the start, and `on_search_end` at the end however the body ends.

    Yields:
        A function to call with the adapter; without that call, `on_search_end` gets None.
    """
    adapters: list[Adapter] = []

    def end(callback: Callback) -> None:
        callback.on_search_end(adapters[-1] if adapters else None)

    with ExitStack() as stack:
        for callback in callbacks:
            callback.on_search_begin(config, model=model, budget=budget, resumed=resumed)
            stack.callback(end, callback)
        yield adapters.append
