"""Pareto front: the trials that no other trial beats in reward and fluency."""

from statistics import fmean

from hypothesis import given
from hypothesis import strategies as st

from tarot.objectives.rewards.text_scores import TextScores
from tarot.search.kl_limit import RECENT
from tarot.search.pareto import pareto_front, retention_front
from tarot.search.trials import Trial

reward_and_fluency = st.lists(st.tuples(st.integers(0, 4), st.integers(-4, 0)), max_size=8)


@given(reward_and_fluency)
def test_the_front_is_what_no_other_trial_beats(values: list[tuple[int, int]]) -> None:
    scores = {i: TextScores(float(r), float(f), 1.0, 0.0) for i, (r, f) in enumerate(values)}
    front = pareto_front(scores)
    best = {(r, f) for r, f in values if not any(r2 >= r and f2 >= f and (r2, f2) != (r, f) for r2, f2 in values)}
    assert [(scores[i].reward, scores[i].fluency) for i in front] == sorted(best, key=lambda pair: pair[1])


@given(
    st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 4)), max_size=12),
    st.dictionaries(st.integers(1, 11), st.floats(0, 4), max_size=4),
)
def test_the_front_of_retention_is_what_no_other_trial_beats(
    values: list[tuple[int, int]], measured: dict[int, float]
) -> None:
    trials = [Trial(i, (0.5,), float(s), "gradient", 0.0, 0.0, kl=float(kl)) for i, (s, kl) in enumerate(values)]
    # The divergence of a trial is estimated by the mean over the last eight, which read half of the contexts. That of
    # the identity is known, and tells nothing about others.
    recent = [fmean(kl for _, kl in values[max(1, i + 1 - RECENT) : i + 1]) for i in range(1, len(values))]
    known = {0: 0.0, **{i: kl for i, kl in measured.items() if i < len(values)}}
    kls = [known.get(i, kl) for i, kl in enumerate([0.0, *recent][: len(values)])]
    points = [(s, kl) for (s, _), kl in zip(values, kls, strict=True)]
    best = {(s, kl) for s, kl in points if not any(s2 >= s and k2 <= kl and (s2, k2) != (s, kl) for s2, k2 in points)}
    front = retention_front(trials, known)
    assert [(point.score, point.kl) for point in front] == sorted(best, key=lambda point: point[1])


def test_failed_trials_are_not_on_the_front() -> None:
    failed = Trial(1, (0.5,), float("nan"), "gradient", 0.0, 0.0)
    assert [
        point.index for point in retention_front([Trial(0, (0.5,), 0.0, "identity", 0.0, 0.0, kl=0.0), failed])
    ] == [0]
