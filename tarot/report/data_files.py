"""The numbers behind the tables and pictures of a page, as CSV files beside it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from tarot.evaluation.cost.speed import is_busy
from tarot.evaluation.regression.verdict import Verdict
from tarot.evaluation.results.metrics import METRICS
from tarot.evaluation.results.scored_comparison import ScoredComparison
from tarot.evaluation.statistics.gains import Gain
from tarot.evaluation.statistics.seeds import MeanGain
from tarot.evaluation.statistics.significance import holm
from tarot.objectives.rewards.text_scores import ScoredTexts
from tarot.report.csv_file import write_csv
from tarot.report.document_table import DocumentRow
from tarot.report.figures.comparison import Interval, best_so_far
from tarot.report.rewards import DIFFERENCE, ArmScores, RewardSection
from tarot.report.table import ArmMean

CsvRow = Sequence[object]
Tables = dict[str, tuple[Sequence[str], list[CsvRow]]]
"""Header and rows of each file, by the file's name without its ending."""

FILES = (
    *("summary", "arm-means", "gains", "seeds", "arms", "curves", "trade-off", "angles", "documents"),
    *("texts", "text-arms", "trials", "gate", "lost"),
)
"""Every file that a page may have; those of an earlier page that a new one does not have are removed."""

COSTS = ("seconds", "preparation_seconds", "stored_bytes", "peak_memory")


def write_tables(tables: Tables, folder: Path) -> None:
    """Write the tables that have rows as CSV files, and remove those of an earlier page.

    Raises:
        TarotError: a file cannot be written.
    """
    for name in FILES:
        path = folder / f"{name}.csv"
        if name in tables:
            write_csv(path, *tables[name])
        else:
            path.unlink(missing_ok=True)


def comparison_tables(
    scored_comparisons: Sequence[ScoredComparison],
    names: Sequence[str],
    documents: Sequence[Sequence[DocumentRow]],
) -> Tables:
    """Return the tables of comparisons, without those that have no rows.

    Args:
        scored_comparisons: the comparisons.
        names: what the page calls each.
        documents: the documents of each.
    """
    named = list(zip(names, scored_comparisons, strict=True))
    p_values = holm([scored.gain.p for scored in scored_comparisons])
    gain = ("gain", "low", "high")
    edited_over = tuple(f"edited_over_{each}" for each in gain)
    summary_header = ("comparison", "base", "few_shot", "edited", *gain, *(f"over_few_shot_{each}" for each in gain))
    tables: Tables = {
        "summary": (
            (*summary_header, "p_holm", "documents", "seconds", "busy"),
            [
                (
                    name,
                    *(scored.scores.get(arm, "") for arm in (scored.base, "few-shot", "edited")),
                    *_interval(scored.gain),
                    *_interval(scored.over_few_shot),
                    p,
                    scored.gain.n,
                    scored.comparison.seconds,
                    is_busy(scored.comparison),
                )
                for (name, scored), p in zip(named, p_values, strict=True)
            ],
        ),
        "arms": (
            ("comparison", "arm", *gain, *edited_over, *METRICS, "gold_probability", "labels", *COSTS, "busy"),
            [(name, *row) for name, scored in named for row in _arms(scored)],
        ),
        "curves": (
            ("comparison", "search", "evaluation", "score", "best_so_far"),
            [
                (name, search, i, *values)
                for name, scored in named
                for search, curve in scored.comparison.curves.items()
                for i, values in enumerate(zip(curve, best_so_far(curve), strict=True))
            ],
        ),
        "trade-off": (
            ("comparison", "kl", "score"),
            [(name, *trial) for name, scored in named for trial in scored.comparison.trade_off],
        ),
        "angles": (
            ("comparison", "layer", "head", "radians"),
            [
                (name, layer, head, angle)
                for name, scored in named
                for layer, row in zip(scored.comparison.layers, scored.comparison.head_angles, strict=False)
                for head, angle in enumerate(row)
            ],
        ),
        "documents": (
            ("comparison", "document", "outcome", "text", "right", "base", "few_shot", "edited"),
            [
                (name, d.row, d.outcome, d.text, d.right, d.base, d.few_shot, d.edited)
                for name, rows in zip(names, documents, strict=True)
                for d in sorted(rows, key=lambda d: d.row)
            ],
        ),
    }
    return _with_rows(tables)


