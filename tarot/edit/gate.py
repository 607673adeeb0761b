"""Prompt gates: a linear probe on a prompt that decides, once a sequence, whether an edit acts on it.

    x_t   = hidden state of token t before layer `layer`, scaled to a root mean square of 1
    score = w . mean_t(x_t) + bias,   over the tokens of the prompt, padding aside
    open  = score > 0

Before layer 0 the hidden states are the embeddings. The layers below `layer` run once more for each prompt, without the
edit, so that a gate may look at a layer above the first edited one.

Source: Lee et al., "Programming Refusal with Conditional Activation Steering", arXiv 2409.05907, which steers only if
the prompt's hidden state meets a condition.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from tarot.edit.patch import Patch, restoring
from tarot.edit.prompt_batches import prompt_batches
from tarot.edit.rope import initial_rope
from tarot.edit.sites import decoder_layers
from tarot.errors import InvalidValueError, ShapeMismatch, TarotError


@dataclass(frozen=True, eq=False)
class PromptGate:
    """Condition that opens an edit: a layer, a weight for each feature of a prompt, and a bias.

    Args:
        layer: the layer before which hidden states are read; 0 reads the embeddings.
        weight: one for each dimension of the mean of the hidden states.
        bias: added to the score; the gate opens above 0.

    Raises:
        InvalidValueError: the layer is negative, or a number is not finite.

    Example:
        >>> gate = PromptGate(0, torch.ones(576), -3.0)
        >>> gate.opens(torch.ones(1, 576)).tolist()
        [True]
    """

    layer: int
    weight: Float[Tensor, " feature"]
    bias: float
    decisions: WeakKeyDictionary[Cache, Tensor] = field(default_factory=WeakKeyDictionary, init=False, repr=False)
    """Decisions for the rows of each KV cache; kept here, so that an edit may be closed and opened again."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy the gate without its decisions, since caches are not copied with it."""
        return PromptGate, (self.layer, self.weight, self.bias)

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise InvalidValueError("a gate's layer of at least 0", str(self.layer))
        if not (self.weight.isfinite().all() and torch.tensor(self.bias).isfinite()):
            raise InvalidValueError("finite weights of a gate", "some that are not")

    def scores(self, features: Float[Tensor, "row feature"]) -> Float[Tensor, " row"]:
        """Return the score of each prompt; the gate opens above 0."""
        return features.double() @ self.weight.to(features.device).double() + self.bias

    def opens(self, features: Float[Tensor, "row feature"]) -> Bool[Tensor, " row"]:
        """Return which prompts the edit acts on."""
        return self.scores(features) > 0

    def check_fits(self, model: PreTrainedModel) -> None:
        """Raise InvalidValueError or ShapeMismatch unless the gate reads hidden states of this model."""
        hint = "this adapter is for another model"
        if self.layer >= (layers := len(decoder_layers(model))):
            raise InvalidValueError(
                f"a model with a layer {self.layer} for the gate", f"one with {layers} layers", hint
            )
        expected = (model.config.get_text_config(decoder=True).hidden_size,)
        if tuple(self.weight.shape) != expected:
            raise ShapeMismatch("weights of the gate", expected, tuple(self.weight.shape), hint)


@torch.no_grad()
def prompt_features(
    model: PreTrainedModel, layer: int, prompts: Sequence[Sequence[int]]
) -> Float[Tensor, "prompt feature"]:
    """Return what a gate before a layer sees of prompts, in float32 on the CPU.

    Args:
        model: a causal language model.
        layer: the layer before which hidden states are read.
        prompts: token ids of each prompt, at least one.
    """
    features: dict[int, Tensor] = {}
    for batch in prompt_batches(model, prompts, logits_per_prompt=0):
        mask = (torch.arange(batch.ids.shape[1]) <= batch.last[:, None]).long()
        arguments = {"input_ids": batch.ids, "attention_mask": mask.to(model.device)}
        with initial_rope(model):
            features.update(zip(batch.indices, _read_features(model, layer, arguments).cpu(), strict=True))
    return torch.stack([features[i] for i in range(len(prompts))])


class _HiddenStates(Exception):
    """Carries hidden states out of a pass, which ends there."""

    def __init__(self, states: Tensor) -> None:
        self.states = states


