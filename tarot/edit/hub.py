"""Adapters on the Hugging Face hub: push a folder with a model card, pull it again.

huggingface_hub decides where the hub is and who the user is: by `HF_ENDPOINT`, and by `HF_TOKEN` or `hf auth login`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from tarot._files.strict_json import parse_json, read_file
from tarot.edit.adapter_folder import METADATA
from tarot.edit.measurement import Measurement
from tarot.edit.metadata import validate_metadata, validate_provenance
from tarot.edit.model_card import format_model_card
from tarot.errors import FileAccessError, InvalidValueError, MissingFileError, brief

README = "README.md"


def push_folder(
    repo_id: str,
    folder: Path,
    *,
    private: bool = False,
    measured: Sequence[Measurement] = (),
    license: str | None = None,
) -> str:
    """Write a model card into an adapter's folder, upload the folder in one commit, and return the commit's address.

    Args:
        repo_id: `name` or `owner/name`; created if it does not exist.
        folder: what `Adapter.save_pretrained` wrote.
        private: whether a new repository is private.
        measured: what the card shows of the gain.
        license: licence of the adapter; None for none.

    Raises:
        InvalidValueError: `repo_id` is malformed.
        FileAccessError: the folder has values that could not be read again, or the hub refuses or cannot be reached.
    """
    with _explained(repo_id, "write to"):
        validate_repo_id(repo_id)
        metadata = parse_json(read_file(folder / METADATA))
        validate_metadata(metadata)
        validate_provenance(metadata.get("provenance", {}))
        api = HfApi()
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        card = format_model_card(metadata, name, measured, license)
        (folder / README).write_text(card, encoding="utf-8")
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="tarot adapter").commit_url)


def pull_files(repo_id: str, files: Sequence[str], revision: str | None = None) -> Path:
    """Download these files of a hub repository, and no others, and return their folder in the cache.

    Raises:
        MissingFileError: `repo_id` is malformed, or there is no such repository, neither on the hub nor in the cache.
        FileAccessError: the hub refuses or cannot be reached.
    """
    try:
        with _explained(repo_id, "read"):
            validate_repo_id(repo_id)
            return Path(HfApi().snapshot_download(repo_id, revision=revision, allow_patterns=list(files)))
    except InvalidValueError as error:
        raise MissingFileError(
            f"{repo_id!r} is neither a folder that exists nor a hub id such as 'owner/name'."
        ) from error


@contextmanager
def _explained(repo_id: str, action: str) -> Iterator[None]:
    """Turn whatever the hub or its client raises into an error of one line."""
    problem = f"There is no folder {repo_id!r}, and tarot" if action == "read" else "Tarot"
    problem = f"{problem} cannot {action} the hub's repository {repo_id!r}"
    try:
        yield
    except HFValidationError as error:
        raise InvalidValueError(f"{repo_id!r} is not a hub id such as 'owner/name'.") from error
    except LocalEntryNotFoundError as error:
        raise MissingFileError(f"{problem}: no network, and no copy in the cache.") from error
    except Exception as error:  # its class is the HTTP client's own, and huggingface_hub changed clients
        kind = (
            MissingFileError if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError) else FileAccessError
        )
        raise kind(f"{problem}: {brief(error)}", hint="check its name, and hf auth login") from error
