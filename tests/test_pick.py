"""Picking another trial of a search with a limit of divergence."""

import numpy as np
import pytest
from test_kl_limit import LIMIT, Limit, kl_of, search

from tarot.errors import InvalidValueError
from tarot.search.config import TaRotConfig
from tarot.search.pick import pick_trial, require_pick


def test_by_number() -> None:
    result = search(30)
    picked = pick_trial(result, Limit(), 4)
    assert picked.best == result.trials[4]
    assert picked.choice.kl == kl_of(result.trials[4])
    assert pick_trial(result, Limit(), 0).choice.kl == 0.0


@pytest.mark.parametrize("limit", [LIMIT / 4, 2 * LIMIT])
def test_by_divergence(limit: float) -> None:
    result = search(60)
    picked = pick_trial(result, Limit(), limit)
    assert picked.best.score == max(trial.score for trial in result.trials if kl_of(trial) <= limit)
    assert picked.best != result.best


def test_a_trial_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="trial 10"):
        pick_trial(search(30), Limit(), 10)


@pytest.mark.parametrize("pick", [-1, True, float("inf"), float("nan"), "3"])
def test_wrong_values_are_refused(pick: object) -> None:
    with pytest.raises(InvalidValueError, match="pick"):
        require_pick(TaRotConfig("a", max_kl=0.03), pick)


@pytest.mark.parametrize("pick", [np.int64(3), np.float32(0.02), 3, 0.02])
def test_numbers_of_numpy_become_plain_ones(pick: float) -> None:
    """A recipe could not hold them."""
    plain = require_pick(TaRotConfig("a", max_kl=0.03), pick)
    assert plain == pick and type(plain) is (int if pick == 3 else float)


def test_a_limit_is_needed() -> None:
    assert require_pick(TaRotConfig("a"), None) is None
    with pytest.raises(InvalidValueError, match="max_kl"):
        require_pick(TaRotConfig("a", max_kl=None), 3)
