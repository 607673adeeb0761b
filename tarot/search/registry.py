"""The searches by name. To add one, write a class with the protocol `Search` and enter it in `SEARCHES`."""

from tarot.errors import InvalidValueError, UnknownName
from tarot.search.adam import Adam
from tarot.search.bayesian import BayesianOptimisation
from tarot.search.paper import Paper
from tarot.search.policy_gradient import TRIAL_COST, PolicyGradient
from tarot.search.protocol import Search
from tarot.search.random import Random

SEARCHES: dict[str, type[Search]] = {
    "adam": Adam,
    "bo": BayesianOptimisation,
    "paper": Paper,
    "policy-gradient": PolicyGradient,
    "random": Random,
}
BUDGET = 120  # of a search by default; a policy gradient gets twice as much, which is 14 steps
GRADIENT_COST = 3  # evaluations that a score with its gradient counts for: the backward pass does twice the work


def trial_cost(search: str) -> int:
    """Return the number of evaluations that one trial of this search counts for.

    Raises:
        UnknownName: no search has this name.

    Example:
        >>> trial_cost("adam"), trial_cost("bo"), trial_cost("policy-gradient")
        (3, 1, 17)
    """
    if search not in SEARCHES:
        raise UnknownName("search", search, SEARCHES)
    strategy = SEARCHES[search]
    if issubclass(strategy, PolicyGradient):
        return TRIAL_COST
    return GRADIENT_COST if strategy.follows_gradient else 1


def default_budget(search: str) -> int:
    """Return the evaluations that a search gets where nobody says how many.

    Example:
        >>> default_budget("adam"), default_budget("policy-gradient")
        (120, 240)
    """
    return 2 * BUDGET if SEARCHES[search] is PolicyGradient else BUDGET


def check_budget(search: str, budget: object) -> None:
    """Raise InvalidValueError if the budget does not pay for one trial of this search."""
    cost = trial_cost(search)
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < cost:
        least = f"a whole number of at least {cost}, the cost of one {search!r} trial"
        raise InvalidValueError(f"budget must be {least}, not {budget!r}.")


def check_trials_per_step(search: str, n: int) -> None:
    """Raise InvalidValueError if this search cannot propose n trials before the score of any is known."""
    if n < 1:
        raise InvalidValueError(f"trials_per_step must be a whole number of at least 1, not {n}.")
    if n > 1 and not SEARCHES[search].in_batches:
        able = ", ".join(name for name, known in SEARCHES.items() if known.in_batches)
        raise InvalidValueError(f"the search {search!r} proposes one trial at a time; searches in batches: {able}.")
