"""Text of no task: what the unedited model writes by itself, from its first token, at temperature 1.

It needs no data, and on it the KL divergence is that between two models as distributions over texts.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress

import torch
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.integrations.accelerate import load_offloaded_parameter

from tarot._files.atomic import write_atomically
from tarot.errors import TarotError
from tarot.models.load import cache_folder
from tarot.models.loaded_model import LoadedModel
from tarot.models.scoring.prefix_cache import CACHE
from tarot.models.scoring.scorer import max_length
from tarot.search.config import check_seed

NEUTRAL_TOKENS = 20_000
TEXT_TOKENS = 256
TEXTS_AT_ONCE = 80

# What is being worked on, how much of it is done, and of how much.
OnStep = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """An `OnStep` that shows nothing."""


def check_tokens(n_tokens: int) -> None:
    """Raise TarotError for less than 1 token."""
    if n_tokens < 1:
        raise TarotError("at least 1 neutral token", str(n_tokens), f"{NEUTRAL_TOKENS:,} is the default")


def neutral_text(
    loaded: LoadedModel,
    n_tokens: int = NEUTRAL_TOKENS,
    seed: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = silent,
) -> Int[Tensor, "text token"]:
    """At least `n_tokens` tokens that the unedited model writes, in texts of 256 behind its first token.

    Kept in the user's cache folder, under the model's weights, so that they are sampled once a model. `batch_size` is
    the most texts of one pass; None leaves it to us. It decides no text, but for rounding.

    Raises:
        TarotError: fewer than 1 token, a seed that torch does not take, or a tokenizer with neither a first nor an end
            token.
    """
    check_tokens(n_tokens)
    check_seed(seed)
    most = max_length(loaded.model)
    length = min(TEXT_TOKENS, n_tokens, most - 1 if most else TEXT_TOKENS)
    texts = -(-n_tokens // length)
    path = cache_folder() / "neutral" / f"{_weights(loaded.model)}-{texts}x{length}-{seed}.safetensors"
    if path.is_file():
        with suppress(OSError, SafetensorError, KeyError):  # damaged: sampled again
            return load_file(path)["tokens"]
    first = loaded.tokenizer.bos_token_id
    first = loaded.tokenizer.eos_token_id if first is None else first
    if first is None:
        raise TarotError(
            "a tokenizer with a first or an end token", "one with neither", "texts have to begin somewhere"
        )
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for begin in range(0, texts, TEXTS_AT_ONCE):
        rows = min(TEXTS_AT_ONCE, texts - begin)
        tokens = torch.full((rows, 1), first)
        caches: list[Cache | None] = [None] * -(-rows // (batch_size or rows))
        for done in range(1, length + 1):
            tokens = _longer(loaded.model, tokens, caches, generator)
            on_step("writing neutral text", begin * length + done * rows, texts * length)
        parts.append(tokens)
    text = torch.cat(parts)
    with suppress(TarotError):  # no room, or no right to write: it is sampled again next time
        write_atomically(path, save({"tokens": text}))
    return text


@torch.no_grad()
def _longer(
    model: PreTrainedModel, tokens: Int[Tensor, "text token"], caches: list[Cache | None], generator: torch.Generator
) -> Int[Tensor, "text longer"]:
    """One more token of each text, in as many passes as there are caches, which become theirs.

    Drawn on the CPU and for all texts at once, so that a seed gives the same ones wherever the model is.
    """
    chances = []
    for i, last in enumerate(tokens[:, -1:].tensor_split(len(caches))):
        out = model(input_ids=last.to(model.device), use_cache=True, **{CACHE: caches[i]})
        caches[i] = out[CACHE]
        chances.append(out.logits[:, -1].float().softmax(-1).cpu())
    return torch.cat([tokens, torch.multinomial(torch.cat(chances), 1, generator=generator)], dim=1)


def _weights(model: PreTrainedModel) -> str:
    """Digest of the model's class and weights."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        here = load_offloaded_parameter(model, name) if parameter.is_meta else parameter  # from the disk
        digest.update(here.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
