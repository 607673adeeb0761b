"""Callbacks of `tune` are called in order, once, and learn how the search ended."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tarot.edit.adapter import Adapter
from tarot.models.loaded_model import LoadedModel
from tarot.search.callbacks import Callback
from tarot.search.config import TaRotConfig
from tarot.search.loop import SearchResult
from tarot.search.trials import Trial
from tarot.search.tune import tune

CONFIG = TaRotConfig("own_choice", num_samples=4, search="random", space="head")


class Record(Callback):
    """Keep the calls, and raise an exception after a trial."""

    def __init__(self, fail_after: int = -1, error: type[BaseException] = RuntimeError) -> None:
        self.calls: list[Any] = []
        self.fail_after, self.error = fail_after, error

    def on_search_begin(self, config: TaRotConfig, *, model: str, budget: int, resumed: Sequence[Trial]) -> None:
        self.calls.append((config, model, budget, len(resumed)))

    def on_trial(self, trial: Trial, result: SearchResult) -> None:
        self.calls.append(trial.index)
        assert result.trials[-1] is trial
        if trial.index == self.fail_after:
            raise self.error

    def on_search_end(self, adapter: Adapter | None) -> None:
        self.calls.append(adapter and adapter.fingerprint)


def searched(loaded: LoadedModel, tasks: Path, *callbacks: Callback, **options: Any) -> Adapter:
    return tune(loaded.model, loaded.tokenizer, CONFIG, include_path=tasks, budget=4, callbacks=callbacks, **options)


def test_each_callback_is_called_at_the_start_after_each_trial_and_at_the_end(
    loaded: LoadedModel, tasks_folder: Path
) -> None:
    first, second = Record(), Record()
    adapter = searched(loaded, tasks_folder, first, second)
    assert first.calls == [(CONFIG, "LlamaForCausalLM", 4, 0), 0, 1, 2, 3, adapter.fingerprint] == second.calls
    assert adapter.fingerprint == searched(loaded, tasks_folder).fingerprint


def test_a_resumed_search_passes_the_trials_it_has(loaded: LoadedModel, tasks_folder: Path, tmp_path: Path) -> None:
    searched(loaded, tasks_folder, Record(1, KeyboardInterrupt), output_dir=tmp_path)
    again = Record()
    searched(loaded, tasks_folder, again, output_dir=tmp_path, resume=True)
    assert again.calls[0][-1] == 2 and again.calls[1:-1] == [2, 3]


def test_an_interrupted_search_ends_with_its_adapter(loaded: LoadedModel, tasks_folder: Path) -> None:
    record = Record(1, KeyboardInterrupt)
    adapter = searched(loaded, tasks_folder, record)
    assert adapter.provenance["interrupted"] and record.calls[-1] == adapter.fingerprint


@pytest.mark.parametrize("failing", [0, 1])
def test_an_exception_of_one_callback_ends_all(loaded: LoadedModel, tasks_folder: Path, failing: int) -> None:
    records = [Record(), Record()]
    records[failing] = Record(1)
    with pytest.raises(RuntimeError):
        searched(loaded, tasks_folder, *records)
    assert [record.calls[-1] for record in records] == [None, None]
    assert [record.calls.count(None) for record in records] == [1, 1]


def test_a_callback_that_cannot_begin_ends_those_that_began(loaded: LoadedModel, tasks_folder: Path) -> None:
    class Refuse(Record):
        def on_search_begin(self, *_: object, **__: object) -> None:
            raise RuntimeError("no server")

    began, refusing = Record(), Refuse()
    with pytest.raises(RuntimeError, match="server"):
        searched(loaded, tasks_folder, began, refusing)
    assert began.calls == [(CONFIG, "LlamaForCausalLM", 4, 0), None] and refusing.calls == []


def test_the_base_class_does_nothing(loaded: LoadedModel, tasks_folder: Path) -> None:
    assert searched(loaded, tasks_folder, Callback()).provenance["trials"] == 4
