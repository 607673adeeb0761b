"""Check that a model is causal: no position's output depends on a later token.

Scores are sums of `log p(token | tokens before it)`, and prefixes are shared between requests. Neither holds for a
model that looks ahead.
"""

from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import torch
from transformers import PretrainedConfig, PreTrainedModel

from tarot.errors import TarotError
from tarot.models.evaluation_mode import evaluation_mode

_HINT = "see `tarot models` for some"
_LENGTH = 13
# Positions from which a row differs from the first one. 6 and 7 share no divisor, so one of them exposes a model that
# looks ahead within blocks.
_CHANGED_FROM = (6, 7)
# Largest change of a logit that is rounding, as a share of the largest logit.
_ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-4}
_ROUNDING_16_BITS = 2e-2
_passed: "WeakSet[PreTrainedModel]" = WeakSet()  # models whose logits were checked, by identity
# Settings of configurations, with the values that let tokens attend to later ones.
_LOOKING_AHEAD = (
    ("is_causal", (False,)),
    ("causal", (False,)),
    ("use_bidirectional_attention", (True, "all")),
    ("bidirectional", (True,)),
    ("is_prefix_lm", (True,)),
    ("prefix_lm", (True,)),
)


def check_causal_config(config: PretrainedConfig, source: object) -> None:
    """Raise TarotError if a configuration, or one inside it, states that tokens attend to later ones."""
    if getattr(config, "is_encoder_decoder", False):
        classes = ", ".join(config.architectures or [type(config).__name__])
        raise TarotError("a causal language model", f"{classes} in {source}", _HINT)
    for each in _parts(config):
        for name, values in _LOOKING_AHEAD:
            value = getattr(each, name, None)
            if any(value is ahead or (isinstance(ahead, str) and value == ahead) for ahead in values):
                got = f"{type(each).__name__} with {name} = {value!r} in {source}, whose tokens attend to later ones"
                raise TarotError("a causal language model", got, _HINT)


def _parts(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    """Yield the configuration, and that of its text model if it is another one."""
    yield config
    if (text := config.get_text_config(decoder=True)) is not config:
        yield text


@torch.no_grad()
def check_causal(model: PreTrainedModel) -> None:
    """Raise TarotError if a later token changes the logits at an earlier position, or the model takes no token ids.

    Sequences that differ in their second half run as one batch; their logits must agree on the first half. This costs
    one forward pass over three rows of a dozen tokens, once for each model object.

    Example:
        >>> from tarot.models.causal import check_causal
        >>> check_causal(model)
    """
    source = getattr(model, "name_or_path", "") or "memory"
    check_causal_config(model.config, source)
    if model in _passed:
        return
    ids = _token_ids(model).to(model.device if model.device.type != "meta" else "cpu")
    try:
        with evaluation_mode(model):
            logits = model(input_ids=ids, use_cache=False).logits.float()
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TarotError(
            "a causal language model over token ids", f"{type(model).__name__} that fails: {reason}", _HINT
        ) from error
    changes = [
        (row[:start] - logits[0, :start]).abs().max() for start, row in zip(_CHANGED_FROM, logits[1:], strict=True)
    ]
    if max(changes) > _ROUNDING.get(model.dtype, _ROUNDING_16_BITS) * logits.abs().max():
        got = f"{type(model).__name__} in {source}, where a later token changes the logits of earlier ones"
        raise TarotError("a causal language model", got, _HINT)
    _passed.add(model)


def _token_ids(model: PreTrainedModel) -> torch.Tensor:
    """Return `3 x 13` ordinary token ids; rows 1 and 2 differ from row 0 from the positions in `_CHANGED_FROM` on."""
    embeddings: Any = model.get_input_embeddings()
    vocabulary = embeddings.weight.shape[0]
    config = model.config.get_text_config(decoder=True)
    special: set[int] = set()
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        value = getattr(config, name, None)
        special |= set(value) if isinstance(value, list) else {value} if value is not None else set()
    step = max(1, vocabulary // (8 * _LENGTH))
    ordinary = [token for token in range(0, vocabulary, step) if token not in special] or [0]
    chosen = torch.tensor([ordinary[(7 * i) % len(ordinary)] for i in range(2 * _LENGTH)])
    first, other = chosen.split(_LENGTH)
    return torch.stack([first, *(torch.cat([first[:start], other[start:]]) for start in _CHANGED_FROM)])
