"""Claim one of lm-eval's response caches for one model and edit."""

from typing import Any

from tarot.errors import TarotError

# Key for the model and edit whose answers a cache holds. No hash of a request has this form.
OWNER = "tarot:owner"


def claim_response_cache(cache: Any, owner: str) -> None:
    """Record whose answers a cache holds: lm-eval's own keys contain only the prompts.

    Args:
        cache: lm-eval's table of responses, such as an SqliteDict.
        owner: names model and edit.

    Raises:
        TarotError: the cache belongs to another owner.
    """
    if (stored := cache.get(OWNER, "another model" if len(cache) else owner)) != owner:
        raise TarotError(f"a response cache of {owner}", f"one of {stored}", "give --use_cache another path")
    cache[OWNER] = owner
    cache.commit()
