"""The fixtures."""

from typing import TYPE_CHECKING, NoReturn

import pytest

from tarot.errors import TarotError
from tarot.evaluation.grid import CellRequest
from tarot.objectives.task_names import check_task_names
from tarot.pytest_plugin.session import STATE, from_ray, measured, measurer

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter
    from tarot.models.loaded_model import LoadedModel
    from tarot.pytest_plugin.measured import TarotGain


@pytest.fixture(scope="session")
def tarot_setting(request: pytest.FixtureRequest) -> CellRequest:
    """The cell that a test measures, from its marker and the options."""
    if not hasattr(request, "param"):
        _fail(
            TarotError(
                "a model and a task to measure",
                "none, or a fixture asked for by name at run time",
                "give --tarot-model and --tarot-task, or mark the test with @pytest.mark.tarot(model=..., task=...)",
            )
        )
    setting: CellRequest = request.param
    if setting.task:
        try:
            check_task_names([setting.task], setting.include_path)
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


@pytest.fixture
def tarot_adapter(tarot_setting: CellRequest, request: pytest.FixtureRequest) -> "Adapter":
    """The edit that the search of this cell finds, from the cache where it has been found before."""
    try:
        if request.config.stash[STATE].values["engine"] == "ray":
            return from_ray(request.config, tarot_setting)[0]
        return measurer(request.config).tune(tarot_setting, request.getfixturevalue("tarot_model"))[0]
    except TarotError as error:
        _fail(error)


@pytest.fixture
def tarot_gain(tarot_setting: CellRequest, request: pytest.FixtureRequest) -> "TarotGain":
    """Base, in-context and edited answers to the same documents, and the gains between them."""
    state = request.config.stash[STATE]
    # The model as a fixture, which a suite may have replaced; it is not needed here when Ray's machines load it.
    model = None if state.values["engine"] == "ray" else request.getfixturevalue("tarot_model")
    if (tarot_setting, model) not in state.gains:
        from tarot.pytest_plugin.measured import TarotGain

        try:
            comparison = measured(request.config, tarot_setting, model)
            state.unsent_cells.append(comparison)
            state.gains[tarot_setting, model] = TarotGain(comparison)
        except TarotError as error:
            state.gains[tarot_setting, model] = error
    found = state.gains[tarot_setting, model]
    if isinstance(found, TarotError):
        _fail(found)
    return found


def _fail(error: TarotError) -> NoReturn:
    pytest.fail(str(error), pytrace=False)
