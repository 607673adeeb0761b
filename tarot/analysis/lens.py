"""p_l(answer) = softmax(head(norm(h_l)))[answer's first token]: the logit lens, after each layer.

h_l is what layer l hands on, at the position that predicts the answer. At the last layer this is the model's own
probability. What a model does to its logits (scaling, a soft cap) is done to every layer's, since the model does it.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020); Singh, Dutta and Chakraborty, arXiv 2410.04277.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from tarot.analysis.prompts import batches
from tarot.edit.patch import Patch
from tarot.edit.sites import decoder_layers
from tarot.errors import TarotError
from tarot.models.scoring.scorer import Request

# Rows and positions to read, and what was read there of each layer so far.
At = tuple[Tensor, Tensor]
Kept = list[Tensor]


def _states(out: Any) -> Tensor:
    """What a layer hands on; some hand on a tuple that begins with it."""
    return out if isinstance(out, Tensor) else out[0]


@torch.no_grad()
def final_norm(model: PreTrainedModel) -> nn.Module:
    """The module that stands between the last layer and the output embedding, found by watching one pass.

    TarotError when there is not exactly one, or when it alone does not make the one's output into the other's input.
    """
    layers, head = decoder_layers(model), model.get_output_embeddings()
    owner = next(module for module in model.modules() if any(child is layers for child in module.children()))
    left: list[Tensor] = []
    reached: list[Tensor] = []
    between: list[nn.Module] = []

    def met(module: nn.Module, args: tuple[Any, ...]) -> None:
        if left:
            between.append(module)

    with Patch(head, model) as patch:
        for module in owner.children():
            if module is not layers:
                patch.before(module, met)
        patch.after(layers[-1], lambda _, args, out: left.append(_states(out)))
        patch.before(head, lambda _, args: reached.append(args[0]))
        patch.apply()
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    if len(between) != 1 or not torch.equal(between[0](left[0])[:, -1], reached[0][:, -1]):
        names = ", ".join(type(module).__name__ for module in between) or "nothing"
        raise TarotError(
            "one norm, and nothing else, between the last layer and the output embedding",
            f"{names} in {type(model).__name__}",
            "its layers cannot be read through a logit lens",
        )
    return between[0]


@torch.no_grad()
def layer_probabilities(
    model: PreTrainedModel, requests: Sequence[Request], on_prompts: Callable[[int], None] = lambda n: None
) -> Float[Tensor, "prompt layer"]:
    """Probability of each continuation's first token, read after each layer.

    Args:
        model: a causal language model, edited or not.
        requests: prompts and answers as tokens.
        on_prompts: called after each pass with the number of prompts that it held.
    """
    layers, norm, head = decoder_layers(model), final_norm(model), model.get_output_embeddings()
    found = torch.zeros(len(requests), len(layers))
    for batch in batches(model, [request.context for request in requests], len(layers)):
        at = (batch.rows, batch.last)
        kept: list[Tensor] = []

        def keep(_: nn.Module, args: object, out: Any, at: At = at, to: Kept = kept) -> None:
            to.append(_states(out)[at])

        def every_layer(_: nn.Module, args: tuple[Any, ...], at: At = at, kept: Kept = kept) -> tuple[Any, ...]:
            # What arrives here is the last layer's and went through the norm already.
            own = args[0][at]
            return torch.cat([*(norm(states.to(own.device)) for states in kept[:-1]), own])[None], *args[1:]

        with Patch(head, model) as patch:
            for layer in layers:
                patch.after(layer, keep)
            patch.before(head, every_layer)
            patch.apply()
            logits = model(input_ids=batch.ids, use_cache=False).logits[0]
        tokens = torch.tensor([requests[place].continuation[0] for place in batch.places], device=logits.device)
        chosen = logits.float().softmax(-1).gather(1, tokens.repeat(len(layers))[:, None])
        found[batch.places] = chosen.reshape(len(layers), -1).T.cpu()
        on_prompts(len(batch.places))
    return found
