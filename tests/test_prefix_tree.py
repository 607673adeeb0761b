"""The plan of shared prefixes: every row runs once, below a prefix that it begins with, in the cheapest batches."""

from hypothesis import given
from hypothesis import strategies as st

from tarot.models.scoring.prefix_tree import PrefixNode, Row, build_tree, cut_batches

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple)
ROWS = st.lists(st.tuples(TOKENS, st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=8)


def make_rows(parts: list[tuple[tuple[int, ...], int, int]]) -> list[Row]:
    """Rows of which none is a prefix of another, as the scorer makes them."""
    rows = {Row((*tokens, 3 + i), min(start, len(tokens)), group * 9) for i, (tokens, start, group) in enumerate(parts)}
    return sorted(rows, key=lambda row: row.tokens)


def nodes(node: PrefixNode) -> list[PrefixNode]:
    return [node, *(each for child in node.children for each in nodes(child))]


@given(ROWS, st.integers(0, 8), st.booleans())
def test_every_row_is_below_a_prefix_that_it_begins_with(
    parts: list[tuple[tuple[int, ...], int, int]], pass_cost: int, share: bool
) -> None:
    rows = make_rows(parts)
    tree = build_tree(rows, pass_cost, share=share)
    assert sorted(i for node in nodes(tree) for i in node.rows) == list(range(len(rows)))
    for node in nodes(tree):
        for i in node.rows:
            assert rows[i].tokens[: node.depth] == node.tokens[: node.depth]
            assert node.depth <= rows[i].start
            assert not node.depth or (share and not rows[i].group)
        for child in node.children:
            assert child.tokens[: node.depth] == node.tokens[: node.depth]
            assert child.depth > node.depth or not child.depth


@given(ROWS, st.integers(0, 8))
def test_sharing_saves_more_than_its_passes_cost(parts: list[tuple[tuple[int, ...], int, int]], pass_cost: int) -> None:
    rows = make_rows(parts)
    tree = build_tree(rows, pass_cost, share=True)
    shared = [node for node in nodes(tree) if node.depth]
    alone = sum(len(row.tokens) for row in rows)
    assert tree.count_tokens(rows) + pass_cost * len(shared) <= alone
    assert build_tree(rows, pass_cost, share=False).count_tokens(rows) == alone


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12).map(sorted), st.integers(1, 6), st.integers(0, 20))
def test_batches_are_the_cheapest_cut(lengths: list[int], max_rows: int, pass_cost: int) -> None:
    def cost(cut: list[range]) -> int:
        return sum(len(run) * lengths[run[-1]] + pass_cost for run in cut)

    def cuts(end: int) -> list[list[range]]:
        return [[*head, range(b, end)] for b in range(max(0, end - max_rows), end) for head in cuts(b)] if end else [[]]

    batches = list(cut_batches(lengths, max_rows, pass_cost))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    if len(lengths) <= 9:
        assert cost(batches) == min(map(cost, cuts(len(lengths))))