def _read_features(model: PreTrainedModel, layer: int, arguments: Mapping[str, Any]) -> Float[Tensor, "row feature"]:
    """Run the layers below one and return the features of each row."""

    def capture(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NoReturn:
        raise _HiddenStates(args[0] if args else kwargs["hidden_states"])

    module = decoder_layers(model)[layer]
    with Patch(module) as patch:
        patch.before(module, capture, with_kwargs=True)
        patch.apply()
        try:
            model.get_decoder()(**arguments, use_cache=False)
        except _HiddenStates as captured:
            return _pool(captured.states.float(), arguments.get("attention_mask"))
    raise TarotError(f"{type(model).__name__} did not run its layer {layer}, which the gate reads.")


def _pool(states: Float[Tensor, "row token hidden"], mask: Int[Tensor, "row token"] | None) -> Tensor:
    """Return the mean of the hidden states of each row's own tokens, every one at a root mean square of 1."""
    states = states * states.square().mean(-1, keepdim=True).clamp(min=1e-12).rsqrt()
    own = states.new_ones(states.shape[:2]) if mask is None else (mask != 0).to(states)
    return (states * own[..., None]).sum(1) / own.sum(1, keepdim=True).clamp(min=1)


class GateState:
    """Decisions of a gate for the rows of the current pass, shared by all hooks of a gated edit.

    The decision is made in the pass that fills a KV cache, or in a pass without one, and kept with the cache for the
    passes that extend it. Beam search reorders rows within one prompt only, which share their decision.
    """

    def __init__(self, model: PreTrainedModel, gate: PromptGate) -> None:
        self.model, self.gate = model, gate
        self._rows: bool | Tensor = False
        self._held: bool | Tensor | None = None
        self._current: Tensor | None = None

    def before_pass(self, decoder: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Decide for the rows of a pass of the decoder, or recall what was decided."""
        self._current = None
        if self._held is not None:
            self._rows = self._held
            return
        arguments = {**dict(zip(signature(decoder.forward).parameters, args, strict=False)), **kwargs}
        inputs = arguments["inputs_embeds" if arguments.get("input_ids") is None else "input_ids"]
        cache = next((each for each in arguments.values() if isinstance(each, Cache)), None)
        if cache is not None and cache.get_seq_length():
            self._recall(cache, len(inputs))
            return
        mask = arguments.get("attention_mask")
        if mask is not None and not (isinstance(mask, Tensor) and mask.ndim == 2):
            raise InvalidValueError(
                "A gated edit needs the attention mask as row x token, which tells padding from the prompt.",
                hint="use the model's default cache",
            )
        own = {name: value for name, value in arguments.items() if not isinstance(value, Cache) and name != "use_cache"}
        with torch.no_grad(), self.hold(False):
            self._current = self.gate.opens(_read_features(self.model, self.gate.layer, own))
        self._set_rows(self._current)

    def _recall(self, cache: Cache, n_rows: int) -> None:
        """Use the decision that was made when the cache was filled."""
        if (kept := self.gate.decisions.get(cache)) is None:
            raise TarotError(
                "The gate has not seen the prompt whose keys and values are in this cache.",
                hint="fill the cache while this edit is open",
            )
        if len(kept) != n_rows:
            raise TarotError(
                f"The gate decided for {len(kept)} rows, and the cache is continued with {n_rows}.",
                hint="repeat or select rows before the prompt is read",
            )
        self._set_rows(kept)

    def after_pass(self, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Keep a new decision with the cache that the pass filled."""
        decided, self._current, self._rows = self._current, None, False
        values = output.values() if isinstance(output, Mapping) else output
        cache = None if decided is None else next((each for each in values if isinstance(each, Cache)), None)
        if cache is not None and decided is not None:
            self.gate.decisions[cache] = decided

    def _set_rows(self, rows: Bool[Tensor, " row"]) -> None:
        # Rows that agree need no selection: all closed, the hooks return what they were given.
        self._rows = bool(rows[0]) if bool((rows == rows[0]).all()) else rows

    @contextmanager
    def hold(self, rows: bool | Bool[Tensor, " row"]) -> Iterator[None]:
        """Impose a decision on all passes inside a `with` block: one for all rows, or one for each."""
        with restoring(partial(setattr, self, "_held", self._held)):
            self._held = rows
            yield

    def decide(self, prompts: Sequence[Sequence[int]]) -> list[bool]:
        """Return which prompts, given as token ids, the gate opens for."""
        if not prompts:
            return []
        with self.hold(False):
            return [bool(each) for each in self.gate.opens(prompt_features(self.model, self.gate.layer, prompts))]

    def select(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the rows of `after` where the gate is open and those of `before` where it is closed."""
        if isinstance(self._rows, bool):
            return after if self._rows else before
        # Some models flatten rows and tokens into one dimension.
        rows = self._rows.to(before.device).repeat_interleave(len(before) // len(self._rows))
        return torch.where(rows.view(-1, *[1] * (before.ndim - 1)), after, before)

    @property
    def is_closed(self) -> bool:
        """Whether no row of the current pass is edited."""
        return self._rows is False


def find_gate(model: PreTrainedModel) -> GateState | None:
    """Return the state of the gated edit that is open on a model; None if there is none."""
    for hook in model.get_decoder()._forward_pre_hooks.values():
        owner = getattr(getattr(hook, "hook", None), "__self__", None)
        if isinstance(owner, GateState):
            return owner
    return None


@contextmanager
def decide_for(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Iterator[None]:
    """Let an open gate decide for these prompts, one a row, even if passes in the block hold padding or answers too.

    Nothing happens if no gated edit is open.

    Args:
        model: a causal language model, edited or not.
        prompts: token ids of each row's prompt, without padding and continuation.
    """
    if (gate := find_gate(model)) is None:
        yield
        return
    rows = torch.tensor(gate.decide(prompts))
    with gate.hold(bool(rows[0]) if bool((rows == rows[0]).all()) else rows):
        yield
