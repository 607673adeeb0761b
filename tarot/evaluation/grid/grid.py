"""Run a grid of models, tasks, shots, seeds and searches: one comparison a cell, kept in a file as it comes.

This module imports neither torch nor results before they are needed: pytest imports it in every run.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from tarot._files.lock import hold_lock
from tarot._files.paths import check_writable
from tarot.errors import TarotError, UnknownName

if TYPE_CHECKING:
    from tarot.evaluation.results.comparison import Comparison
    from tarot.search.config import TaRotConfig

ENGINES = ("local", "ray")
"""Where cells run: in this process, or on a Ray cluster."""
RETAINED_PROMPTS = files("tarot.objectives") / "retained_prompts.json"


@dataclass(frozen=True)
class CellRequest:
    """A cell to run: one comparison.

    Attributes:
        model: reference of the model.
        task: lm-eval task.
        num_fewshot: shots of the samples' prompts, or `mix`.
        seed: seed of the search.
        samples: labelled samples of the search.
        budget: evaluations of the search.
        search: name of the search.
        space: name of the search space; "" for the search's own.
        max_kl: limit of divergence, in nats a token; `auto` for the search's own, `none` for no limit.
        retain: tasks, or files of prompts relative to the current folder, that are retained beside tarot's own prompts.
        layers: fraction of the layers, or their indices.
        limit: only the first documents: a number, or a fraction below 1.
        include_path: folder of further task files.
        draws: further draws of few-shot examples.
        baselines: names of baselines to compare with.

    Example:
        >>> CellRequest("wheel:smollm2-135m", "synth_color", num_fewshot=2).id
        'wheel:smollm2-135m-synth_color-2shot-seed0-adam'
    """

    model: str
    task: str
    num_fewshot: int | str = 0
    seed: int = 0
    samples: int = 20
    budget: int = 120
    search: str = "adam"
    space: str = ""
    max_kl: float | str = "auto"
    retain: tuple[str, ...] = ()
    layers: float | tuple[int, ...] = 1.0
    limit: int | float | None = None
    include_path: str | None = None
    draws: int = 0
    baselines: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Name of the cell, such as pytest's for the parameter of a test."""
        shots = self.num_fewshot if self.num_fewshot == "mix" else f"{self.num_fewshot}shot"
        return f"{self.model}-{self.task}-{shots}-seed{self.seed}-{self.search}" if self.task else self.model

    def config(self) -> "TaRotConfig":
        """Return the configuration of the search.

        Raises:
            TarotError: no search accepts it.
        """
        from tarot.search.config import TaRotConfig

        return TaRotConfig(
            self.task,
            num_fewshot=self.num_fewshot,
            num_samples=self.samples,
            space=self.space,
            search=self.search,
            seed=self.seed,
            max_kl=None if self.max_kl == "none" else self.max_kl,
            retain=self.retain,
            layers=self.layers,
        )

    def check(self) -> None:
        """Raise TarotError for names and numbers that no search accepts; neither task nor model is loaded."""
        from tarot.evaluation.baselines.registry import check_baselines
        from tarot.objectives.tasks.task_names import check_task_names
        from tarot.search.tune import check_request

        check_baselines(self.baselines)
        check_task_names([self.task], self.include_path)
        check_request(self.config(), budget=self.budget)


