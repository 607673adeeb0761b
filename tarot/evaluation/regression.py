"""Compare a run's cells with those of an earlier run, on the same documents.

A cell regresses if edited now minus edited then is below -tolerance *and* the paired test is significant after Holm's
correction for all comparisons. So noise does not fail the gate, and a real loss does.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from tarot._files.atomic import write_atomically
from tarot.errors import TarotError, describe_missing_numbers
from tarot.evaluation.results import EDITED, Arm, Comparison, comparison_names, missing_number_notes
from tarot.evaluation.results_file import comparisons_to_json
from tarot.evaluation.statistics.gains import Gain, f1_gain
from tarot.evaluation.statistics.significance import holm, regressed

LEVEL = 0.95
RESAMPLES = 10_000
Rows = list[tuple[int, int]]  # of documents that two cells share: where each has them
SETTINGS = ("samples", "budget", "search", "space", "objective", "dtype")  # names of what `identity` holds beside id
MEASURES = {"weighted F1 of the greedy answer": "greedy", "weighted F1 among the choices": "predicted"}


@dataclass(frozen=True)
class Verdict:
    """Outcome of the gate for one cell: whether it fails, and why or what else differs, in phrases."""

    comparison: str
    failed: bool
    words: tuple[str, ...]


def save_reference(comparisons: Sequence[Comparison], path: str | Path) -> None:
    """Write cells as a baseline: the whole file or none of it.

    Raises:
        TarotError: no cells, or a file that cannot be written.
    """
    if not comparisons:
        raise TarotError("cells to save as a baseline", "none", "run a test that uses tarot_gain")
    write_atomically(Path(path), comparisons_to_json(comparisons).encode())


def update_reference(then: Sequence[Comparison], now: Sequence[Comparison]) -> list[Comparison]:
    """The cells now, and those of an earlier baseline of which they hold no newer measurement."""
    matched = _matched(then, now)
    return [*now, *(comparison for i, comparison in enumerate(then) if i not in matched)]


def identity(comparison: Comparison) -> tuple[str | int, ...]:
    """The settings that two runs of the same measurement share."""
    return (
        comparison.id,
        comparison.samples,
        comparison.budget,
        comparison.search,
        comparison.space,
        comparison.objective,
        comparison.dtype,
    )


def check_regressions(
    then: Sequence[Comparison], now: Sequence[Comparison], tolerance: float, *, allow_missing: bool = False
) -> list[Verdict]:
    """Judge each cell of either run; the verdicts are sorted by name.

    A cell fails if
    - the edited model became worse on the documents of both runs;
    - it is in the baseline and was not measured with the same settings, or not on all of its documents, unless
      `allow_missing` is true and at least one cell of the baseline was measured;
    - none of its documents are those of the baseline;
    - an arm has documents without a number that had one in the baseline.

    A new cell passes if all its documents have a number. An empty baseline fails. A verdict names what else differs:
    versions, adapters, and documents too few to show a loss.

    Args:
        then: the baseline.
        now: the cells of this run.
        tolerance: how much a score may fall, a fraction.
        allow_missing: pass cells and documents of the baseline that were not measured.
    """
    if not then:
        return [Verdict("baseline", True, ("it holds no cell to compare with",))]
    matched = _matched(then, now)
    pairs = [*matched.items(), *_left_over(then, now, matched)]
    rows = [_paired(then[i], now[j]) for i, j in pairs]
    gains = [
        f1_gain(*_answers(then[i], now[j], shared, kind), resamples=max(RESAMPLES, 100 * len(pairs)), level=LEVEL)
        for (i, j), shared in zip(pairs, rows, strict=True)
        for kind in MEASURES.values()
    ]
    corrected = [replace(gain, p=p) for gain, p in zip(gains, holm([gain.p for gain in gains]), strict=True)]
    names = _names([*then, *now])
    verdicts = []
    for k, ((i, j), shared) in enumerate(zip(pairs, rows, strict=True)):
        mine = dict(zip(MEASURES, corrected[k * len(MEASURES) : (k + 1) * len(MEASURES)], strict=True))
        failures, notes = _judged(then[i], now[j], shared, mine, tolerance, len(gains))
        missing = _missing(then[i], now)
        if missing:
            unmeasured = f"{missing} of the {len(then[i].keys)} documents of the baseline were not measured"
            (notes if allow_missing else failures).append(unmeasured)
        headline = next(iter(MEASURES))
        change = f"{headline} {mine[headline].value:+.3f} since then"
        verdicts.append(Verdict(names[identity(now[j])], bool(failures), (change, *failures, *notes)))
    compared = {i for i, _ in pairs}
    for i, comparison in enumerate(then):
        if i not in compared:
            words = ("in the baseline, but not measured now", *_nearest(comparison, now))
            verdicts.append(Verdict(names[identity(comparison)], not (allow_missing and pairs), words))
    scored_texts = {j for _, j in pairs}
    for j, comparison in enumerate(now):
        if j not in scored_texts:
            broken = tuple(missing_number_notes(comparison))
            verdicts.append(Verdict(names[identity(comparison)], bool(broken), ("new, not in the baseline", *broken)))
    return sorted(verdicts, key=lambda verdict: (verdict.comparison, verdict.words))


def _names(comparisons: Sequence[Comparison]) -> dict[tuple[str | int, ...], str]:
    """What each measurement is called: another name for each."""
    ones = {identity(comparison): comparison for comparison in comparisons}
    return dict(zip(ones, comparison_names(list(ones.values())), strict=True))


def _matched(then: Sequence[Comparison], now: Sequence[Comparison]) -> dict[int, int]:
    """Pair the cells of one identity one to one, those with most documents in common first."""
    both = product(enumerate(then), enumerate(now))
    candidates = sorted(
        ((i, j, len(_paired(old, new))) for (i, old), (j, new) in both if identity(old) == identity(new)),
        key=lambda pair: (-pair[2], abs(len(then[pair[0]].keys) - len(now[pair[1]].keys))),
    )
    pairs: dict[int, int] = {}
    for i, j, _ in candidates:
        if i not in pairs and j not in pairs.values():
            pairs[i] = j
    return dict(sorted(pairs.items()))


def _left_over(
    then: Sequence[Comparison], now: Sequence[Comparison], matched: Mapping[int, int]
) -> list[tuple[int, int]]:
    """Pair each further cell of an identity with the one of the other run that shares most documents, if any.

    Otherwise a cell that was measured twice could hide a loss: the second measurement would be compared with nothing.
    """
    shared = {
        (i, j): n
        for (i, old), (j, new) in product(enumerate(then), enumerate(now))
        if identity(old) == identity(new) and (n := len(_paired(old, new)))
    }
    found = set()
    for side, taken in enumerate((set(matched), set(matched.values()))):
        for alone in {pair[side] for pair in shared} - taken:
            found.add(max((pair for pair in shared if pair[side] == alone), key=shared.__getitem__))
    return sorted(found)


def _documents(comparison: Comparison) -> dict[tuple[str, int, int], int]:
    """Map each document to its row: its key, its right answer, and a number if it occurs several times."""
    seen: Counter[tuple[str, int]] = Counter()
    found = {}
    for row, document in enumerate(zip(comparison.keys, comparison.gold, strict=True)):
        found[*document, seen[document]] = row
        seen[document] += 1
    return found


def _paired(then: Comparison, now: Comparison) -> Rows:
    """Rows of the documents that both have, with the same right answer; a repeated one is paired in order."""
    ours = _documents(now)
    return [(row, ours[document]) for document, row in _documents(then).items() if document in ours]


def _missing(then: Comparison, now: Sequence[Comparison]) -> int:
    """Count the documents of a cell that no cell with the same settings measured."""
    measured = {
        document for comparison in now if identity(comparison) == identity(then) for document in _documents(comparison)
    }
    return len(_documents(then).keys() - measured)


def _nearest(comparison: Comparison, now: Sequence[Comparison]) -> list[str]:
    """Name the settings that differ in the most similar cell of the same model, task, shots and seed."""
    changes = [
        [
            f"{name} {before} then, {after} now"
            for name, before, after in zip(SETTINGS, identity(comparison)[1:], identity(other)[1:], strict=True)
            if before != after
        ]
        for other in now
        if other.id == comparison.id
    ]
    return min((change for change in changes if change), key=len, default=[])


def _lost_numbers(then: Comparison, now: Comparison, rows: Rows) -> list[str]:
    """Name the arms with documents without a number that had one in the baseline, or were not in it."""
    before = {arm.name: set(arm.without_number) for arm in then.arms}
    partner = {j: i for i, j in rows}
    found = []
    for arm in now.arms:
        known = before.get(arm.name, set())
        lost = [row for row in arm.without_number if partner.get(row) not in known]
        if lost:
            found.append(f"{arm.name}: {describe_missing_numbers(lost, len(now.keys))}")
    return found


def _answers(then: Comparison, now: Comparison, rows: Rows, kind: str) -> tuple[list[int], list[int], list[int]]:
    def of(arm: Arm) -> tuple[int, ...]:
        return arm.greedy if kind == "greedy" else arm.predicted

    old, new = of(then.arm(EDITED)), of(now.arm(EDITED))
    return [now.gold[j] for _, j in rows], [old[i] for i, _ in rows], [new[j] for _, j in rows]


def _judged(
    then: Comparison, now: Comparison, rows: Rows, gains: Mapping[str, Gain], tolerance: float, compared: int
) -> tuple[list[str], list[str]]:
    """Return why a pair of cells fails, and what else differs between them."""
    failures = [
        f"{name} fell by {-gain.value:.3f}, more than {tolerance:g}, on {gain.n} documents "
        f"({gain.lost} lost, {gain.gained} gained, p {gain.p:.3g})"
        for name, gain in gains.items()
        if regressed(gain, tolerance)
    ]
    failures += _lost_numbers(then, now, rows)
    notes: list[str] = []
    if len(rows) < max(len(then.keys), len(now.keys)):
        other = f"other data: {len(rows)} documents in common of {len(then.keys)} then and {len(now.keys)} now"
        (notes if rows else failures).append(other)
    if not (rows or failures):
        failures.append("no documents to compare")
    if compared * 2 * 0.5 ** len(rows) > 1 - LEVEL:  # the corrected p if the answers to all of them were lost
        notes.append(f"{len(rows)} documents are too few to show a loss, whatever happens")
    changed = [
        f"{name} {then.versions.get(name, 'none')} then, {now.versions.get(name, 'none')} now"
        for name in sorted({*then.versions, *now.versions})
        if then.versions.get(name) != now.versions.get(name)
    ]
    if changed:
        notes.append("other versions: " + "; ".join(changed))
    if then.adapter != now.adapter:
        notes.append(f"another edit: {then.adapter} then, {now.adapter} now")
    notes.append(f"takes {_relative_time(now) / _relative_time(then):.2f} times as long")
    return failures, notes


def _relative_time(comparison: Comparison) -> float:
    """Seconds of the edited arm in units of the same session's reference workload."""
    return max(comparison.arm(EDITED).seconds, 1e-3) / max(comparison.reference_seconds, 1e-6)
