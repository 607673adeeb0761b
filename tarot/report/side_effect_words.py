"""What an edit costs elsewhere, in words, from the tables that `tarot effects` wrote."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tarot._files.strict_json import read_file
from tarot.errors import TarotError
from tarot.report.table import signed

LARGEST_TABLE = 2**24
"""Bytes of a table that are read."""

Rows = Sequence[Mapping[str, str]]


def describe_costs(folder: str | Path) -> list[str]:
    """Return sentences on other tasks and on neutral text, for each adapter; none if the folder has no such tables.

    Raises:
        TarotError: a table cannot be read.

    Example:
        >>> describe_costs("my-figures")
        []
    """
    effects, trade_off = (_read(Path(folder, name)) for name in ("effects.csv", "tradeoff.csv"))
    adapters = list(dict.fromkeys(row["adapter"] for row in (*effects, *trade_off)))
    sentences = []
    for adapter in adapters:
        parts = [
            *_tasks([row for row in effects if row["adapter"] == adapter and row["tuned_on"] == "False"]),
            *_texts([row for row in trade_off if row["adapter"] == adapter]),
        ]
        sentences += [f"{adapter}: {part}" if len(adapters) > 1 else part for part in parts]
    return sentences


def _read(path: Path) -> Rows:
    """Return the rows of a table; none if there is no such file."""
    if not path.exists():
        return []
    columns = (
        ("change", "low", "high")
        if path.stem == "effects"
        else ("strength", "kl_nats", "base_perplexity", "perplexity")
    )
    try:
        rows = list(csv.DictReader(io.StringIO(read_file(path, LARGEST_TABLE).decode()), strict=True))
        for row in rows:
            for name in ("adapter", *(("task", "tuned_on") if path.stem == "effects" else ())):
                row[name].strip()
            if not all(math.isfinite(float(row[name])) for name in columns):
                raise ValueError("a number that is not finite")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        reason = f"{type(error).__name__}: {error}"
        raise TarotError(f"a table of side effects in {path}", reason, "run tarot effects again") from error
    return rows


def _tasks(rows: Rows) -> list[str]:
    if not rows:
        return []
    fell = sorted((row for row in rows if float(row["high"]) < 0), key=lambda row: float(row["change"]))
    rose = sum(float(row["low"]) > 0 for row in rows)
    text = f"of {len(rows)} other tasks, the score fell in {len(fell)} and rose in {rose} (95% intervals without zero)"
    if fell:
        worst = fell[0]
        low, high = signed(float(worst["low"])), signed(float(worst["high"]))
        text += f"; most in {worst['task']}: {signed(float(worst['change']))} "
        text += f"[{low}, {high}]"
    if unclear := len(rows) - len(fell) - rose:
        text += f"; in {unclear} it may have changed either way"
    return [f"{text[0].upper()}{text[1:]}."]


def _texts(rows: Rows) -> list[str]:
    full = [row for row in rows if float(row["strength"]) == 1]
    if not full:
        return []
    base, edited, kl = (float(full[0][name]) for name in ("base_perplexity", "perplexity", "kl_nats"))
    if base <= 0:
        return []
    return [
        f"On neutral text the perplexity is {edited / base:.2f} times the base's, and the KL {kl:.3f} nats a token."
    ]
