"""Pick another trial of a search than the best one within its limit of divergence."""

import math
from dataclasses import replace

from tarot.arguments import as_integer, require_number
from tarot.errors import InvalidValueError
from tarot.search.config import TaRotConfig
from tarot.search.kl_limit import Choice, choose_trial
from tarot.search.loop import SearchResult
from tarot.search.retention import RetentionLimit


def require_pick(config: TaRotConfig, pick: object) -> int | float | None:
    """Return `pick` as an int, which is the number of a trial, as a float, which is a divergence, or None.

    Raises:
        InvalidValueError: it is something else, or the configuration has no limit of divergence.
    """
    if pick is None:
        return None
    if config.max_kl is None:
        raise InvalidValueError("pick needs a search with a limit of divergence; set max_kl.")
    allowed = "the number of a trial, or nats a token such as 0.02"
    number = require_number("pick", pick, allowed, lambda x: 0 <= x < math.inf)
    return number if as_integer(pick) is None else int(number)


def pick_trial(result: SearchResult, limit: RetentionLimit, pick: int | float) -> SearchResult:
    """Return a result with another chosen trial.

    Args:
        result: of a search with a limit.
        limit: its limit.
        pick: number of a trial (int), or another limit in nats a token (float).

    Raises:
        InvalidValueError: there is no such trial, or it failed.
    """
    if isinstance(pick, float):
        return replace(result, choice=choose_trial(result.trials, replace(limit, max_kl=pick)))
    if pick >= len(result.trials) or not math.isfinite(result.trials[pick].score):
        raise InvalidValueError(f"There is no trial {pick} with a score among the {len(result.trials)} trials.")
    trial = result.trials[pick]
    kl = limit.kl(trial.point) if pick else 0.0
    return replace(result, choice=Choice(trial, kl))
