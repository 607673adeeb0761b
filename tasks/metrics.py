"""Metrics of tasks with choices: of the likeliest choice, and of the greedy answer over the whole vocabulary.

A result is `(log-probability in nats, whether the choice is the greedy continuation)`, one for each choice.
"""

from collections.abc import Sequence
from math import exp, isnan

from sklearn.metrics import f1_score

OUTSIDE = -1  # prediction if the greedy answer is not among the choices; never right


def process_results(doc: dict, results: Sequence[tuple[float, bool]]) -> dict[str, float | tuple[int, int]]:
    """Score one document: `acc = [argmax log p = gold]`, `greedy_acc = [greedy answer = gold]`, `gold_prob = p(gold)`.

    `f1` and `greedy_f1` are the pairs (gold, prediction) that `weighted_f1` aggregates. If one choice is a prefix of
    another, both may be greedy; the longer is the answer. If a log-probability is NaN, because an edit broke the model,
    the prediction is `OUTSIDE`.
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
    """Return `sum_c n_c F1_c / sum_c n_c` over the gold classes `c` of (gold, prediction) pairs; an F1 of 0/0 is 0."""
    gold, predicted = zip(*pairs, strict=True)
    return float(f1_score(gold, predicted, labels=sorted(set(gold)), average="weighted", zero_division=0))
