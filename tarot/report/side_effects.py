"""Side effects as a folder: the matrix and the trade-off as SVG, and the numbers behind them as CSV."""

from pathlib import Path
from typing import TYPE_CHECKING

from tarot.report.csv_file import write_csv
from tarot.report.figures import side_effects as side_effect_figures
from tarot.report.figures.svg import write_svg

if TYPE_CHECKING:  # its module imports torch
    from tarot.analysis.side_effects import SideEffects
    from tarot.analysis.trade_off import StrengthPoint


def write_side_effects(effects: "SideEffects", folder: str | Path) -> list[Path]:
    """Write figures and numbers of side effects: the files `effects` and `tradeoff`.

    Args:
        effects: what was measured.
        folder: where to write.

    Returns:
        The files.

    Raises:
        TarotError: a file cannot be written.

    Example:
        >>> from tarot.analysis.side_effects import measure_side_effects
        >>> loaded = tarot.load_model("wheel:smollm2-135m")
        >>> effects = measure_side_effects(loaded, {"mine": adapter}, ["synth_color"], n_tokens=100, limit=4)
        >>> [file.name for file in write_side_effects(effects, "my-effects")]
        ['effects.csv', 'effects.svg', 'tradeoff.csv', 'tradeoff.svg']
    """
    return [*_write_matrix(effects, Path(folder)), *_write_trade_off(effects, Path(folder))]


def _write_matrix(effects: "SideEffects", folder: Path) -> list[Path]:
    header = ("adapter", "fingerprint", "task", "tuned_on", "base", "edited", "change", "low", "high", "p", "documents")
    rows = [
        (
            name,
            effects.fingerprints[name],
            task,
            effects.own_tasks[name] == task,
            *(change.base, change.edited),
            *(change.gain.value, change.gain.low, change.gain.high, change.gain.p, change.gain.n),
            " ".join(map(str, change.without_number)),
        )
        for name, changes in effects.changes.items()
        for task, change in changes.items()
    ]
    write_csv(folder / "effects.csv", (*header, "without_number"), rows)
    n_lost = sum(len(change.without_number) for changes in effects.changes.values() for change in changes.values())
    gains = {name: {task: change.gain for task, change in changes.items()} for name, changes in effects.changes.items()}
    write_svg(folder / "effects.svg", side_effect_figures.effect_matrix("effects", gains, effects.own_tasks, n_lost))
    return [folder / "effects.csv", folder / "effects.svg"]


def _write_trade_off(effects: "SideEffects", folder: Path) -> list[Path]:
    gain = ("gain", "gain_low", "gain_high")
    header = ("adapter", "fingerprint", "strength", "score", *gain, "kl_nats", "kl_low", "kl_high")
    rows = [
        (
            name,
            effects.fingerprints[name],
            point.strength,
            *_gain_columns(point),
            *(point.drift.kl.value, point.drift.kl.low, point.drift.kl.high),
            *(point.drift.base_perplexity, point.drift.perplexity, point.drift.tokens),
            " ".join(map(str, point.change.without_number)) if point.change else "",
        )
        for name, curve in effects.curves.items()
        for point in curve
    ]
    write_csv(folder / "tradeoff.csv", (*header, "base_perplexity", "perplexity", "tokens", "without_number"), rows)
    curves = {
        name: [(point.strength, point.change.gain, point.drift.kl) for point in curve if point.change]
        for name, curve in effects.curves.items()
    }
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        (folder / "tradeoff.svg").unlink(missing_ok=True)  # an earlier run may have left one
        return [folder / "tradeoff.csv"]
    write_svg(folder / "tradeoff.svg", side_effect_figures.strength_curves("tradeoff", curves))
    return [folder / "tradeoff.csv", folder / "tradeoff.svg"]


def _gain_columns(point: "StrengthPoint") -> tuple[float | str, ...]:
    """Return score, gain and its interval; empty for an adapter tuned for a reward."""
    if point.change is None:
        return ("",) * 4
    return point.change.edited, point.change.gain.value, point.change.gain.low, point.change.gain.high
