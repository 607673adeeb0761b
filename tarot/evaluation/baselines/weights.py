"""What rivals leave behind: some of a model's weights, replaced while a context is open."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor
from transformers import PreTrainedModel

from tarot.edit.patch import Patch
from tarot.errors import TarotError
from tarot.objectives.answers import AnswerObjective


@dataclass(frozen=True, eq=False)
class WeightEdit:
    """Parameters by name and what they become, used wherever an adapter is.

    `stored_bytes` is what the method itself would have to store, which is less than the weights it changes. Like an
    adapter's merged weights these cost nothing at inference.
    """

    weights: Mapping[str, Tensor]
    stored_bytes: int
    provenance: Mapping[str, object]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the replaced weights."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.weights.items()):
            digest.update(name.encode() + weight.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @contextmanager
    def apply(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """The model with these weights; on leaving, the ones of before, bit for bit.

        Raises:
            TarotError: a weight that the model does not have.
        """
        parameters = dict(model.named_parameters())
        if unknown := sorted(self.weights.keys() - parameters.keys()):
            raise TarotError("weights of this model", unknown[0])
        with Patch(model) as patch:
            for name, weight in self.weights.items():
                owner = model.get_submodule(name.rpartition(".")[0])
                patch.replace(owner, parameters[name], "data", weight.to(parameters[name].data))
            patch.apply()
            yield model


def check_differentiable(objective: AnswerObjective) -> None:
    """Raise TarotError unless the objective's score has a gradient in the weights."""
    if not objective.answer_score.is_differentiable:
        raise TarotError("an objective with a gradient", "one that counts", "try log_probability")
