"""The mechanism of an edit, as a folder: each figure as SVG, and the numbers behind it as CSV."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tarot.analysis.results import (
    AttentionPattern,
    AttentionResult,
    FlipsResult,
    HeadMaps,
    LayerEffects,
    LensResult,
    MechanismResult,
)
from tarot.report.csv_file import write_csv
from tarot.report.figures import mechanism as mechanism_figures
from tarot.report.figures.heads import head_map
from tarot.report.figures.svg import signed, write_svg

MIN_WEIGHT = 1e-3
"""Attention weights below this, in base and edited model, are left out of the CSV."""
MAX_TOKENS_DRAWN = 256
"""Tokens whose attention is drawn, from the end of the prompt; more would be too small to see."""
NAMES = ("lens", "heads", "heads-alone", "heads-missed", "layers", "flips", "attention")
"""Names of the files, without their endings."""


def write_mechanism(parts: Iterable[MechanismResult], folder: str | Path) -> list[Path]:
    """Write figures and numbers of what `measure_mechanism` yields, each part as soon as it is measured.

    Args:
        parts: what was measured.
        folder: where to write.

    Returns:
        The files, in the order in which they were written.

    Raises:
        TarotError: a file cannot be written; also what the measurement raises, after the parts before it were written.

    Example:
        >>> from tarot.analysis.mechanism import measure_mechanism
        >>> loaded = tarot.load_model("wheel:smollm2-135m")
        >>> files = write_mechanism(measure_mechanism(loaded, adapter, limit=4), "my-analysis")
        >>> [file.name for file in files][:3]
        ['lens.csv', 'lens.svg', 'heads.csv']
    """
    files: list[Path] = []
    for part in parts:
        if not files:  # an earlier analysis, perhaps of another adapter, may have left parts that this one lacks
            for name in NAMES:
                for ending in ("csv", "svg"):
                    (Path(folder) / f"{name}.{ending}").unlink(missing_ok=True)
        match part:
            case LensResult():
                files += _write_lens(part, Path(folder))
            case HeadMaps():
                files += _write_heads(part, Path(folder))
            case LayerEffects():
                files += _write_layers(part, Path(folder))
            case FlipsResult():
                files += _write_flips(part, Path(folder))
            case AttentionResult():
                files += _write_attention(part, Path(folder))
    return files


def _write_lens(lens: LensResult, folder: Path) -> list[Path]:
    header = ("layer", "edited_layer", "base", "edited", "difference", "low", "high")
    rows = [
        (layer, layer in lens.edited_layers, base, edited, change.value, change.low, change.high)
        for layer, (base, edited, change) in enumerate(zip(lens.base, lens.edited, lens.differences, strict=True))
    ]
    write_csv(folder / "lens.csv", header, rows)
    write_svg(folder / "lens.svg", mechanism_figures.lens_curves("lens", lens))
    return [folder / "lens.csv", folder / "lens.svg"]


def _write_heads(maps: HeadMaps, folder: Path) -> list[Path]:
    header = ("layer", "head", "angle_norm_radians", "alone", "missed")
    rows = [
        (layer, head, norm, maps.alone[row][head], maps.missed[row][head])
        for row, layer in enumerate(maps.layers)
        for head, norm in enumerate(maps.angle_norms[row])
    ]
    write_csv(folder / "heads.csv", header, rows)
    files = [folder / "heads.csv"]
    gain = signed(maps.edited - maps.base)
    for name, values, title in (
        ("heads-alone", maps.alone, f"Gain of turning each head alone (all together: {gain})"),
        ("heads-missed", maps.missed, f"Loss of undoing each head alone (all together: {gain})"),
    ):
        files.append(folder / f"{name}.svg")
        write_svg(files[-1], head_map(name, values, maps.layers, maps.unit, title, "no head matters"))
    return files


def _write_layers(effects: LayerEffects, folder: Path) -> list[Path]:
    header = ("layer", "heads", "alone", "missed")
    rows = zip(effects.layers, effects.n_heads, effects.alone, effects.missed, strict=True)
    write_csv(folder / "layers.csv", header, rows)
    write_svg(folder / "layers.svg", mechanism_figures.layer_effects("layers", effects))
    return [folder / "layers.csv", folder / "layers.svg"]


def _write_flips(result: FlipsResult, folder: Path) -> list[Path]:
    header = ("document", "flip", "right", "base", "edited", "token", "log_p_base", "log_p_edited", "moved", "prompt")
    rows = [
        (
            flip.id,
            "gained" if flip.fixed else "lost",
            flip.gold,
            flip.base,
            flip.edited,
            token.text,
            token.base,
            token.edited,
            token.edited - token.base,
            flip.prompt,
        )
        for flip in result.flips
        for token in flip.moved
    ]
    empty = ("",) * (len(header) - 2)
    write_csv(folder / "flips.csv", header, [*rows, *((name, "no number", *empty) for name in result.without_number)])
    if not result.flips:
        return [folder / "flips.csv"]
    write_svg(folder / "flips.svg", mechanism_figures.moved_tokens("flips", result))
    return [folder / "flips.csv", folder / "flips.svg"]


def _write_attention(result: AttentionResult, folder: Path) -> list[Path]:
    header = ("layer", "head", "query", "key", "query_token", "key_token", "base", "edited")
    tokens = result.tokens
    first = max(0, len(tokens) - MAX_TOKENS_DRAWN)
    rows = [
        (
            pattern.layer,
            pattern.head,
            i,
            j,
            tokens[i],
            tokens[j],
            float(pattern.base[i, j]),
            float(pattern.edited[i, j]),
        )
        for pattern in result.patterns
        for i, j in np.argwhere(np.maximum(pattern.base, pattern.edited) >= MIN_WEIGHT).tolist()
        if j >= first
    ]
    write_csv(folder / "attention.csv", header, rows)
    maps = [
        mechanism_figures.AttentionMap(_heading(pattern), pattern.base[first:, first:], pattern.edited[first:, first:])
        for pattern in result.patterns
    ]
    write_svg(folder / "attention.svg", mechanism_figures.attention_maps("attention", maps))
    return [folder / "attention.csv", folder / "attention.svg"]


def _heading(pattern: AttentionPattern) -> str:
    angle = f"turned {pattern.angle:.2f}" if pattern.angle else "not turned"
    return f"layer {pattern.layer}, head {pattern.head}\n{angle}, moved {pattern.moved:.3f}"
