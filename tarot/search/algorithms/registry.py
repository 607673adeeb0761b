"""The searches by name.

To add one, write a subclass of `tarot.search.algorithms.base.Search`, enter it in `SEARCHES`, and add its name to
`tarot.search.names` and to `_Search` in `tarot.cli.recipe`.
"""

import warnings

from tarot.arguments import Registry, require_whole_number
from tarot.errors import InvalidValueError
from tarot.search.algorithms.adam import Adam
from tarot.search.algorithms.base import Search
from tarot.search.algorithms.gradient_bayesian import GradientBayesianOptimisation
from tarot.search.algorithms.policy_gradient import PolicyGradient
from tarot.search.algorithms.random import Random

with warnings.catch_warnings():
    # linear_operator, which BoTorch depends on, compiles functions with a deprecated part of torch.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
    from tarot.search.algorithms.bayesian import BayesianOptimisation
    from tarot.search.algorithms.paper import Paper

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


def require_budget(search: str, budget: object) -> int:
    """Return a budget; InvalidValueError if it does not pay for one trial of this search."""
    return require_whole_number("budget", budget, SEARCHES[search].trial_cost, f", the cost of one {search!r} trial")


def require_trials_per_step(search: str, trials_per_step: object) -> int:
    """Return a number of trials; InvalidValueError if the search cannot propose so many before the score of any."""
    n = require_whole_number("trials_per_step", trials_per_step, least=1)
    if n > 1 and not SEARCHES[search].in_batches:
        able = ", ".join(name for name, known in SEARCHES.items() if known.in_batches)
        raise InvalidValueError(f"the search {search!r} proposes one trial at a time; searches in batches: {able}.")
    return n
