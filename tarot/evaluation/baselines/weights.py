"""The edit of a baseline: some weights of a model, replaced while a context is open."""

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
    """New weights of a model, which `tarot.evaluate` accepts in place of an adapter.

    Like an adapter's merged weights they cost nothing at inference.

    Attributes:
        weights: the new value of each changed parameter, by name.
        stored_bytes: what the method itself has to store, which is less than the weights that it changes.
        provenance: plain JSON values on how the weights were found.

    Example:
        >>> edit = WeightEdit({"lm_head.weight": 2 * model.lm_head.weight}, 0, {"method": "doubled"})
        >>> with edit.apply(model):
        ...     _ = model.generate(**tokenizer("Yes or no?", return_tensors="pt"), max_new_tokens=1)
    """

    weights: Mapping[str, Tensor]
    stored_bytes: int
    provenance: Mapping[str, object]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the new weights."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.weights.items()):
            digest.update(name.encode() + weight.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @contextmanager
    def apply(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """Give a model the new weights for the body, and restore the old ones after it, bit for bit.

        Raises:
            TarotError: the model has no parameter of that name.
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
        raise TarotError("an objective with a gradient", "one that counts right answers", "try log_probability")
