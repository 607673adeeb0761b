"""Folder of a saved adapter: `adapter.safetensors` holds the angles and the gate's weights, `tarot.json` the rest.

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
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tarot._files.atomic import write_atomically
from tarot._files.strict_json import parse_json, read_file
from tarot.edit.gate import PromptGate
from tarot.edit.metadata import validate_metadata, validate_provenance
from tarot.edit.provenance import to_json_values
from tarot.edit.rotation import Angles
from tarot.errors import InvalidValueError, MissingFileError

METADATA = "tarot.json"
WEIGHTS = "adapter.safetensors"
FORMAT, GATED_FORMAT = 1, 2
"""A gated adapter has a format of its own: an earlier tarot would ignore the gate and edit every prompt."""
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LARGEST_FILE = 2**28  # bytes


class AdapterContent(NamedTuple):
    """Content of an adapter's folder."""

    angles: Angles
    edit: Mapping[str, Any]
    provenance: Mapping[str, object]
    gate: PromptGate | None = None


def write_adapter_folder(folder: Path, content: AdapterContent, fingerprint: str) -> None:
    """Write both files. The second holds the digest of the first, so that a half-written pair is detected.

    Raises:
        FileAccessError: a file cannot be written.
    """
    gate = content.gate
    gated = {"gate": {"layer": gate.layer, "bias": gate.bias}} if gate else {}
    weights = save({"angles": content.angles.contiguous(), **({"gate": gate.weight.contiguous()} if gate else {})})
    metadata = {
        "format": GATED_FORMAT if gate else FORMAT,
        "fingerprint": fingerprint,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "edit": content.edit,
        **gated,
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
        reason = f"{error.filename}: {error.strerror or error}"
        raise MissingFileError(
            f"{folder} is not the folder of an adapter: {reason}", hint="run tarot tune first"
        ) from error
    metadata = _parse_metadata(text, path)
    if hashlib.sha256(weights).hexdigest() != metadata["weights_sha256"]:
        raise InvalidValueError(
            f"the {WEIGHTS} that {METADATA} describes",
            f"another or a truncated one in {folder}",
            "tune again with --resume, or copy the folder again",
        )
    edit, tensors = metadata["edit"], _load_tensors(weights, folder)
    angles = _read_angles(tensors, len(edit["layers"]), folder)
    return AdapterContent(angles, edit, metadata["provenance"], _read_gate(metadata, tensors, folder))


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
    if version > GATED_FORMAT:
        raise InvalidValueError(f"adapter format {GATED_FORMAT} at most", f"{version} in {path}", "update tarot")
    try:
        provenance = validate_provenance(metadata.get("provenance", {}))
        return {**validate_metadata(metadata), "provenance": provenance}
    except ValueError as error:
        raise InvalidValueError(f"{path} is damaged: {error}", hint="tune again") from error


def _load_tensors(weights: bytes, folder: Path) -> Mapping[str, Tensor]:
    try:
        return load(weights)
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        got = shorten(f"{type(error).__name__}: {error}", 200)
        raise InvalidValueError(f"safetensors in {folder}/{WEIGHTS}", got, "tune again") from error


def _read_angles(tensors: Mapping[str, Tensor], layers: int, folder: Path) -> Angles:
    if "angles" not in tensors:
        raise InvalidValueError(f"angles in {folder}/{WEIGHTS}", f"{len(tensors)} other tensors", "tune again")
    angles = _check_numbers("angles", tensors["angles"], folder)
    if angles.ndim != 3 or len(angles) != layers or not angles.numel():
        raise InvalidValueError(
            f"angles of shape ({layers}, heads, angles) in {folder}", f"shape {tuple(angles.shape)}", "tune again"
        )
    return angles


def _read_gate(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], folder: Path) -> PromptGate | None:
    """Return the gate; a half of one is refused, since without it the edit would act on every prompt."""
    values, weight = metadata.get("gate"), tensors.get("gate")
    if values is None and weight is None:
        return None
    if values is None or weight is None or weight.ndim != 1 or not weight.numel():
        raise InvalidValueError(
            f"a gate's layer and bias in {METADATA} and its row of weights in {WEIGHTS}",
            f"only a part of them in {folder}",
            "copy the folder again",
        )
    return PromptGate(values["layer"], _check_numbers("weights of the gate", weight, folder), values["bias"])


def _check_numbers(name: str, tensor: Tensor, folder: Path) -> Tensor:
    if tensor.dtype not in DTYPES:
        raise InvalidValueError(f"{name} of a floating-point type in {folder}", str(tensor.dtype), "tune again")
    if not torch.isfinite(tensor).all():
        count = int((~torch.isfinite(tensor)).sum())
        raise InvalidValueError(f"finite {name}", f"{count} that are not in {folder}", "tune again")
    return tensor
