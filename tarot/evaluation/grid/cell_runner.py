"""Run the cells of a grid in one process, which keeps models, adapters and base answers from cell to cell.

torch is imported when the first cell runs: pytest and `--help` import this module too.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tarot.errors import TarotError
from tarot.evaluation.grid.grid import CellRequest, CellResult

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter
    from tarot.evaluation.results.comparison import Comparison
    from tarot.models.loaded_model import LoadedModel

logger = logging.getLogger("tarot")


class ModelCache(dict[str, "LoadedModel"]):
    """Models and tokenizers by their reference, each loaded on first use; errors as for `load_model`."""

    def __init__(self, device: str = "auto", device_map: str | None = None) -> None:
        super().__init__()
        self.device = device
        self.device_map = device_map

    def __missing__(self, reference: str) -> "LoadedModel":
        from tarot.models.load import load_model

        self[reference] = loaded = load_model(reference, device=self.device, device_map=self.device_map)
        return loaded


@dataclass
class CellRunner:
    """Tune and compare the adapters of cells.

    Attributes:
        work: folder of the searches, which all processes share; an interrupted search is resumed.
        models: the models to run.
        notes: what happened to searches that were interrupted or damaged, one line each; extended.
        adapters: adapters so far, with their folders.
        base_answers: answers of unedited models so far.
        on_phase: called with what is being done, such as `edited, arm 3 of 7: scoring answers`, again and again.
        checked: requests that can be run, as far as is known without a model.
    """

    work: Path
    models: ModelCache
    notes: list[str] = field(default_factory=list)
    adapters: dict[tuple[CellRequest, "LoadedModel"], tuple["Adapter", Path]] = field(default_factory=dict)
    base_answers: dict[Any, Any] = field(default_factory=dict)
    on_phase: Callable[[str], None] = lambda phase: None
    checked: set[CellRequest] = field(default_factory=set)

    def tune(self, request: CellRequest, model: "LoadedModel") -> tuple["Adapter", Path]:
        """Return the adapter that the request's search finds, or has found, and its folder.

        Raises:
            TarotError: `tarot.tune` raises it.
        """
        from tarot.evaluation.grid.adapter_cache import tune_cached

        if (request, model) not in self.adapters:
            self.adapters[request, model] = tune_cached(
                model,
                request.config(),
                self.work,
                budget=request.budget,
                include_path=request.include_path,
                notify=self.notes.append,
                on_phase=lambda phase: self.on_phase(f"tuning by {request.search}: {phase}"),
            )
        return self.adapters[request, model]

    def compare(self, request: CellRequest, model: "LoadedModel") -> "Comparison":
        """Tune the request's adapter, and compare it with its baselines on the same documents.

        Raises:
            TarotError: `tarot.tune` or `tarot.compare` raises it.
        """
        from tarot.evaluation.compare import compare
        from tarot.models.lm_eval_bars import bars_as_steps
        from tarot.search.folder import read_curve
        from tarot.search.pareto import read_trade_off

        self.check(request)  # before a search takes minutes
        adapter, folder = self.tune(request, model)
        arm = ""

        def begin_arm(name: str, number: int, total: int) -> None:
            nonlocal arm
            arm = f"{name}, arm {number} of {total}"
            self.on_phase(arm)

        with bars_as_steps(lambda step, done, total: self.on_phase(f"{arm}: {step}")):
            return compare(
                model.model,
                model.tokenizer,
                adapter,
                include_path=request.include_path,
                limit=request.limit,
                curves={request.search: read_curve(folder, request.search)},
                trade_off=read_trade_off(folder),
                draws=request.draws,
                baselines=request.baselines,
                base_answers=self.base_answers,
                on_arm=begin_arm,
            )

    def check(self, request: CellRequest) -> None:
        """Check a request and its task as far as possible without its model, and before a search takes minutes.

        Raises:
            TarotError: the request cannot be run.
        """
        from tarot.evaluation.baselines.requirements import check_requirements
        from tarot.evaluation.evaluate import check_tasks
        from tarot.evaluation.lm_eval_results import check_scorable
        from tarot.objectives.tasks.task_loading import load_task
        from tarot.search.problem import check_samples

        if request in self.checked:
            return
        request.check()
        for task in check_tasks([request.task], include_path=request.include_path, limit=request.limit):
            check_scorable(task)
        check_requirements(request.baselines, load_task(request.task, request.include_path), request.config())
        check_samples(request.config(), request.include_path)
        self.checked.add(request)

    def run(self, request: CellRequest) -> CellResult:
        """Run a cell; any error but Ctrl-C becomes the result, so that the other cells go on."""
        self.notes.clear()
        try:
            self.check(request)
            model = self.models[request.model]
            comparison = self.compare(request, model)
            return CellResult(comparison, str(self.tune(request, model)[1]), notes=tuple(self.notes))
        except TarotError as error:
            return CellResult(error=str(error), notes=tuple(self.notes))
        except Exception as error:
            logger.debug("%s", request.id, exc_info=True)
            return CellResult(error=" ".join(f"{type(error).__name__}: {error}".split()), notes=tuple(self.notes))
