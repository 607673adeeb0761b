"""Names of searches: the one place where a search is registered."""

from tarot.search.adam import Adam
from tarot.search.bayesian import BayesianOptimisation
from tarot.search.paper import Paper, Published
from tarot.search.protocol import Search
from tarot.search.random import Random

SEARCHES: dict[str, type[Search]] = {
    "adam": Adam,
    "bo": BayesianOptimisation,
    "paper": Paper,
    "published": Published,
    "random": Random,
}


GRADIENT_COST = 3  # evaluations that a score and its gradient count for: a pass forward, and one back of twice its work


def trial_cost(search: str) -> int:
    """Evaluations that one trial of this search counts for."""
    return GRADIENT_COST if SEARCHES[search].follows_gradient else 1
