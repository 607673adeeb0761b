"""Plan which tokens several sequences share, and which sequences run in one pass.

The tree's root is the empty prefix. A child extends its parent's prefix by tokens that all sequences below it share, if
sharing them saves more than a pass costs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby


@dataclass(frozen=True)
class Row:
    """One sequence to run.

    Attributes:
        tokens: token ids.
        start: first position whose prediction a request needs.
        group: rows of different groups cannot share a pass (`tarot.edit.rope.pass_group`).
    """

    tokens: tuple[int, ...]
    start: int
    group: int


@dataclass
class PrefixNode:
    """A prefix that several rows share.

    Attributes:
        tokens: a sequence that begins with the prefix.
        depth: length of the prefix, in tokens.
        rows: indices of the rows that continue the prefix by themselves.
        children: longer prefixes that begin with this one.
    """

    tokens: tuple[int, ...]
    depth: int
    rows: list[int] = field(default_factory=list)
    children: list["PrefixNode"] = field(default_factory=list)

    def count_tokens(self, rows: Sequence[Row], depth: int = 0) -> int:
        """Count the tokens to run from position `depth`, padding aside."""
        own = self.depth - depth + sum(len(rows[i].tokens) - self.depth for i in self.rows)
        return own + sum(child.count_tokens(rows, self.depth) for child in self.children)


def build_tree(rows: Sequence[Row], pass_cost: int, *, share: bool) -> PrefixNode:
    """Return the tree over all rows.

    Args:
        rows: the sequences, in any order.
        pass_cost: tokens that cost as much as one more pass.
        share: whether rows of group 0 may share prefixes; other groups never do.
    """
    root = PrefixNode((), 0)
    indices = sorted(range(len(rows)), key=lambda i: (rows[i].group, rows[i].tokens))
    for group, members in groupby(indices, key=lambda i: rows[i].group):
        if group:
            root.children.append(PrefixNode((), 0, list(members)))
        elif share:
            _grow(rows, list(members), root, pass_cost)
        else:
            root.rows = list(members)
    return root


def _grow(rows: Sequence[Row], indices: list[int], node: PrefixNode, pass_cost: int) -> None:
    """Add rows below a node. `indices` are sorted by their rows' tokens, which agree up to `node.depth`."""
    if len(indices) == 1:
        node.rows += indices
        return
    depth = _shared_length([rows[i] for i in indices])
    if (depth - node.depth) * (len(indices) - 1) > pass_cost:
        child = PrefixNode(rows[indices[0]].tokens, depth)
        node.children.append(child)
        node = child
    # Rows whose predictions start here cannot share more; the others are split by their next token.
    node.rows += [i for i in indices if rows[i].start == depth]
    others = [i for i in indices if rows[i].start > depth]
    for _, group in groupby(others, key=lambda i: rows[i].tokens[depth]):
        _grow(rows, list(group), node, pass_cost)


def _shared_length(rows: Sequence[Row]) -> int:
    """Return how many tokens all rows share before the first prediction; rows are sorted, so the ends decide."""
    first, last = rows[0].tokens, rows[-1].tokens
    limit = min(row.start for row in rows)
    return next((i for i in range(limit) if first[i] != last[i]), limit)


def cut_batches(lengths: Sequence[int], max_rows: int, pass_cost: int) -> Iterator[range]:
    """Cut sorted lengths into batches that minimise padded tokens plus the cost of all passes.

    A dynamic programme over the cuts.

    Args:
        lengths: tokens of each row, ascending.
        max_rows: largest batch.
        pass_cost: tokens that cost as much as one more pass.

    Yields:
        Ranges of indices that together cover all lengths, the last one first.
    """
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
