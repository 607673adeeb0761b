"""The log of measured divergences: what it answers, and files that it does not trust."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tarot.search.divergence_log import DIVERGENCES_FILE, DivergenceLog, RetentionNotes

RETAINED = "0123456789abcdef"
NOTES: RetentionNotes = {"contexts": {"prompts": 3}, "tokens": 12, "left_out_probability": 0.25}
KLS = st.floats(0, 1)
QUESTIONS = st.lists(st.tuples(st.integers(0, 2), KLS | st.just(math.inf)), max_size=12)


def refuse() -> float:
    raise AssertionError("measured again")


@given(kls=st.tuples(KLS, KLS, KLS), share=st.floats(0.5, 1), questions=QUESTIONS)
def test_an_answer_is_exact_up_to_the_bound_and_above_it_otherwise(
    kls: tuple[float, ...], share: float, questions: list[tuple[int, float]]
) -> None:
    log = DivergenceLog(None, RETAINED)
    for i, stop_above in questions:
        point, kl = torch.tensor([0.5, float(i)]), kls[i]
        # What is measured may stop anywhere between the bound and the whole.
        reached = max(share * kl, math.nextafter(stop_above, math.inf)) if kl > stop_above else kl
        answer = log.kl(point, stop_above, partial(float, min(reached, kl)))
        assert answer == kl if kl <= stop_above else stop_above < answer <= kl
        assert log.kl(point, stop_above, refuse) == answer
        assert log.measured_kl(point) == kl or (log.measured_kl(point) is None and kl > stop_above)


def test_what_was_measured_is_read_back(tmp_path: Path) -> None:
    log, point = DivergenceLog(tmp_path, RETAINED), torch.tensor([0.5, 0.75], dtype=torch.float64)
    assert log.notes is None
    assert log.kl(point, 0.02, lambda: 0.01) == 0.01
    log.keep_notes(NOTES)
    again = DivergenceLog(tmp_path, RETAINED)
    assert again.kl(point, math.inf, refuse) == 0.01
    assert again.notes == NOTES


def test_a_divergence_that_is_no_number_is_not_kept() -> None:
    log, point = DivergenceLog(None, RETAINED), torch.zeros(1)
    assert math.isnan(log.kl(point, 0.02, lambda: math.nan))
    assert log.kl(point, 0.02, lambda: 0.5) == 0.5


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"retained": "0123456789abcdef", "notes": null, "points": {"a": {"kl": "0"}}}', b"\xff" * 9],
)
def test_a_damaged_file_counts_as_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DIVERGENCES_FILE).write_bytes(content)
    log = DivergenceLog(tmp_path, RETAINED)
    assert log.kl(torch.zeros(1), 0.02, lambda: 0.01) == 0.01
    assert DivergenceLog(tmp_path, RETAINED).kl(torch.zeros(1), 0.02, refuse) == 0.01


def test_divergences_on_other_contexts_are_not_used(tmp_path: Path) -> None:
    DivergenceLog(tmp_path, RETAINED).kl(torch.zeros(1), 0.02, lambda: 0.01)
    assert DivergenceLog(tmp_path, "f" * 16).kl(torch.zeros(1), 0.02, lambda: 0.5) == 0.5
