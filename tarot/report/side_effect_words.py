"""The cost of an edit elsewhere, in words, from the tables that `tarot effects` wrote."""

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tarot._files.strict_json import read_file
from tarot.errors import TarotError
from tarot.evaluation.statistics.formatting import interval, signed

LARGEST_TABLE = 2**24
"""Bytes of a table that are read."""

Rows = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Costs:
    """The cost of one edit elsewhere, in words.

    Attributes:
        adapter: what `tarot effects` called the adapter.
        fingerprint: fingerprint of the adapter.
        tasks: on other tasks; "" if none was measured.
        text: on neutral text, at full strength; "" if that was not measured.
    """

    adapter: str
    fingerprint: str
    tasks: str = ""
    text: str = ""


def read_costs(folder: str | Path) -> list[Costs]:
    """Return what each adapter costs; none if the folder has no tables of `tarot effects`.

    Raises:
        TarotError: a table cannot be read.

    Example:
        >>> read_costs("my-figures")
        []
    """
    effects, trade_off = (_read(Path(folder, name)) for name in ("effects.csv", "tradeoff.csv"))
    return [
        Costs(
            *adapter,
            _tasks([row for row in effects if _adapter(row) == adapter and row["tuned_on"] == "False"]),
            _text([row for row in trade_off if _adapter(row) == adapter]),
        )
        for adapter in dict.fromkeys(map(_adapter, (*effects, *trade_off)))
    ]


def costs_of(costs: Sequence[Costs], fingerprint: str) -> Costs:
    """Return what was measured of one adapter, of several folders together.

    Example:
        >>> costs_of([Costs("mine", "1f", "It rose."), Costs("yours", "2f", "It fell.")], "1f").tasks
        'It rose.'
    """
    own = [each for each in costs if each.fingerprint == fingerprint]
    tasks, text = (" ".join(filter(None, parts)) for parts in ([e.tasks for e in own], [e.text for e in own]))
    return Costs(own[0].adapter if own else "", fingerprint, tasks, text)


def describe_costs(costs: Sequence[Costs], compared: Collection[str]) -> list[str]:
    """Describe each adapter's cost; name it if there are several or it is not compared here.

    Args:
        costs: what was measured.
        compared: fingerprints of the adapters that the page compares.
    """
    several = len({(each.adapter, each.fingerprint) for each in costs}) > 1
    sentences = []
    for each in costs:
        is_other = bool(compared) and each.fingerprint not in compared
        name = f"{each.adapter}{' (not compared on this page)' * is_other}: " if several or is_other else ""
        sentences += [f"{name}{text}" for text in (each.tasks, each.text) if text]
    return sentences


def describe_other_adapters(costs: Sequence[Costs], compared: Collection[str]) -> str:
    """Warn if the measured adapters are not the compared ones; "" otherwise."""
    if not (costs and compared) or any(each.fingerprint in compared for each in costs):
        return ""
    names = ", ".join(dict.fromkeys(f"{each.adapter} ({each.fingerprint})" for each in costs))
    return f"These side effects belong to edits that this page does not compare. They were measured with {names}."


def _adapter(row: Mapping[str, str]) -> tuple[str, str]:
    return row["adapter"], row["fingerprint"]


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
            for name in ("adapter", "fingerprint", *(("task", "tuned_on") if path.stem == "effects" else ())):
                row[name].strip()
            if not all(math.isfinite(float(row[name])) for name in columns):
                raise ValueError("a number that is not finite")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        reason = f"{type(error).__name__}: {error}"
        raise TarotError(f"a table of side effects in {path}", reason, "run tarot effects again") from error
    return rows


def _tasks(rows: Rows) -> str:
    if not rows:
        return ""
    fell = sorted((row for row in rows if float(row["high"]) < 0), key=lambda row: float(row["change"]))
    rose = sum(float(row["low"]) > 0 for row in rows)
    text = f"of {len(rows)} other tasks, the score fell in {len(fell)} and rose in {rose} (95% intervals without zero)"
    if fell:
        worst = fell[0]
        change = f"{signed(float(worst['change']))} {interval(float(worst['low']), float(worst['high']))}"
        text += f"; most in {worst['task']}: {change}"
    if lost := {row["task"]: row["without_number"].split() for row in rows if row.get("without_number")}:
        named = "; ".join(f"{len(each)} of {task} (rows {', '.join(each)})" for task, each in lost.items())
        text += f"; answers without a number, which count as wrong: {named}"
    if unclear := len(rows) - len(fell) - rose:
        text += f"; in {unclear} it may have changed either way"
    return f"{text[0].upper()}{text[1:]}."


def _text(rows: Rows) -> str:
    full = [row for row in rows if float(row["strength"]) == 1]
    if not full:
        return ""
    base, edited, kl = (float(full[0][name]) for name in ("base_perplexity", "perplexity", "kl_nats"))
    if base <= 0:
        return ""
    return f"On neutral text the perplexity is {edited / base:.2f} times the base's, and the KL {kl:.3f} nats a token."
