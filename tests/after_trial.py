"""A callback that calls a function after each trial."""

from collections.abc import Callable

from tarot.search.callbacks import Callback
from tarot.search.loop import SearchResult
from tarot.search.trials import Trial


class AfterTrial(Callback):
    """Call a function with the trial and the result so far."""

    def __init__(self, function: Callable[[Trial, SearchResult], object]) -> None:
        self.function = function

    def on_trial(self, trial: Trial, result: SearchResult) -> None:
        self.function(trial, result)
