"""The searches by name. To add one, write a class with the protocol `Search` and enter it in `SEARCHES`."""

from tarot.arguments import Registry, require_whole_number
from tarot.errors import InvalidValueError
from tarot.search.adam import Adam
from tarot.search.bayesian import BayesianOptimisation
from tarot.search.gradient_bayesian import GradientBayesianOptimisation
from tarot.search.paper import Paper
from tarot.search.policy_gradient import TRIAL_COST, PolicyGradient
from tarot.search.protocol import Search
from tarot.search.random import Random

SEARCHES: Registry[type[Search]] = Registry(
    "search",
    {
        "adam": Adam,
        "bo": BayesianOptimisation,
        "bo-gradient": GradientBayesianOptimisation,
        "paper": Paper,
        "policy-gradient": PolicyGradient,
        "random": Random,
    },
)
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


def require_budget(search: str, budget: object) -> int:
    """Return a budget; InvalidValueError if it does not pay for one trial of this search."""
    return require_whole_number("budget", budget, trial_cost(search), f", the cost of one {search!r} trial")


def require_trials_per_step(search: str, trials_per_step: object) -> int:
    """Return a number of trials; InvalidValueError if the search cannot propose so many before the score of any."""
    n = require_whole_number("trials_per_step", trials_per_step, least=1)
    if n > 1 and not SEARCHES[search].in_batches:
        able = ", ".join(name for name, known in SEARCHES.items() if known.in_batches)
        raise InvalidValueError(f"the search {search!r} proposes one trial at a time; searches in batches: {able}.")
    return n
