"""FIXME: one sentence on this module."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby


@dataclass(frozen=True)
class Row:
    """One sequence to run.

    `start` is the first position whose prediction a request needs. Rows of another `group` cannot share a pass.
    """

    tokens: tuple[int, ...]
    start: int
    group: int


@dataclass
class PrefixNode:
    """A shared prefix `tokens[:depth]`, the rows that continue it on their own, and longer prefixes that extend it."""

    tokens: tuple[int, ...]
    depth: int
    rows: list[int] = field(default_factory=list)
    children: list["PrefixNode"] = field(default_factory=list)


def shared_length(rows: Sequence[Row]) -> int:
    """Length that all rows share and none needs predictions inside of; rows are sorted, so the ends decide."""
    first, last = rows[0].tokens, rows[-1].tokens
    limit = min(row.start for row in rows)
    return next((i for i in range(limit) if first[i] != last[i]), limit)


def grow_tree(rows: list[Row], indices: list[int], node: PrefixNode, pass_cost: int) -> None:
    """Hang `rows[i] for i in indices`, sorted and alike up to `node.depth`, under `node`."""
    if len(indices) == 1:
        node.rows += indices
        return
    depth = shared_length([rows[i] for i in indices])
    if (depth - node.depth) * (len(indices) - 1) > pass_cost:
        child = PrefixNode(rows[indices[0]].tokens, depth)
        node.children.append(child)
        node = child
    # Rows that are read from here on cannot share more; the others go on by their next token.
    node.rows += [i for i in indices if rows[i].start == depth]
    others = [i for i in indices if rows[i].start > depth]
    for _, group in groupby(others, key=lambda i: rows[i].tokens[depth]):
        grow_tree(rows, list(group), node, pass_cost)


def cut_batches(lengths: Sequence[int], max_rows: int, pass_cost: int) -> Iterator[range]:
    """Cut sorted lengths into runs whose padded tokens plus the cost of every pass are fewest (dynamic programme)."""
    best = [0.0] + [float("inf")] * len(lengths)
    cut = [0] * (len(lengths) + 1)
    for end in range(1, len(lengths) + 1):
        for begin in range(max(0, end - max_rows), end):
            cost = best[begin] + (end - begin) * lengths[end - 1] + pass_cost
            if cost < best[end]:
                best[end], cut[end] = cost, begin
    end = len(lengths)
    while end:
        yield range(cut[end], end)
        end = cut[end]
