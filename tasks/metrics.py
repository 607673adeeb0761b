"""How an answer is judged, twice: among the choices, and among everything the model could have said.

A result is `(log-probability in nats, is it the greedy continuation over the whole vocabulary?)`, one for each choice.
"""

from collections.abc import Sequence
from math import exp, isnan

from sklearn.metrics import f1_score

OUTSIDE = -1  # the greedy answer is none of the choices: a class of its own that is never right


def process_results(doc: dict, results: Sequence[tuple[float, bool]]) -> dict[str, float | tuple[int, int]]:
    """`acc = [argmax log p = gold]`, `greedy_acc = [greedy answer = gold]`, `gold_prob = p(gold)`.

    `f1` and `greedy_f1` are the pairs (gold, prediction) that `weighted_f1` aggregates. Where two choices are both
    greedy, one begins with the other, and the longer is what the model said. A model that an edit has broken, whose
    log-probabilities are no numbers, chooses nothing.
    """
    choices, gold = doc["choices"], doc["gold"]
    broken = any(isnan(value) for value, _ in results)
    likeliest = OUTSIDE if broken else max(range(len(choices)), key=lambda i: results[i][0])
    greedy = max((i for i in range(len(choices)) if results[i][1]), key=lambda i: len(choices[i]), default=OUTSIDE)
    return {
        "acc": float(likeliest == gold),
        "f1": (gold, likeliest),
        "greedy_acc": float(greedy == gold),
        "greedy_f1": (gold, greedy),
        "gold_prob": 0.0 if broken else exp(results[gold][0]),
    }


def weighted_f1(pairs: Sequence[tuple[int, int]]) -> float:
    """`sum_c n_c F1_c / sum_c n_c` over the gold classes `c`, from (gold, prediction) pairs; an F1 of 0/0 is 0."""
    gold, predicted = zip(*pairs, strict=True)
    return float(f1_score(gold, predicted, labels=sorted(set(gold)), average="weighted", zero_division=0))
