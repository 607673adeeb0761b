"""Times as multiples of the reference workload, and the warning that the machine was busy."""

from hypothesis import given
from hypothesis import strategies as st
from test_regression import comparison

from tarot.evaluation.cost.speed import BUSY, describe_speed_change, describe_time, is_busy, relative_time

TIMES = st.lists(st.floats(0.01, 10), min_size=2, max_size=5).map(tuple)


@given(TIMES)
def test_a_machine_is_busy_if_the_workload_varies(times: tuple[float, ...]) -> None:
    measured = comparison([True], reference_times=times)
    assert is_busy(measured) == (max(times) / min(times) > BUSY)
    value, low = relative_time(measured, 3.0)
    assert low <= value
    assert (
        is_busy(measured)
        == ("busy" in describe_time(measured))
        == ("busy" in describe_speed_change(measured, measured))
    )
    assert is_busy(measured) or "the edited arm takes 1.00 times as long as then" in describe_speed_change(
        measured, measured
    )


def test_an_older_file_does_not_record_it() -> None:
    old = comparison([True])
    assert not is_busy(old)
    assert "not recorded" in describe_time(old) and "not recorded then" in describe_speed_change(old, old)
