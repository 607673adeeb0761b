"""Compare the edited answers of a run with those of an earlier reference run, on the same documents.

A comparison regresses if now minus then is below -tolerance *and* the paired test is significant after Holm's
correction for all comparisons. So noise does not fail the gate, but a real loss does.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from tarot.errors import describe_missing_numbers
from tarot.evaluation.cost.speed import describe_speed_change
from tarot.evaluation.regression.verdict import LostDocument, ScoreChange, Verdict
from tarot.evaluation.results.comparison import (
    EDITED,
    HEADLINE,
    SEARCH_SETTINGS,
    Comparison,
    comparison_names,
)
from tarot.evaluation.results.metrics import METRICS
from tarot.evaluation.results.notes import missing_number_notes
from tarot.evaluation.statistics.gains import Gain, f1_gain
from tarot.evaluation.statistics.significance import holm, regressed

LEVEL = 0.95
RESAMPLES = 10_000
GUARDED = (HEADLINE, "f1")
"""Metrics that must not fall."""
Rows = list[tuple[int, int]]
"""Documents that two comparisons share: the row of each in the one and in the other."""


def update_reference(then: Sequence[Comparison], now: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons of this run, and those of an earlier reference run that it does not replace.

    A comparison replaces the one of the same identity. If there is none, it replaces the one with the most similar
    settings of the same model, task, shots and seed: then a setting of the cell was changed.

    Example:
        >>> update_reference([replace(comparison, budget=120)], [replace(comparison, budget=60)])[0].budget
        60
    """
    replaced = _match(then, now)
    old = [i for i in range(len(then)) if i not in replaced]
    new = [j for j in range(len(now)) if j not in replaced.values()]
    changed = ((i, j) for i, j in product(old, new) if then[i].id == now[j].id)
    replaced |= _one_to_one(sorted(changed, key=lambda pair: len(_changed_settings(then[pair[0]], now[pair[1]]))))
    return [*now, *(comparison for i, comparison in enumerate(then) if i not in replaced)]


def check_regressions(
    then: Sequence[Comparison], now: Sequence[Comparison], tolerance: float, *, allow_missing: bool = False
) -> list[Verdict]:
    """Judge each comparison of either run.

    A comparison fails if

    - the edited model became worse on the documents of both runs;
    - it is in the reference run and was not measured with the same settings, or not on all of its documents, or not
      with all of its arms, unless `allow_missing` is true and at least one comparison of the reference run was
      measured;
    - none of its documents are those of the reference run;
    - an arm has documents without a number that had one in the reference run.

    A new comparison passes if all its documents have a number. An empty reference run fails. A verdict also names other
    differences: versions, adapters, and documents too few to show a loss.

    Args:
        then: the reference run.
        now: this run.
        tolerance: how much a score may fall, a fraction.
        allow_missing: pass comparisons, documents and arms of the reference run that were not measured.

    Returns:
        The verdicts, sorted by name.

    Example:
        >>> [verdict.failed for verdict in check_regressions([comparison], [comparison], tolerance=0.02)]
        [False]
    """
    if not then:
        return [Verdict("reference run", True, ("it has no cell to compare with",))]
    matched = _match(then, now)
    pairs = [*matched.items(), *_match_remaining(then, now, matched)]
    rows = [_shared_rows(then[i], now[j]) for i, j in pairs]
    resamples = max(RESAMPLES, 100 * len(pairs))
    gains = [
        f1_gain(*_answers(then[i], now[j], shared, metric), resamples=resamples, level=LEVEL)
        for (i, j), shared in zip(pairs, rows, strict=True)
        for metric in GUARDED
    ]
    corrected = [replace(gain, p=p) for gain, p in zip(gains, holm([gain.p for gain in gains]), strict=True)]
    names = _names([*then, *now])
    verdicts = []
    for k, ((i, j), shared) in enumerate(zip(pairs, rows, strict=True)):
        by_metric = dict(zip(GUARDED, corrected[k * len(GUARDED) : (k + 1) * len(GUARDED)], strict=True))
        scores = _score_changes(then[i], now[j], shared, by_metric, tolerance)
        failures, notes = _judge(then[i], now[j], shared, scores, tolerance, len(gains))
        if missing := _n_missing(then[i], now):
            note = f"{missing} of the {len(then[i].keys)} documents of the reference run were not measured"
            (notes if allow_missing else failures).append(note)
        if arms := _missing_arms(then[i], now[j]):
            (notes if allow_missing else failures).append(f"not measured, but in the reference run: {', '.join(arms)}")
        unchanged = [
            f"{METRICS[change.metric].title} {change.then:.3f} then, {change.now:.3f} now"
            for change in scores
            if change.metric == HEADLINE and not change.regressed
        ]
        verdicts.append(
            Verdict(
                names[now[j].identity],
                bool(failures),
                (*failures, *unchanged, *notes),
                scores,
                _lost_documents(then[i], now[j], shared, scores),
                now[j].command,
                now[j].not_repeated,
            )
        )
    compared_then, compared_now = {i for i, _ in pairs}, {j for _, j in pairs}
    for i, comparison in enumerate(then):
        if i not in compared_then:
            reasons = ("in the reference run, but not measured now", *_nearest(comparison, now))
            failed = not (allow_missing and pairs)
            verdicts.append(Verdict(names[comparison.identity], failed, reasons, command=comparison.command))
    for j, comparison in enumerate(now):
        if j not in compared_now:
            broken = missing_number_notes(comparison)
            reasons = ("new, not in the reference run", *broken)
            verdicts.append(Verdict(names[comparison.identity], bool(broken), reasons, command=comparison.command))
    return sorted(verdicts, key=lambda verdict: (verdict.name, verdict.reasons))


