"""Objective: what a search maximises, a function from an edit's angles to one number."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from tarot.edit.rotation import Rotation
from tarot.edit.sites import Site


class Objective(Protocol):
    """Score an edit of a model; higher is better.

    Implementations may cache expensive results but hold no other state, and leave the model as it was.

    Attributes:
        model: the model that is edited.
        sites: where it is rotated.
        rotation: how angles become a rotation.
        target_score: score at which the training samples are fitted, so that more steps would overfit; infinite if
            there is no such score.
    """

    model: PreTrainedModel
    sites: tuple[Site, ...]
    rotation: Rotation

    @property
    def target_score(self) -> float:
        """Return the score at which the training samples are fitted."""
        ...

    def __call__(self, angles: Float[Tensor, "layer head angle"]) -> float:
        """Return the score of these angles (radians), NaN if the edit is refused."""

    def gradient(self) -> Float[Tensor, "layer head angle"]:
        """Return the gradient of the score at the identity, per radian, or an estimate of it."""


@runtime_checkable
class DifferentiableObjective(Objective, Protocol):
    """An objective with an exact gradient at any angles, which a search can follow."""

    def value_and_grad(
        self, angles: Float[Tensor, "layer head angle"]
    ) -> tuple[float, Float[Tensor, "layer head angle"]]:
        """Return the score of these angles (radians) and its gradient, per radian."""
