"""Score the candidates of one search, each as a task of a Ray cluster.

A process loads model and samples when it scores its first candidate, and keeps them for the next ones.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from tarot.edit.rotation import Angles
from tarot.errors import TarotError
from tarot.evaluation.ray.cluster import Cluster, Resources
from tarot.models.load import load_model
from tarot.models.precision import fast_products
from tarot.objectives.kind import ObjectiveKind
from tarot.objectives.objective import Evaluation
from tarot.search.config import TaRotConfig
from tarot.search.problem import Problem


class RayScorer(Cluster):
    """A Ray cluster that scores what a search proposes; it gives the scores that this process would.

    Args:
        model: reference of the model, which all machines can load.
        config: what is searched.
        resources: what the scoring of a candidate may use.
        address: `HOST:PORT`, `ray://HOST:PORT` or `auto`; None starts Ray on this machine.
        dtype: dtype to load the model with, or `auto`.
        include_path: folder of further task files, on a path that all machines share.
        batch_size: largest number of sequences in one pass; None chooses it.

    Raises:
        TarotError: the search proposes one candidate at a time.
    """

    def __init__(
        self,
        model: str,
        config: TaRotConfig,
        resources: Resources,
        address: str | None = None,
        *,
        dtype: str = "auto",
        include_path: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        if config.trials_per_step < 2:
            expected = "batches of at least 2 candidates for a cluster"
            raise TarotError(expected, str(config.trials_per_step), "try --trials-per-step 4")
        super().__init__(resources, address)
        self._problem = (model, dtype, config, include_path, batch_size)

    def __call__(self, batch: Sequence[Angles]) -> Iterator[Evaluation]:
        """Yield the scores of a batch of candidates, in their order.

        Raises:
            TarotError: what loading or scoring raises there; or no machine has the resources.
        """
        tasks = [self.submit("candidate", _score, self._problem, angles.numpy()) for angles in batch]
        scored: dict[Any, Evaluation] = {}
        waiting = list(tasks)
        for task, value in self.finished(tasks):
            scored[task] = value()
            while waiting and waiting[0] in scored:
                yield scored[waiting.pop(0)]


def _score(resources: Resources, problem: tuple[Any, ...], angles: np.ndarray) -> Evaluation:
    made = _load_problem(resources, *problem)
    with nullcontext() if made.config.kind is ObjectiveKind.FUNCTION else fast_products():
        return made.objective.measure(torch.from_numpy(angles))


@lru_cache(maxsize=1)
def _load_problem(
    resources: Resources, model: str, dtype: str, config: TaRotConfig, include_path: str | None, batch_size: int | None
) -> Problem:
    """Return this process's problem; another one replaces it."""
    placement = resources.models()
    loaded = load_model(model, device=placement.device, dtype=dtype, device_map=placement.device_map)
    return Problem.from_config(loaded, config, include_path, batch_size)
