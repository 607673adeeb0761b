"""models x tasks x shots x seeds x searches: what is asked for, a cell each, and how one process measures one.

No torch before a cell is measured: pytest and `--help` read this file too.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tarot._files.atomic import write_atomically
from tarot._files.lock import hold_lock
from tarot.errors import TarotError, UnknownName
from tarot.evaluation import results_file
from tarot.evaluation.results import Comparison

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter
    from tarot.models.loaded_model import LoadedModel
    from tarot.search.config import TaRotConfig

logger = logging.getLogger("tarot")

ENGINES = ("local", "ray")  # where cells are measured
FEW_SHOT_SHOTS = 6  # of the few-shot arm of a cell whose own prompts have none


@dataclass(frozen=True)
class CellRequest:
    """One cell to measure: what a grid, or a test's marker and options, amount to."""

    model: str
    task: str
    num_fewshot: int | str = 0
    seed: int = 0
    samples: int = 20
    budget: int = 120
    search: str = "adam"
    space: str = ""
    limit: int | None = None
    include_path: str | None = None
    control: tuple[str, ...] = ()
    draws: int = 5

    @property
    def id(self) -> str:
        """What pytest calls the test's parameter."""
        parse_shots = self.num_fewshot if self.num_fewshot == "mix" else f"{self.num_fewshot}shot"
        return f"{self.model}-{self.task}-{parse_shots}-seed{self.seed}" if self.task else self.model

    def config(self) -> "TaRotConfig":
        """Return what its search tries."""
        from tarot.search.config import TaRotConfig

        return TaRotConfig(
            self.task,
            num_fewshot=self.num_fewshot,
            num_samples=self.samples,
            space=self.space,
            search=self.search,
            seed=self.seed,
        )

    def check(self) -> None:
        """Raise TarotError for names and numbers that no search takes; no task and no model is loaded."""
        from tarot.objectives.task_names import check_task_names
        from tarot.search.tune import check_request

        check_task_names([self.task], self.include_path)
        for search in (self.search, *self.control):
            check_request(replace(self, search=search).config(), budget=self.budget)


@dataclass(frozen=True)
class CellResult:
    """What became of a setting: its cell and its adapter's folder, or one line that says why there is none.

    `words` are what happened on the way that is worth saying.
    """

    comparison: Comparison | None = None
    folder: str = ""
    error: str = ""
    words: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As text that another machine reads; cells have no other form there than in a file."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "CellResult":
        """The outcome that `to_json` wrote."""
        values = json.loads(text)
        comparison = results_file.comparison_from_values(values["cell"]) if values["cell"] else None
        return cls(**values | {"cell": comparison, "words": tuple(values["words"])})


class ModelCache(dict[str, "LoadedModel"]):
    """Models and tokenizers by their reference, each loaded when it is first asked for; errors as for `load_model`."""

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
    """What one process keeps from one cell to the next: models, adapters, answers of unedited models.

    Args:
        work: folder of the searches, in which one that was killed goes on; shared by all who measure.
        models: those to measure.
        words: is told what was done about a search that had not ended whole.
    """

    work: Path
    models: ModelCache
    words: list[str] = field(default_factory=list)
    adapters: dict[tuple[CellRequest, "LoadedModel"], tuple["Adapter", Path]] = field(default_factory=dict)
    base_answers: dict[Any, Any] = field(default_factory=dict)

    def tuned(self, setting: CellRequest, model: "LoadedModel") -> tuple["Adapter", Path]:
        """The edit that the setting's search finds, or has found before, and its folder.

        Raises:
            TarotError: what `tarot.tune` raises.
        """
        from tarot.evaluation.adapter_cache import tune_cached

        if (setting, model) not in self.adapters:
            self.adapters[setting, model] = tune_cached(
                model,
                setting.config(),
                self.work,
                budget=setting.budget,
                include_path=setting.include_path,
                say=self.words.append,
            )
        return self.adapters[setting, model]

    def comparison(self, setting: CellRequest, model: "LoadedModel") -> Comparison:
        """Base, in-context and edited answers to the same documents.

        Raises:
            TarotError: what `tarot.tune` and `compare` raise.
        """
        from tarot.evaluation.compare import compare
        from tarot.evaluation.lm_eval_results import check_scorable
        from tarot.objectives.task_loading import load_task
        from tarot.search.folder import read_curve

        check_scorable(load_task(setting.task, setting.include_path))  # before minutes are spent on a search
        found = {name: self.tuned(replace(setting, search=name), model) for name in (setting.search, *setting.control)}
        return compare(
            model.model,
            model.tokenizer,
            found[setting.search][0],
            shots=FEW_SHOT_SHOTS,
            include_path=setting.include_path,
            limit=setting.limit,
            curves={name: read_curve(folder, name) for name, (_, folder) in found.items()},
            controls={f"{name} search": adapter for name, (adapter, _) in found.items() if name != setting.search},
            draws=setting.draws,
            known=self.base_answers,
        )

    def check(self, setting: CellRequest) -> None:
        """Raise TarotError for a setting that cannot be measured, as far as that is known without its model."""
        from tarot.evaluation.evaluate import check_tasks
        from tarot.evaluation.lm_eval_results import check_scorable
        from tarot.search.problem import check_samples

        setting.check()
        for task in check_tasks([setting.task], include_path=setting.include_path, limit=setting.limit):
            check_scorable(task)
        check_samples(setting.config(), setting.include_path)

    def outcome(self, setting: CellRequest) -> CellResult:
        """Measure it; whatever goes wrong but Ctrl-C becomes the outcome, since other cells are to go on."""
        self.words.clear()
        try:
            with redirect_stderr(StringIO()):  # lm-eval's own bars
                self.check(setting)
                model = self.models[setting.model]
                comparison = self.comparison(setting, model)
            return CellResult(comparison, str(self.tuned(setting, model)[1]), words=tuple(self.words))
        except TarotError as error:
            return CellResult(error=str(error), words=tuple(self.words))
        except Exception as error:
            logger.debug("%s", setting.id, exc_info=True)
            return CellResult(error=" ".join(f"{type(error).__name__}: {error}".split()), words=tuple(self.words))


