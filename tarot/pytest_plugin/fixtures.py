"""The fixtures `tarot_gain`, `tarot_adapter` and `tarot_model`, for the cell `tarot_setting` of a test."""

from typing import TYPE_CHECKING, NoReturn

import pytest

from tarot.errors import TarotError
from tarot.evaluation.grid.grid import CellRequest
from tarot.pytest_plugin.session import STATE

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter
    from tarot.models.loaded_model import LoadedModel
    from tarot.pytest_plugin.gain import TarotGain


@pytest.fixture(scope="session")
def tarot_setting(request: pytest.FixtureRequest) -> CellRequest:
    """The cell that the test measures, from its marker and the options; checked before its model is loaded."""
    if not hasattr(request, "param"):
        _fail(
            TarotError(
                "a model and a task to measure",
                "none, or a fixture requested by name at run time",
                "give --tarot-model and --tarot-tasks, or mark the test with @pytest.mark.tarot(model=..., task=...)",
            )
        )
    setting: CellRequest = request.param
    if setting.task:
        state = request.config.stash[STATE]
        try:
            if state.uses_ray:
                setting.check()  # the machines of a cluster check the task: they have its data
            else:
                state.runner.check(setting)
        except TarotError as error:
            _fail(error)
    return setting


@pytest.fixture(scope="session")
def tarot_model(tarot_setting: CellRequest, request: pytest.FixtureRequest) -> "LoadedModel":
    """Model and tokenizer, loaded once a session."""
    try:
        return request.config.stash[STATE].models[tarot_setting.model]
    except TarotError as error:
        _fail(error)


# The two fixtures below have the scope of a test, since a part of a suite may replace `tarot_model`. What is measured
# is kept in the state of the session, so that each cell is measured once.


@pytest.fixture
def tarot_adapter(tarot_setting: CellRequest, request: pytest.FixtureRequest) -> "Adapter":
    """The adapter that the cell's search finds, or has found in an earlier run."""
    state = request.config.stash[STATE]
    try:
        return state.tune(tarot_setting, None if state.uses_ray else request.getfixturevalue("tarot_model"))
    except TarotError as error:
        _fail(error)


@pytest.fixture
def tarot_gain(tarot_setting: CellRequest, request: pytest.FixtureRequest) -> "TarotGain":
    """The gains of the edited model over the base model and over few-shot prompting, on the same documents."""
    state = request.config.stash[STATE]
    model = None if state.uses_ray else request.getfixturevalue("tarot_model")
    if (tarot_setting, model) not in state.gains:
        from tarot.pytest_plugin.gain import TarotGain

        try:
            comparison = state.measure(tarot_setting, model)
            state.unsent.append(comparison)
            state.gains[tarot_setting, model] = TarotGain(comparison)
        except TarotError as error:
            state.gains[tarot_setting, model] = error
    gain = state.gains[tarot_setting, model]
    if isinstance(gain, TarotError):
        _fail(gain)
    return gain


def _fail(error: TarotError) -> NoReturn:
    raise pytest.fail.Exception(str(error), pytrace=False) from None