@dataclass(frozen=True)
class CellResult:
    """The result of a cell: its comparison and its adapter's folder, or the line that says why there is none.

    Attributes:
        comparison: None if the cell failed.
        folder: folder of the adapter; "" if the cell failed.
        error: why the cell failed, in one line; "" if it did not.
        notes: what else a user should know, one line each.
    """

    comparison: "Comparison | None" = None
    folder: str = ""
    error: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Serialise the result for another machine."""
        from tarot.evaluation.results.results_file import comparison_to_values

        comparison = comparison_to_values(self.comparison) if self.comparison else None
        return json.dumps({**vars(self), "comparison": comparison}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "CellResult":
        """Return the result that `to_json` wrote."""
        from tarot.evaluation.results.results_file import comparison_from_values

        values = json.loads(text)
        comparison = comparison_from_values(values["comparison"]) if values["comparison"] else None
        return cls(comparison, values["folder"], values["error"], tuple(values["notes"]))


def run_grid(
    requests: Sequence[CellRequest],
    output: Path,
    run: Callable[[Sequence[CellRequest]], Iterable[tuple[CellRequest, CellResult]]],
    *,
    save: "Callable[[Sequence[Comparison], Path], None]",
    on_start: Callable[[int], None] = lambda n_done: None,
    on_result: Callable[[CellRequest, CellResult], None] = lambda request, result: None,
) -> "list[Comparison]":
    """Run the cells that a results file lacks, and write each comparison into it as it comes.

    Args:
        requests: the grid.
        output: results file, made with the first comparison. Its comparisons stay, and those of the grid are not run
            again: a comparison counts as there if its request, library versions, and files of model and tasks were the
            same.
        run: runs cells and yields their results, in any order.
        save: writes comparisons into the results file.
        on_start: called with the number of cells that are there.
        on_result: called after each cell that was run.

    Returns:
        The grid's comparisons in its order, without the cells that failed.

    Raises:
        TarotError: `output` is not a results file, or cannot be written.

    Example:
        >>> from tarot.report.results_csv import save_comparisons
        >>> request = CellRequest("gpt2", "synth_color")
        >>> run_grid([request], Path("bench.json"), run=lambda requests: [], save=save_comparisons)
        []
    """
    from tarot.evaluation.results.results_file import load_comparisons

    existing = load_comparisons(output) if output.exists() else []
    digests = {request: request_digest(request) for request in requests}
    by_digest = {comparison.request_digest: comparison for comparison in existing if comparison.request_digest}
    missing = [request for request in requests if digests[request] not in by_digest]
    on_start(len(requests) - len(missing))
    check_writable(output)  # here rather than after an hour
    if existing:
        _add(output, save)  # its table may be missing
    for request, result in run(missing):
        if result.comparison:
            digest = digests[request]
            by_digest[digest] = replace(result.comparison, request_digest=digest)
            _add(output, save, by_digest[digest])
        on_result(request, result)
    return [by_digest[digests[request]] for request in requests if digests[request] in by_digest]


def _add(output: Path, save: "Callable[[Sequence[Comparison], Path], None]", *comparisons: "Comparison") -> None:
    """Add comparisons to those that the file holds now: another process may have added its own meanwhile."""
    from tarot.evaluation.results.results_file import load_comparisons

    with hold_lock(output.with_name(f".{output.name}.lock")):
        existing = load_comparisons(output) if output.exists() else []
        digests = {comparison.request_digest for comparison in existing}
        new = [comparison for comparison in comparisons if comparison.request_digest not in digests]
        save([*existing, *new], output)


def request_digest(request: CellRequest) -> str:
    """Return a digest of everything that decides a comparison and is known before it runs."""
    from tarot.search.provenance import library_versions

    places = (request.model, request.include_path, os.environ.get("TAROT_DATA"), *request.retain)
    stamps = [_file_stamps(Path(place).expanduser()) for place in places if place]
    versions = list(library_versions().values())
    prompts = RETAINED_PROMPTS.read_text(encoding="utf-8")
    # The configuration has the values that defaults stand for.
    decisive = [asdict(request), request.config().to_dict(), stamps, versions, prompts]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]


def _file_stamps(place: Path) -> list[tuple[str, int, int]]:
    """Return name, size and modification time of a file or a folder's files: they tell another model in its place."""
    files = [place] if place.is_file() else sorted(place.rglob("*")) if place.is_dir() else []
    return [
        (str(file.relative_to(place)), (stat := file.stat()).st_size, stat.st_mtime_ns)
        for file in files
        if file.is_file() and "__pycache__" not in file.parts
    ]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse seeds: whole numbers, separated by commas.

    Raises:
        TarotError: anything else.

    Example:
        >>> parse_seeds("0,1,2")
        (0, 1, 2)
    """
    return tuple(_whole_number(part, text, "seeds as 0,1,2") for part in text.split(","))


def parse_shots(text: str) -> tuple[int | str, ...]:
    """Parse numbers of shots: whole numbers or `mix`, separated by commas.

    Raises:
        TarotError: anything else.

    Example:
        >>> parse_shots("0,mix")
        (0, 'mix')
    """
    return tuple(
        "mix" if part.strip() == "mix" else _whole_number(part, text, "shots as 0,6") for part in text.split(",")
    )


def parse_max_kl(text: str) -> float | str:
    """Parse a limit of divergence: nats a token, `auto` or `none`.

    Raises:
        TarotError: anything else.

    Example:
        >>> parse_max_kl("0.02"), parse_max_kl("none")
        (0.02, 'none')
    """
    if text.strip() in ("auto", "none"):
        return text.strip()
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise TarotError("nats a token such as 0.02, or auto, or none", repr(text))


def parse_engine(text: str) -> str:
    """Return a name in ENGINES.

    Raises:
        UnknownName: no such engine.
    """
    if text not in ENGINES:
        raise UnknownName("engine", text, ENGINES)
    return text


def _whole_number(part: str, text: str, expected: str) -> int:
    if not (part.strip().isascii() and part.strip().isdigit()):
        raise TarotError(expected, repr(text))
    return int(part)
