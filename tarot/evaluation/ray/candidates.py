"""Candidates of one search, each scored by a task of a Ray cluster.

A machine that scores its first candidate loads model and samples, and keeps them for the next ones.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from tarot.errors import TarotError
from tarot.evaluation.ray.cluster import Cluster, Resources
from tarot.models.load import load_model
from tarot.search.config import TaRotConfig
from tarot.search.problem import Evaluation, Problem
from tarot.search.space import Angles


class RayScorer(Cluster):
    """A Ray cluster that scores what `tarot.search.tune.tune` proposes in batches; it gives the scores of this process.

    Args:
        model: its reference, which all machines can load.
        recipe: of the search.
        needs: what the scoring of a candidate is given.
        address: as for `Cluster`, whose errors it has. Batches of one are an error too.
        dtype: as for `load_model`.
        include_path: folder of further task files, on a path that all machines see.
        batch_size: most sequences of one pass; None leaves it to us.
    """

    def __init__(
        self,
        model: str,
        config: TaRotConfig,
        needs: Resources,
        address: str | None = None,
        *,
        dtype: str = "auto",
        include_path: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        if config.trials_per_step < 2:
            raise TarotError(
                "batches of at least 2 candidates for a cluster", str(config.trials_per_step), "try --batch 4"
            )
        super().__init__(needs, address)
        self._asked = (model, dtype, config, include_path, batch_size)

    def __call__(self, batch: Sequence[Angles]) -> Iterator[Evaluation]:
        """What the candidates score, in their order.

        Raises:
            TarotError: what loading or scoring raises there, and no machine that has what is needed.
        """
        tasks = [self.submit("candidate", _scored, self._asked, angles.numpy()) for angles in batch]
        scored: dict[Any, Evaluation] = {}
        waiting = list(tasks)
        for task, value in self.finished(tasks):
            scored[task] = value()
            while waiting and waiting[0] in scored:
                yield scored[waiting.pop(0)]


def _scored(needs: Resources, asked: tuple[Any, ...], angles: np.ndarray) -> Evaluation:
    return _problem(needs, *asked).evaluate(torch.from_numpy(angles))


@lru_cache(maxsize=1)
def _problem(
    needs: Resources, model: str, dtype: str, config: TaRotConfig, include_path: str | None, batch_size: int | None
) -> Problem:
    """This process's, until it is asked for another."""
    where = needs.models()
    loaded = load_model(model, device=where.device, dtype=dtype, device_map=where.device_map)
    return Problem.from_config(loaded, config, include_path, batch_size)
