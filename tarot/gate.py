"""Whether a run's cells are as good as those of an earlier one, on the same documents.

A cell regresses when edited-now minus edited-then is below -tolerance *and* the paired test says that chance does not
explain it, after Holm's correction for all that is compared: noise does not turn CI red, a real loss does.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from tarot.cells import EDITED, Arm, Cell, names_of, to_json
from tarot.errors import TarotError
from tarot.files import write_atomically
from tarot.gains import Gain, f1_gain, holm, regressed

LEVEL = 0.95
RESAMPLES = 10_000
Rows = list[tuple[int, int]]  # of documents that two cells share: where each has them
MEASURES = {"weighted F1 of the greedy answer": "greedy", "weighted F1 among the choices": "predicted"}


@dataclass(frozen=True)
class Verdict:
    """What became of one cell: whether it fails the gate, and everything that is worth saying, in sentences."""

    cell: str
    failed: bool
    words: tuple[str, ...]


def save(cells: Sequence[Cell], path: str | Path) -> None:
    """Write cells as a baseline: the whole file or none of it.

    Raises:
        TarotError: no cells, or a file that cannot be written.
    """
    if not cells:
        raise TarotError("cells to save as a baseline", "none", "run a test that uses tarot_gain")
    write_atomically(Path(path), to_json(cells).encode())


def renewed(then: Sequence[Cell], now: Sequence[Cell]) -> list[Cell]:
    """The cells now, and those of an earlier baseline of which they hold no newer measurement."""
    return [*now, *_matched(then, now)[1]]


def identity(cell: Cell) -> tuple[str | int, ...]:
    """What two runs of the same measurement share."""
    return (cell.id, cell.samples, cell.budget, cell.search, cell.space, cell.objective)


def compare(then: Sequence[Cell], now: Sequence[Cell], tolerance: float) -> list[Verdict]:
    """A verdict for each cell of either run, sorted by name.

    A cell that only one of them has is said so, and does not fail, so that a part of a suite can be run. One with other
    documents is judged on those that both have; it fails when there are none, since nobody can vouch for it. So do the
    cells of a baseline of which the run has not a single one. One with too few documents to ever fail is said so.
    """
    pairs, gone, new = _matched(then, now)
    gains = [
        f1_gain(*_answers(*pair, kind), resamples=max(RESAMPLES, 100 * len(pairs)), level=LEVEL)
        for pair in pairs
        for kind in MEASURES.values()
    ]
    corrected = [replace(gain, p=p) for gain, p in zip(gains, holm([gain.p for gain in gains]), strict=True)]
    names = _names([*then, *now])
    verdicts = []
    for i, pair in enumerate(pairs):
        mine = corrected[i * len(MEASURES) : (i + 1) * len(MEASURES)]
        judged = _judged(*pair, dict(zip(MEASURES, mine, strict=True)), tolerance, len(gains))
        verdicts.append(Verdict(names[identity(pair[1])], *judged))
    verdicts += [Verdict(names[identity(cell)], not pairs, ("in the baseline, but not measured now",)) for cell in gone]
    verdicts += [Verdict(names[identity(cell)], False, ("new, not in the baseline",)) for cell in new]
    return sorted(verdicts, key=lambda verdict: (verdict.cell, verdict.words))


def _names(cells: Sequence[Cell]) -> dict[tuple[str | int, ...], str]:
    """What each measurement is called: another name for each."""
    ones = {identity(cell): cell for cell in cells}
    return dict(zip(ones, names_of(list(ones.values())), strict=True))


def _matched(then: Sequence[Cell], now: Sequence[Cell]) -> tuple[list[tuple[Cell, Cell, Rows]], list[Cell], list[Cell]]:
    """Cells of one identity with each other and their rows, and what is left of either run.

    Several tests may measure the same on other documents: those go together that are most alike in these.
    """
    both = product(enumerate(then), enumerate(now))
    candidates = sorted(
        ((i, j, _paired(old, new)) for (i, old), (j, new) in both if identity(old) == identity(new)),
        key=lambda pair: (-len(pair[2]), abs(len(then[pair[0]].keys) - len(now[pair[1]].keys))),
    )
    pairs: dict[int, tuple[int, Rows]] = {}
    for i, j, rows in candidates:
        if i not in pairs and all(j != taken for taken, _ in pairs.values()):
            pairs[i] = (j, rows)
    taken = {j for j, _ in pairs.values()}
    return (
        [(then[i], now[j], rows) for i, (j, rows) in sorted(pairs.items())],
        [cell for i, cell in enumerate(then) if i not in pairs],
        [cell for j, cell in enumerate(now) if j not in taken],
    )


def _paired(then: Cell, now: Cell) -> Rows:
    """Rows of the documents that both have; of one that stands twice, the first with the first."""

    def rows(cell: Cell) -> Mapping[tuple[str, int], int]:
        seen: Counter[str] = Counter()
        found = {}
        for row, key in enumerate(cell.keys):
            found[key, seen[key]] = row
            seen[key] += 1
        return found

    ours = rows(now)
    return [(row, ours[key]) for key, row in rows(then).items() if key in ours]


def _answers(then: Cell, now: Cell, rows: Rows, kind: str) -> tuple[list[int], list[int], list[int]]:
    def of(arm: Arm) -> tuple[int, ...]:
        return arm.greedy if kind == "greedy" else arm.predicted

    old, new = of(then.arm(EDITED)), of(now.arm(EDITED))
    return [now.gold[j] for _, j in rows], [old[i] for i, _ in rows], [new[j] for _, j in rows]


def _judged(
    then: Cell, now: Cell, rows: Rows, gains: Mapping[str, Gain], tolerance: float, compared: int
) -> tuple[bool, tuple[str, ...]]:
    """Whether a cell fails, and what is worth saying of it."""
    headline = next(iter(gains))
    words = [f"{headline} {gains[headline].value:+.3f} since then"]
    worse = {name: gain for name, gain in gains.items() if regressed(gain, tolerance)}
    for name, gain in worse.items():
        words.append(
            f"{name} fell by {-gain.value:.3f}, more than {tolerance:g}, on {gain.n} documents "
            f"({gain.lost} lost, {gain.gained} gained, p {gain.p:.3g})"
        )
    if len(rows) < max(len(then.keys), len(now.keys)):
        words.append(f"other data: {len(rows)} documents in common of {len(then.keys)} then and {len(now.keys)} now")
    if compared * 2 * 0.5 ** len(rows) > 1 - LEVEL:  # the p of a loss of all of them, corrected
        words.append(f"{len(rows)} documents are too few to show a loss, whatever happens")
    changed = [
        f"{name} {then.versions.get(name, 'none')} then, {now.versions.get(name, 'none')} now"
        for name in sorted({*then.versions, *now.versions})
        if then.versions.get(name) != now.versions.get(name)
    ]
    if changed:
        words.append("other versions: " + "; ".join(changed))
    if then.adapter != now.adapter:
        words.append(f"another edit: {then.adapter} then, {now.adapter} now")
    words.append(f"takes {_relative_time(now) / _relative_time(then):.2f} times as long")
    return bool(worse) or not rows, tuple(words)


def _relative_time(cell: Cell) -> float:
    """Seconds of the edited arm in units of the same session's reference workload."""
    return max(cell.arm(EDITED).seconds, 1e-3) / max(cell.reference_seconds, 1e-6)
