"""The logit lens: p_l(answer) = softmax(head(norm(h_l)))[first token of the answer], after each layer l.

h_l is the output of layer l at the position that predicts the answer. At the last layer, p_l is the model's own
probability. Logit scaling and soft caps are part of the head, so they apply to every layer.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020); Singh, Dutta and Chakraborty, arXiv 2410.04277.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from tarot.analysis.results import LensResult
from tarot.edit.adapter import Adapter
from tarot.edit.gate import decide_for
from tarot.edit.patch import Patch
from tarot.edit.prompt_batches import prompt_batches
from tarot.edit.rope import initial_rope
from tarot.edit.sites import decoder_layers
from tarot.errors import TarotError
from tarot.evaluation.statistics.means import mean_intervals
from tarot.models.progress import OnStep, ignore_step
from tarot.models.scoring.scorer import Request

LastPositions = tuple[Tensor, Tensor]
"""Row and position of the prediction to read."""


def _hidden_states(out: Any) -> Tensor:
    """Return the hidden states of a layer's output; some layers return a tuple that begins with them."""
    return out if isinstance(out, Tensor) else out[0]


@torch.no_grad()
def find_final_norm(model: PreTrainedModel) -> nn.Module:
    """Return the module between the last layer and the output embedding, found by watching one forward pass.

    Raises:
        TarotError: there is not exactly one such module, or it alone does not turn the last layer's output into the
            output embedding's input.
    """
    layers, head = decoder_layers(model), model.get_output_embeddings()
    owner = next(module for module in model.modules() if any(child is layers for child in module.children()))
    last_output: list[Tensor] = []
    head_input: list[Tensor] = []
    between: list[nn.Module] = []

    def record(module: nn.Module, args: tuple[Any, ...]) -> None:
        if last_output:
            between.append(module)

    with Patch(head, model) as patch:
        for module in owner.children():
            if module is not layers:
                patch.before(module, record)
        patch.after(layers[-1], lambda _, args, out: last_output.append(_hidden_states(out)))
        patch.before(head, lambda _, args: head_input.append(args[0]))
        patch.apply()
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    if len(between) != 1 or not torch.equal(between[0](last_output[0])[:, -1], head_input[0][:, -1]):
        names = ", ".join(type(module).__name__ for module in between) or "nothing"
        raise TarotError(
            "one norm, and nothing else, between the last layer and the output embedding",
            names,
            f"{type(model).__name__} has no logit lens",
        )
    return between[0]


@torch.no_grad()
def layer_probabilities(
    model: PreTrainedModel, requests: Sequence[Request], on_prompts: Callable[[int], None] = lambda n: None
) -> Float[Tensor, "prompt layer"]:
    """Return the probability of each continuation's first token after each layer, a fraction.

    Raises:
        TarotError: the model has no single norm before its output embedding.
    """
    layers, norm, head = decoder_layers(model), find_final_norm(model), model.get_output_embeddings()
    probabilities = torch.zeros(len(requests), len(layers))
    for batch in prompt_batches(model, [request.context for request in requests], len(layers)):
        last = (batch.rows, batch.last)
        states: list[Tensor] = []

        def keep(_: nn.Module, args: object, out: Any, last: LastPositions = last, to: list[Tensor] = states) -> None:
            to.append(_hidden_states(out)[last])

        def all_layers(
            _: nn.Module, args: tuple[Any, ...], last: LastPositions = last, states: list[Tensor] = states
        ) -> tuple[Any, ...]:
            # The head's own input comes from the last layer and has been through the norm.
            own = args[0][last]
            return torch.cat([*(norm(layer.to(own.device)) for layer in states[:-1]), own])[None], *args[1:]

        with initial_rope(model), decide_for(model, batch.prompts), Patch(head, model) as patch:
            for layer in layers:
                patch.after(layer, keep)
            patch.before(head, all_layers)
            patch.apply()
            logits = model(input_ids=batch.ids, use_cache=False).logits[0]
        tokens = torch.tensor([requests[index].continuation[0] for index in batch.indices], device=logits.device)
        chosen = logits.float().softmax(-1).gather(1, tokens.repeat(len(layers))[:, None])
        probabilities[batch.indices] = chosen.reshape(len(layers), -1).T.cpu()
        on_prompts(len(batch.indices))
    return probabilities


def measure_lens(
    model: PreTrainedModel, adapter: Adapter, requests: Sequence[Request], on_step: OnStep = ignore_step
) -> LensResult:
    """Measure the answer's probability after each layer, without and with the edit.

    Raises:
        TarotError: the model has no single norm before its output embedding.
    """
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        on_step("lens", done, 2 * len(requests))

    base = layer_probabilities(model, requests, advance).double()
    with adapter.apply(model):
        edited = layer_probabilities(model, requests, advance).double()
    return LensResult(
        adapter.edit.layers,
        len(requests),
        tuple(base.mean(0).tolist()),
        tuple(edited.mean(0).tolist()),
        tuple(mean_intervals((edited - base).tolist())),
    )
