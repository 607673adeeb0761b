"""The unit of times, and the words for a machine."""

import torch

from tarot.evaluation.cost.reference_workload import REPEATS, describe_machine, time_reference_workload


def test_each_repeat_is_timed() -> None:
    times = time_reference_workload()
    assert len(times) == REPEATS > 1
    assert all(seconds > 0 for seconds in times)


def test_a_machine_is_described_without_its_name() -> None:
    described = describe_machine(torch.device("cpu"))
    assert "1 of " in described and described.endswith(", CPU")
    import platform

    assert platform.node() not in described