def run_grid(
    settings: Sequence[CellRequest],
    output: Path,
    run: Callable[[Sequence[CellRequest]], Iterable[tuple[CellRequest, CellResult]]],
    *,
    on_start: Callable[[int], None] = lambda done: None,
    on_outcome: Callable[[CellRequest, CellResult], None] = lambda setting, outcome: None,
) -> list[Comparison]:
    """Measure what a file of results lacks, and write each cell into it as it comes.

    Args:
        settings: the grid.
        output: file of cells; those that are there stay, and those of the grid are not measured again. One counts as
            there when the same was asked for, with the same library versions and files of model and tasks.
        run: measures settings, in any order.
        on_start: called with the number of cells that are there.
        on_outcome: called after each setting that was measured, or failed.

    Returns:
        The grid's cells, in its order, but for those that failed.

    Raises:
        TarotError: a file that is no results, or cannot be written.
    """
    kept = results_file.load_comparisons(output) if output.exists() else []
    asked = {setting: request_digest(setting) for setting in settings}
    known = {comparison.request_digest: comparison for comparison in kept if comparison.request_digest}
    todo = [setting for setting in settings if asked[setting] not in known]
    on_start(len(settings) - len(todo))
    _add(output)  # told before an hour of measuring, not after it
    for setting, outcome in run(todo):
        if outcome.comparison:
            known[asked[setting]] = comparison = replace(outcome.comparison, request_digest=asked[setting])
            _add(output, comparison)
        on_outcome(setting, outcome)
    return [known[asked[setting]] for setting in settings if asked[setting] in known]


def _add(output: Path, *comparisons: Comparison) -> None:
    """To those that the file holds now: another process may have added its own meanwhile."""
    with hold_lock(output.with_name(f".{output.name}.lock")):
        kept = results_file.load_comparisons(output) if output.exists() else []
        there = {comparison.request_digest for comparison in kept}
        new = [comparison for comparison in comparisons if comparison.request_digest not in there]
        write_atomically(output, results_file.comparisons_to_json([*kept, *new]).encode())


def request_digest(setting: CellRequest) -> str:
    """Digest of all that decides a cell and can be told without measuring it."""
    from tarot.search.provenance import LIBRARIES

    places = (setting.model, setting.include_path, os.environ.get("TAROT_DATA"))
    files = [_stamp(Path(place).expanduser()) for place in places if place]
    versions = [version(name) for name in LIBRARIES]
    return hashlib.sha256(json.dumps([asdict(setting), files, versions]).encode()).hexdigest()[:16]


def _stamp(place: Path) -> list[tuple[str, int, int]]:
    """Names, sizes and times of change of a file or a folder's files: another model in its place is another cell."""

    def files() -> Iterator[Path]:
        yield from [place] if place.is_file() else sorted(place.rglob("*")) if place.is_dir() else []

    return [
        (str(file.relative_to(place)), (stat := file.stat()).st_size, stat.st_mtime_ns)
        for file in files()
        if file.is_file() and "__pycache__" not in file.parts
    ]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Numbers from 0, separated by commas."""
    return _list(text, "seeds as 0,1,2")


def parse_shots(text: str) -> tuple[int | str, ...]:
    """Numbers from 0 or `mix`, separated by commas."""
    return tuple("mix" if part.strip() == "mix" else _list(part, "shots as 0,6", text)[0] for part in text.split(","))


def parse_engine(text: str) -> str:
    """A name in ENGINES."""
    if text not in ENGINES:
        raise UnknownName("engine", text, ENGINES)
    return text


def _list(text: str, expected: str, whole_text: str | None = None) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise TarotError(expected, repr(text if whole_text is None else whole_text))
    return tuple(map(int, parts))