def _names(comparisons: Sequence[Comparison]) -> dict[tuple[object, ...], str]:
    """Return a name for each identity."""
    distinct = {comparison.identity: comparison for comparison in comparisons}
    return dict(zip(distinct, comparison_names(list(distinct.values())), strict=True))


def _match(then: Sequence[Comparison], now: Sequence[Comparison]) -> dict[int, int]:
    """Match comparisons of one identity one to one, those with most documents in common first."""
    both = product(enumerate(then), enumerate(now))
    candidates = sorted(
        ((i, j, len(_shared_rows(old, new))) for (i, old), (j, new) in both if old.identity == new.identity),
        key=lambda pair: (-pair[2], abs(len(then[pair[0]].keys) - len(now[pair[1]].keys))),
    )
    return dict(sorted(_one_to_one((i, j) for i, j, _ in candidates).items()))


def _one_to_one(candidates: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Choose pairs in this order, so that no index is in two of them."""
    pairs: dict[int, int] = {}
    for i, j in candidates:
        if i not in pairs and j not in pairs.values():
            pairs[i] = j
    return pairs


def _match_remaining(
    then: Sequence[Comparison], now: Sequence[Comparison], matched: Mapping[int, int]
) -> list[tuple[int, int]]:
    """Match each remaining comparison with the one of the other run that shares most documents, if any.

    Otherwise a comparison that was measured twice could hide a loss: the second would be compared with nothing.
    """
    shared = {
        (i, j): n
        for (i, old), (j, new) in product(enumerate(then), enumerate(now))
        if old.identity == new.identity and (n := len(_shared_rows(old, new)))
    }
    pairs = set()
    for side, taken in enumerate((set(matched), set(matched.values()))):
        for alone in {pair[side] for pair in shared} - taken:
            pairs.add(max((pair for pair in shared if pair[side] == alone), key=shared.__getitem__))
    return sorted(pairs)


def _documents(comparison: Comparison) -> dict[tuple[str, int, int], int]:
    """Map each document to its row: its key, its right answer, and a number for each time it occurs."""
    n_seen: Counter[tuple[str, int]] = Counter()
    rows = {}
    for row, document in enumerate(zip(comparison.keys, comparison.gold, strict=True)):
        rows[*document, n_seen[document]] = row
        n_seen[document] += 1
    return rows


def _shared_rows(then: Comparison, now: Comparison) -> Rows:
    """Return the rows of the documents in both, with the same right answer; repeated ones are matched in order."""
    new_rows = _documents(now)
    return [(row, new_rows[document]) for document, row in _documents(then).items() if document in new_rows]


def _n_missing(then: Comparison, now: Sequence[Comparison]) -> int:
    """Count the documents of a comparison that no comparison of the same identity measured."""
    measured = {
        document for comparison in now if comparison.identity == then.identity for document in _documents(comparison)
    }
    return len(_documents(then).keys() - measured)


def _missing_arms(then: Comparison, now: Comparison) -> list[str]:
    """Name the arms of a comparison that the other one lacks."""
    measured = {arm.name for arm in now.arms}
    return [arm.name for arm in then.arms if arm.name not in measured]


def _nearest(comparison: Comparison, now: Sequence[Comparison]) -> list[str]:
    """Name the settings that differ in the most similar comparison of the same model, task, shots and seed."""
    changes = [_changed_settings(comparison, other) for other in now if other.id == comparison.id]
    return min((change for change in changes if change), key=len, default=[])


def _changed_settings(then: Comparison, now: Comparison) -> list[str]:
    """Name the settings of the edit that differ between two comparisons."""
    before, after = _edit_settings(then), _edit_settings(now)
    return [
        f"{name} {before.get(name, 'not set')} then, {after.get(name, 'not set')} now"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def _edit_settings(comparison: Comparison) -> dict[str, object]:
    """Return the settings that identify an edit, by the words for them."""
    fields = {name: getattr(comparison, name) for name in SEARCH_SETTINGS}
    limit = {"limit of KL": comparison.max_kl} if comparison.max_kl else {}
    return {**comparison.settings, **fields, **limit, "layers": comparison.layers}


def _lost_numbers(then: Comparison, now: Comparison, rows: Rows) -> list[str]:
    """Name the arms with documents without a number that had one in the reference run, or were not in it."""
    missing_then = {arm.name: set(arm.without_number) for arm in then.arms}
    old_row = {j: i for i, j in rows}
    notes = []
    for arm in now.arms:
        lost = [row for row in arm.without_number if old_row.get(row) not in missing_then.get(arm.name, set())]
        if lost:
            notes.append(f"{arm.name}: {describe_missing_numbers(lost, len(now.keys))}")
    return notes


def _answers(then: Comparison, now: Comparison, rows: Rows, metric: str) -> tuple[list[int], list[int], list[int]]:
    """Return right answers, edited answers then and edited answers now, of the shared documents."""
    answers = METRICS[metric].answers
    old, new = answers(then.arm(EDITED)), answers(now.arm(EDITED))
    return [now.gold[j] for _, j in rows], [old[i] for i, _ in rows], [new[j] for _, j in rows]


def _score_changes(
    then: Comparison, now: Comparison, rows: Rows, gains: Mapping[str, Gain], tolerance: float
) -> tuple[ScoreChange, ...]:
    """Return the guarded scores of a pair, then and now, on the documents that they share; none without documents."""
    if not rows:
        return ()
    changes = []
    for metric, gain in gains.items():
        gold, old, new = _answers(then, now, rows, metric)
        score = METRICS[metric].score
        changes.append(ScoreChange(metric, score(gold, old), score(gold, new), gain, regressed(gain, tolerance)))
    return tuple(changes)


def _lost_documents(
    then: Comparison, now: Comparison, rows: Rows, scores: Sequence[ScoreChange]
) -> tuple[LostDocument, ...]:
    """Return the documents that were right then and are wrong now, by the first metric that fell."""
    metric = next((change.metric for change in scores if change.regressed), HEADLINE)
    gold, old, new = _answers(then, now, rows, metric)
    before, after = then.arm(EDITED), now.arm(EDITED)
    return tuple(
        LostDocument(
            now.texts[j],
            now.answer_text(j, right),
            then.answer_text(i, old_answer, before),
            now.answer_text(j, new_answer, after),
        )
        for (i, j), right, old_answer, new_answer in zip(rows, gold, old, new, strict=True)
        if old_answer == right != new_answer
    )


def _judge(
    then: Comparison, now: Comparison, rows: Rows, scores: Sequence[ScoreChange], tolerance: float, n_tests: int
) -> tuple[list[str], list[str]]:
    """Return why a pair of comparisons fails, and what else differs between them."""
    failures = [
        f"{METRICS[change.metric].title} fell from {change.then:.3f} to {change.now:.3f}, by more than {tolerance:g}, "
        f"on {change.gain.n} documents ({change.gain.lost} lost, {change.gain.gained} gained)"
        for change in scores
        if change.regressed
    ]
    failures += _lost_numbers(then, now, rows)
    notes: list[str] = []
    if len(rows) < max(len(then.keys), len(now.keys)):
        other = f"other data: {len(rows)} documents in common of {len(then.keys)} then and {len(now.keys)} now"
        (notes if rows else failures).append(other)
    if not (rows or failures):
        failures.append("no documents to compare")
    if n_tests * 2 * 0.5 ** len(rows) > 1 - LEVEL:  # the corrected p-value if every answer became wrong
        notes.append(f"{len(rows)} documents are too few to show a loss")
    changed = [
        f"{name} {then.versions.get(name, 'none')} then, {now.versions.get(name, 'none')} now"
        for name in sorted({*then.versions, *now.versions})
        if then.versions.get(name) != now.versions.get(name)
    ]
    if changed:
        notes.append("other versions: " + "; ".join(changed))
    if then.adapter != now.adapter:
        notes.append(f"another edit: {then.adapter} then, {now.adapter} now")
    notes.append(describe_speed_change(then, now))
    return failures, notes
