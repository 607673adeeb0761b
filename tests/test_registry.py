"""The registry of searches: protocol, names, budgets and batches."""

import pytest
import torch
from landscapes import hill, with_gradient

from tarot.errors import InvalidValueError, UnknownName
from tarot.search.algorithms.base import Proposal, Search
from tarot.search.algorithms.registry import SEARCHES
from tarot.search.loop import run_search
from tarot.search.trials import Trial


@pytest.mark.parametrize("search", SEARCHES)
def test_every_search_starts_at_the_identity_and_depends_on_seed_and_history_alone(search: str) -> None:
    value_and_grad = with_gradient(lambda x: -((x - 0.3) ** 2).sum())
    budget = 4 * SEARCHES[search].trial_cost
    trials = run_search(hill(0.3), 3, search=search, budget=budget, seed=1, value_and_grad=value_and_grad).trials
    assert trials[0].x == (0.5, 0.5, 0.5) and trials[0].origin == "identity"
    assert all(0 <= coordinate <= 1 for trial in trials for coordinate in trial.x)
    strategy = SEARCHES[search](3, 1)
    for k in (3, 1, 0, 2):
        torch.manual_seed(k)
        assert tuple(strategy.propose(trials[:k]).x.tolist()) == trials[k].x


def test_a_registered_search_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Corner(Search):
        def propose(self, history: list[Trial], pending: tuple = ()) -> Proposal:
            if not history:
                return Proposal(torch.full((self.d,), 0.5, dtype=torch.float64), "identity")
            return Proposal(torch.ones(self.d, dtype=torch.float64), "random")

    monkeypatch.setitem(SEARCHES, "corner", Corner)
    result = run_search(hill(1.0), 2, search="corner", budget=2, seed=0)
    assert [trial.x for trial in result.trials] == [(0.5, 0.5), (1.0, 1.0)]


def test_unknown_search_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'paper'\?"):
        run_search(hill(0.3), 2, search="papier", budget=3, seed=0)


@pytest.mark.parametrize("budget", [0, -3, False])
def test_budget_must_pay_for_a_trial(budget: int) -> None:
    with pytest.raises(InvalidValueError, match="budget"):
        run_search(hill(0.3), 2, search="random", budget=budget, seed=0)


@pytest.mark.parametrize("search", ["adam", "paper"])
def test_sequential_searches_refuse_batches(search: str) -> None:
    with pytest.raises(InvalidValueError, match="bo, random"):
        run_search(hill(0.3), 2, search=search, budget=30, seed=0, trials_per_step=2, value_and_grad=lambda x: (0.0, x))
    with pytest.raises(InvalidValueError, match="trials_per_step"):
        run_search(hill(0.3), 2, search=search, budget=30, seed=0, trials_per_step=0)
