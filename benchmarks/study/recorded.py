"""The study's recorded cells: what each method answered, and its gains over another method."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.study import grid
from benchmarks.study.grid import Cell
from benchmarks.study.records import Record, read_records
from tarot.evaluation.results.comparison import Arm
from tarot.evaluation.results.metrics import METRICS
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.seeds import MeanGain, mean_over_settings

HEADLINE = "greedy_f1"
HELD_OUT = "unseen"  # what the records call the scores of held-out documents
RESAMPLES = 2000


@dataclass
class RecordedCells:
    """Records by cell and method.

    `repeated` holds those of a search that ran on further seeds because it was ahead of the default on seed 0.
    They count in no mean.
    """

    records: dict[Cell, dict[str, Record]]
    repeated: dict[Cell, dict[str, Record]]
    _gains: dict[tuple[object, ...], Gain] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "RecordedCells":
        """Read every record of a folder."""
        records: dict[Cell, dict[str, Record]] = defaultdict(dict)
        repeated: dict[Cell, dict[str, Record]] = defaultdict(dict)
        for record in read_records(folder).values():
            cell = Cell(*(record[name] for name in ("model", "task", "shots", "seed")))
            is_repeated = cell.seed != grid.SEEDS[0] and record["method"] in grid.AHEAD.values()
            (repeated if is_repeated else records)[cell][record["method"]] = record
        return cls(records, repeated)

    def record(self, cell: Cell, method: str) -> Record | None:
        """Return the record of a method, None if it was not measured in this cell.

        The unedited model gives the same answers for every seed, so its record of seed 0 serves all seeds.
        """
        if record := self.records.get(cell, {}).get(method):
            return record
        if method != "base":
            return None
        return self.records.get(Cell(cell.model, cell.task, cell.shots, grid.SEEDS[0]), {}).get(method)

    def gain(self, cell: Cell, method: str, over: str, metric: str = HEADLINE) -> Gain | None:
        """Return the score of one method minus another's on the same documents, None if one is missing."""
        key = (cell, method, over, metric)
        if key not in self._gains:
            new, old = self.record(cell, method), self.record(cell, over)
            if not (new and old):
                return None
            self._gains[key] = paired_gain(new, old, metric)
        return self._gains[key]

    def gains(self, shots: int, method: str, over: str, metric: str = HEADLINE) -> list[list[Gain]]:
        """Return a list for each model and task with this number of shots: the gains of the seeds with both methods."""
        settings: dict[tuple[str, str], list[Gain]] = defaultdict(list)
        for cell in self.records:
            if cell.shots == shots and (gain := self.gain(cell, method, over, metric)):
                settings[cell.model, cell.task].append(gain)
        return list(settings.values())

    def mean_gain(self, shots: int, method: str, over: str, metric: str = HEADLINE) -> MeanGain | None:
        """Average over the models and tasks with this number of shots that have both methods."""
        settings = self.gains(shots, method, over, metric)
        return mean_over_settings(settings) if settings else None

    def scores(self, model: str, task: str, shots: int, method: str) -> list[float]:
        """Return the weighted F1 of the greedy answer of each seed that has the method."""
        cells = [cell for cell in self.records if (cell.model, cell.task, cell.shots) == (model, task, shots)]
        return [self.records[cell][method]["greedy_f1"] for cell in cells if method in self.records[cell]]

    def share_of_gain(self, shots: int, method: str, other: str) -> tuple[float, int]:
        """Divide one method's mean gain over base by another's, on the cells with both; also count these cells."""
        pairs = [
            (ours.value, theirs.value)
            for cell in self.records
            if cell.shots == shots
            and (ours := self.gain(cell, method, "base"))
            and (theirs := self.gain(cell, other, "base"))
        ]
        return sum(ours for ours, _ in pairs) / sum(theirs for _, theirs in pairs), len(pairs)

    def beyond_development(self, shots: int) -> list[str]:
        """List the methods that were measured in other cells than those of development."""
        measured = [
            methods for cell, methods in self.records.items() if cell.shots == shots and cell not in grid.DEVELOPMENT
        ]
        return [method for method in grid.METHODS if any(method in methods for methods in measured)]

    def of_method(self, method: str) -> list[Record]:
        """Return all records of a method."""
        return [methods[method] for methods in self.records.values() if method in methods]


def paired_gain(new: Record, old: Record, metric: str = HEADLINE) -> Gain:
    """Return the gain of one record's answers over another's, on the documents of the first."""
    chosen = METRICS[metric]
    before, after = (chosen.answers(_arm(record)) for record in (old, new))
    return chosen.gain(new["gold"], before[: len(after)], after, resamples=RESAMPLES)


def _arm(record: Record) -> Arm:
    greedy = tuple(record["greedy"])
    predicted = tuple(record.get("predicted", greedy))
    return Arm(record.get("method", "edited"), record.get("labels", 0), predicted, greedy, (), 0.0)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the runs of a development file, one JSON object a line."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
