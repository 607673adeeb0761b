"""Find a hub model on this machine, or fetch it. Imports no torch."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from huggingface_hub import HfApi, constants, scan_cache_dir, snapshot_download
from huggingface_hub.errors import (
    CacheNotFound,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from tarot.errors import TarotError, brief
from tarot.models.formats.wheels import wheel_references

HUB_TIMEOUT_SECONDS = 10
_TOKENIZER_FILES = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken")
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]


def fetch_model(reference: str) -> Path:
    """Return the folder of a hub model: the complete one on this machine, else a download.

    Raises:
        TarotError: as for `find_model`; or the download fails.
    """
    if folder := find_model(reference):
        return folder
    with _hub_errors(reference):
        return Path(snapshot_download(reference, allow_patterns=_HUB_FILES))


def find_model(reference: str) -> Path | None:
    """Return the folder of a hub model that is complete on this machine, or None for one that can be downloaded.

    Raises:
        TarotError: no such model, no access to it, no network, or no weights as safetensors.
    """
    with _hub_errors(reference):
        if folder := cached_snapshot(reference):
            return folder
        # This request fails at once without a network; a download would retry for half a minute.
        files = HfApi().model_info(reference, timeout=HUB_TIMEOUT_SECONDS).siblings or []
    if not any(file.rfilename.endswith(".safetensors") for file in files):
        raise TarotError(f"The hub model {reference!r} has no safetensors weights; look for a converted copy.")
    return None


@contextmanager
def _hub_errors(reference: str) -> Iterator[None]:
    """Turn what goes wrong in finding or downloading a model into a TarotError."""
    try:
        yield
    except HFValidationError as error:
        raise TarotError(
            "a hub id, folder, PATH.gguf or wheel:NAME", repr(reference), nearest_reference(reference)
        ) from error
    except GatedRepoError as error:
        hint = "accept its terms on the hub, then hf auth login"
        raise TarotError(f"access to the model {reference!r}", "none", hint) from error
    except RepositoryNotFoundError as error:
        raise TarotError("a folder or a model on the hub", repr(reference), nearest_reference(reference)) from error
    except Exception as error:  # its class depends on the HTTP client, which huggingface_hub has changed
        failure = f"{reference!r} is not on this machine and cannot be fetched: {brief(error)}"
        raise TarotError(failure, hint=nearest_reference(reference)) from error


def cached_snapshot(reference: str) -> Path | None:
    """Return the newest snapshot of a hub model on this machine, or None if it is incomplete or absent."""
    try:
        folder = Path(snapshot_download(reference, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if _is_complete(folder) else None


def _is_complete(folder: Path) -> bool:
    """Whether configuration, tokenizer and every shard of the weights are there."""
    index = folder / "model.safetensors.index.json"
    try:
        shards = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    except (OSError, ValueError, KeyError):
        return False
    tokenizer = any(next(folder.glob(pattern), None) for pattern in _TOKENIZER_FILES)
    return tokenizer and (folder / "config.json").is_file() and all((folder / shard).is_file() for shard in shards)


def cached_names() -> list[str]:
    """Return the ids of the hub's models on this machine, complete or not."""
    try:
        return sorted(
            repo.repo_id for repo in scan_cache_dir(constants.HF_HUB_CACHE).repos if repo.repo_type == "model"
        )
    except CacheNotFound:
        return []


def nearest_reference(reference: str) -> str:
    """Return a hint: the nearest known reference, else where to see all."""
    known = [*wheel_references(), *cached_names()]
    nearest = get_close_matches(reference, known, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else "see `tarot models`"
