"""Text metrics: how varied generated texts are, counted in word n-grams.

Source: distinct-n, Li et al., arXiv 1510.03055.
"""

from collections import Counter
from collections.abc import Iterator, Sequence


def distinct(texts: Sequence[str], n: int = 2) -> float:
    """Return the fraction of different n-grams among the n-grams of all texts.

    Returns:
        1 if no n-gram occurs twice, 0 if there are none.

    Example:
        >>> distinct(["a b", "a b"])
        0.5
    """
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def distinct_without(texts: Sequence[str], n: int = 2) -> list[float]:
    """Return, for each text in turn, `distinct` of all others: the replicates of a jackknife.

    Example:
        >>> distinct_without(["a b", "a b", "a c"])
        [1.0, 1.0, 0.5]
    """
    counts = [Counter(_ngrams(text, n)) for text in texts]
    total = sum(counts, Counter[tuple[str, ...]]())
    replicates = []
    for own in counts:
        n_left = total.total() - own.total()
        n_lost = sum(total[gram] == count for gram, count in own.items())
        replicates.append((len(total) - n_lost) / n_left if n_left else 0.0)
    return replicates


def repetition(text: str, n: int = 2) -> float:
    """Return the fraction of a text's n-grams that occur earlier in it; 0 if there are none.

    Example:
        >>> repetition("so good so good")
        0.33333333333333337
    """
    grams = list(_ngrams(text, n))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _ngrams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    words = text.lower().split()
    return zip(*(words[i:] for i in range(n)), strict=False)
