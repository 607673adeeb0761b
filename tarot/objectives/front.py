"""The Pareto front: points that no other equals or beats in both of two numbers. Imports no torch."""

import math
from collections.abc import Mapping


def find_front(points: Mapping[int, tuple[float, float]]) -> list[int]:
    """Return the keys of the points on the front, by falling first number; of equal points the first.

    Example:
        >>> find_front({0: (1.0, 2.0), 1: (3.0, 0.0), 2: (0.0, 1.0), 3: (3.0, 0.0)})
        [1, 0]
    """
    front, highest = [], -math.inf
    for key in sorted(points, key=points.__getitem__, reverse=True):  # stable, so equal points keep their order
        if points[key][1] > highest:
            front.append(key)
            highest = points[key][1]
    return front
