"""The Pareto front of two numbers, against its definition."""

from hypothesis import given
from hypothesis import strategies as st

from tarot.objectives.front import find_front


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), max_size=8))
def test_the_front_is_what_no_other_point_equals_or_beats(points: list[tuple[int, int]]) -> None:
    by_key = dict(enumerate(points))
    beaten = {
        i
        for i, point in by_key.items()
        for k, other in by_key.items()
        if other[0] >= point[0] and other[1] >= point[1] and (other != point or k < i)
    }
    front = find_front(by_key)
    assert set(front) == set(by_key) - beaten
    assert [by_key[i][0] for i in front] == sorted((by_key[i][0] for i in front), reverse=True)