def overview_tables(
    arms: Sequence[ArmMean],
    intervals: Sequence[Interval],
    seeds: Sequence[tuple[tuple[str, ...], MeanGain]],
    verdicts: Sequence[Verdict],
) -> Tables:
    """Return the tables of means, of the figure of gains, of seeds and of the gate, without those that have no rows."""
    gain = ("gain", "low", "high")
    tables: Tables = {
        "arm-means": (
            ("arm", "score", *gain, "comparisons"),
            [(arm.name, "" if arm.score is None else arm.score, *_interval(arm.gain), arm.n) for arm in arms],
        ),
        "gains": (
            ("label", *gain, "is_mean"),
            [(each.label, each.value, each.low, each.high, each.is_mean) for each in intervals],
        ),
        "seeds": (
            ("model", "task", "shots", "search", *gain, "between_seeds", "over_documents", "seeds"),
            [(*setting, *_interval(mean), mean.between, mean.within, mean.count) for setting, mean in seeds],
        ),
        "gate": (
            ("cell", "failed", "metric", "then", "now", "change", "low", "high", "p", "lost", "gained", "documents"),
            [
                (
                    *(verdict.name, verdict.failed, change.metric, change.then, change.now),
                    *_interval(change.gain),
                    *(change.gain.p, change.gain.lost, change.gain.gained, change.gain.n),
                )
                for verdict in verdicts
                for change in verdict.scores
            ],
        ),
        "lost": (
            ("cell", "text", "right", "then", "now"),
            [
                (verdict.name, each.text, each.right, each.then, each.now)
                for verdict in verdicts
                for each in verdict.lost
            ],
        ),
    }
    return _with_rows(tables)


def reward_tables(sections: Sequence[RewardSection]) -> Tables:
    """Return the tables of texts, of their arms and of the searches' trials, without those that have no rows."""
    comparisons, columns = [section.comparison for section in sections], ("reward", "fluency", "text")
    intervals = tuple(f"{name}{end}" for name in ArmScores._fields for end in ("", "_low", "_high"))
    tables: Tables = {
        "texts": (
            ("comparison", "document", "prompt", *(f"{arm}_{name}" for arm in ("base", "edited") for name in columns)),
            [
                (each.id, row, prompt, *_text(each.base, row), *_text(each.edited, row))
                for each in comparisons
                for row, prompt in enumerate(each.prompts)
            ],
        ),
        "text-arms": (
            ("comparison", "arm", *intervals, "p", "documents"),
            [
                (
                    *(each.comparison.id, arm),
                    *(number for score in scores for number in (score.value, score.low, score.high)),
                    *(each.comparison.gain.p if arm == DIFFERENCE else "", each.comparison.gain.n),
                )
                for each in sections
                for arm, scores in each.scores.items()
            ],
        ),
        "trials": (
            ("comparison", "trial", "reward", "fluency", "distinct_2", "repetition", "refused", "in_front"),
            [
                (
                    *(each.id, trial, scores.reward, scores.fluency, scores.distinct_2, scores.repetition),
                    *(scores.refused, trial in each.front),
                )
                for each in comparisons
                for trial, scores in each.outcomes.items()
            ],
        ),
    }
    return _with_rows(tables)


def _text(texts: ScoredTexts, row: int) -> CsvRow:
    return texts.rewards[row], texts.fluencies[row], texts.texts[row]


def _with_rows(tables: Tables) -> Tables:
    return {name: table for name, table in tables.items() if table[1]}


def _arms(scored: ScoredComparison) -> Iterator[CsvRow]:
    gold = scored.comparison.gold
    for name, arms in scored.arms.items():
        yield (
            name,
            *_interval(scored.gains.get(name)),
            *_interval(scored.edited_over.get(name)),
            *(metric.mean_score(gold, arms) for metric in METRICS.values()),
            fmean(fmean(arm.gold_probability or (0.0,)) for arm in arms),
            arms[0].labels,
            fmean(arm.seconds for arm in arms),
            arms[0].preparation_seconds,
            arms[0].stored_bytes,
            arms[0].peak_memory,
            is_busy(scored.comparison),
        )


def _interval(gain: Gain | MeanGain | None) -> tuple[float | str, float | str, float | str]:
    return (gain.value, gain.low, gain.high) if gain else ("", "", "")
