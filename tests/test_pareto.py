"""Pareto front: the trials that no other trial beats in reward and fluency."""

from hypothesis import given
from hypothesis import strategies as st

from tarot.objectives.text_scores import TextScores
from tarot.search.pareto import pareto_front

reward_and_fluency = st.lists(st.tuples(st.integers(0, 4), st.integers(-4, 0)), max_size=8)


@given(reward_and_fluency)
def test_the_front_is_what_no_other_trial_beats(values: list[tuple[int, int]]) -> None:
    scores = {i: TextScores(float(r), float(f), 1.0, 0.0) for i, (r, f) in enumerate(values)}
    front = pareto_front(scores)
    best = {(r, f) for r, f in values if not any(r2 >= r and f2 >= f and (r2, f2) != (r, f) for r2, f2 in values)}
    assert [(scores[i].reward, scores[i].fluency) for i in front] == sorted(best, key=lambda pair: pair[1])
