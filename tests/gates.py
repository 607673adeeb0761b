"""Gates that open for some prompts of a model and stay closed for others, with a margin on both sides."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from tarot.edit.adapter import Adapter
from tarot.edit.gate import PromptGate, prompt_features


def separating_gate(
    model: PreTrainedModel,
    opened: Sequence[Sequence[int]],
    closed: Sequence[Sequence[int]],
    layer: int = 0,
    *,
    seed: int = 0,
) -> PromptGate:
    """Return a gate that scores at least 1 for the opened prompts and at most -1 for the closed ones.

    The prompts must differ enough: the least-squares solution has to fit them exactly.
    """
    features = prompt_features(model, layer, [*opened, *closed]).double()
    targets = torch.tensor([2.0] * len(opened) + [-2.0] * len(closed)).double()
    centre = features.mean(0)
    weight = torch.linalg.lstsq(features - centre, targets - targets.mean(), driver="gelsd").solution
    bias = float(targets.mean() - centre @ weight)
    gate = PromptGate(layer, weight, bias)
    scores = gate.scores(features)
    assert scores[: len(opened)].gt(1).all() and scores[len(opened) :].lt(-1).all(), "the prompts are too much alike"
    return gate


def constant_gate(model: PreTrainedModel, is_open: bool, layer: int = 0) -> PromptGate:
    """Return a gate that is open, or closed, for every prompt."""
    n_features = model.config.get_text_config().hidden_size
    return PromptGate(layer, torch.zeros(n_features), 1.0 if is_open else -1.0)


def gated(adapter: Adapter, gate: PromptGate) -> Adapter:
    return replace(adapter, gate=gate)
