"""Folder of a saved adapter: `adapter.safetensors` holds the angles, `tarot.json` the rest.

Nothing in either file is executed when it is read.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short
from textwrap import shorten
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tarot._files.atomic import write_atomically
from tarot._files.strict_json import parse_json, read_file
from tarot.edit.metadata import validate_metadata, validate_provenance
from tarot.edit.provenance import to_json_values
from tarot.errors import InvalidValueError, MissingFileError

METADATA = "tarot.json"
WEIGHTS = "adapter.safetensors"
FORMAT = 1
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LARGEST_FILE = 2**28  # bytes


class AdapterContent(NamedTuple):
    """What a folder holds."""

    angles: Float[Tensor, "layer head angle"]
    edit: Mapping[str, Any]
    provenance: Mapping[str, object]


def write_adapter_folder(folder: Path, content: AdapterContent, fingerprint: str) -> None:
    """Write both files. The second holds the digest of the first, so that a half-written pair is detected.

    Raises:
        FileAccessError: a file cannot be written.
    """
    weights = save({"angles": content.angles.contiguous()})
    metadata = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "edit": content.edit,
        "provenance": to_json_values(content.provenance),
    }
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / METADATA, (json.dumps(metadata, indent=1) + "\n").encode())


def read_adapter_folder(folder: Path) -> AdapterContent:
    """Read and check both files.

    Raises:
        MissingFileError: a file is missing or cannot be read.
        InvalidValueError: a file is damaged, of a newer format, or holds values that the schema refuses, such as a
            number that is not finite.
    """
    path = folder / METADATA
    try:
        text, weights = read_file(path, LARGEST_FILE), read_file(folder / WEIGHTS, LARGEST_FILE)
    except OSError as error:
        raise MissingFileError(
            f"an adapter folder with {METADATA} and {WEIGHTS}",
            f"{error.strerror} at {error.filename}",
            "run tarot tune first",
        ) from error
    metadata = _parse_metadata(text, path)
    if hashlib.sha256(weights).hexdigest() != metadata["weights_sha256"]:
        raise InvalidValueError(
            f"the {WEIGHTS} that {METADATA} describes",
            f"another or a truncated one in {folder}",
            "tune again with --resume, or copy the folder again",
        )
    edit = metadata["edit"]
    return AdapterContent(_load_angles(weights, len(edit["layers"]), folder), edit, metadata["provenance"])


def _parse_metadata(text: bytes, path: Path) -> dict[str, Any]:
    """Return the values of `tarot.json`, checked."""
    try:
        metadata = parse_json(text)
    except ValueError as error:
        raise InvalidValueError(
            f"JSON in {path}", f"{error}", "the file is damaged; tune again with --resume"
        ) from error
    version = metadata.get("format") if isinstance(metadata, dict) else None
    if type(version) is not int:
        raise InvalidValueError(f"a format number in {path}", short(version), "is this a tarot adapter?")
    if version > FORMAT:
        raise InvalidValueError(f"adapter format {FORMAT} at most", f"{version} in {path}", "update tarot")
    try:
        provenance = validate_provenance(metadata.get("provenance", {}))
        return {**validate_metadata(metadata), "provenance": provenance}
    except ValueError as error:
        raise InvalidValueError(f"an adapter as tarot writes it in {path}", f"{error}", "tune again") from error


def _load_angles(weights: bytes, layers: int, folder: Path) -> Float[Tensor, "layer head angle"]:
    try:
        tensors: Mapping[str, Tensor] = load(weights)
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        got = shorten(f"{type(error).__name__}: {error}", 200)
        raise InvalidValueError(f"safetensors in {folder}/{WEIGHTS}", got, "tune again") from error
    if "angles" not in tensors:
        raise InvalidValueError(f"angles in {folder}/{WEIGHTS}", f"{len(tensors)} other tensors", "tune again")
    angles = tensors["angles"]
    if angles.dtype not in DTYPES:
        raise InvalidValueError(f"angles of a floating-point type in {folder}", str(angles.dtype), "tune again")
    if angles.ndim != 3 or len(angles) != layers or not angles.numel():
        raise InvalidValueError(
            f"angles of shape ({layers}, heads, angles) in {folder}", f"shape {tuple(angles.shape)}", "tune again"
        )
    if not torch.isfinite(angles).all():
        count = int((~torch.isfinite(angles)).sum())
        raise InvalidValueError("finite angles", f"{count} that are not in {folder}", "tune again")
    return angles
