"""PEFT export and import: an edit as an OFT adapter, which PEFT and stock lm-eval load unchanged.

OFT rotates a Linear's input block by block, x' = x R with R = (I - Q)(I + Q)^-1. For blocks of two,
Q = [[0, q], [-q, 0]] gives R = [[cos t, -sin t], [sin t, cos t]] at q = tan(t/2), a plane of `Rotary`: one number a
pair, exact for every angle modulo full turns. PEFT's default, a truncated series, is inaccurate at such angles.

PEFT is not needed to write or read its files, which are JSON and safetensors, never a pickle.

Source: Qiu et al., "Controlling Text-to-Image Diffusion by Orthogonal Finetuning", arXiv 2306.07280, as PEFT's
`OFTConfig` has it since 0.18.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short
from textwrap import shorten

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import TypedDict

from tarot._files.atomic import write_atomically
from tarot._files.strict_json import Name, parse_json, read_file, validate
from tarot.edit.adapter import Adapter, Edit
from tarot.edit.metadata import validate_provenance
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import Site, angle_mask, find_sites
from tarot.errors import InvalidValueError, MissingFileError, ShapeMismatch

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PROVENANCE = "tarot"
"""Key of the provenance in the metadata of the weights. Training them further with PEFT drops it."""

REQUIRED: Mapping[str, tuple[object, object]] = {
    "peft_type": ("OFT", None),
    "oft_block_size": (2, 32),
    "r": (0, 0),
    "use_cayley_neumann": (False, True),
    "block_share": (False, False),
    "coft": (False, False),
    "bias": ("none", "none"),
    "modules_to_save": (None, None),
}
"""Settings with which an OFT adapter is a `Rotary` edit, each with PEFT's default for a missing key."""
_KEY = re.compile(r"base_model\.model\.(?P<site>.+)\.oft_R\.weight")
_MERGE = "tarot merge writes a checkpoint with any edit in it"


def to_peft(
    model: PreTrainedModel, adapter: Adapter, folder: str | Path, reference: str = "", *, without_gate: bool = False
) -> None:
    """Write a folder for `PeftModel.from_pretrained(model, folder)` and lm-eval's `peft=folder`.

    With `peft=`, lm-eval resizes a padded vocabulary to the tokenizer's. That changes the log-probabilities of such a
    model slightly, edited or not.

    Args:
        model: the model that the adapter was made for; unchanged.
        adapter: a `Rotary` edit of heads.
        folder: where `adapter_config.json` and `adapter_model.safetensors` are written.
        reference: name of the base model in the configuration.
        without_gate: export the edit of a gated adapter so that it acts on every prompt.

    Raises:
        InvalidValueError: the adapter has a gate, another rotation or other sites, does not fit the model, or PEFT's
            OFT does not support the model's projections (Conv1D of GPT-2).
        FileAccessError: the folder cannot be written.

    Example:
        >>> to_peft(model, adapter, "my-edit-peft", "HuggingFaceTB/SmolLM2-135M-Instruct")
    """
    adapter.check_no_gate(without_gate)
    if (adapter.edit.rotation, adapter.edit.sites) != (ROTARY.name, "heads"):
        raise InvalidValueError(
            "an edit that OFT can hold, rotary on heads", f"{adapter.edit.rotation} on {adapter.edit.sites}", _MERGE
        )
    sites = adapter.find_sites(model)
    for site in sites:
        if not isinstance(site.module, nn.Linear):
            kind = type(site.module).__name__
            raise InvalidValueError(f"a Linear at {site.name}, as PEFT's OFT requires", kind, _MERGE)
    config = {
        **{name: exact for name, (exact, _) in REQUIRED.items()},
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": reference or None,
        "target_modules": [site.name for site in sites],
        "inference_mode": True,
    }
    tensors = {
        f"base_model.model.{site.name}.oft_R.weight": _cayley(row, site)
        for site, row in zip(sites, adapter.angles, strict=True)
    }
    metadata = {"format": "pt", PROVENANCE: json.dumps(dict(adapter.provenance))}
    write_atomically(Path(folder) / WEIGHTS, save(tensors, metadata))
    write_atomically(Path(folder) / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def from_peft(model: PreTrainedModel, folder: str | Path) -> Adapter:
    """Import an adapter from a PEFT folder, with angles in (-pi, pi].

    Its provenance is what `to_peft` wrote. It is empty for an adapter that PEFT made or trained, so that the documents
    it was trained on are unknown.

    Args:
        model: the model that the adapter was made for.
        folder: a folder with `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        MissingFileError: there is no configuration.
        InvalidValueError: the folder holds no safetensors, or no `Rotary` edit of the model's heads equals it: other
            blocks, the inexact Cayley transform, other modules, numbers that are not finite.
        ShapeMismatch: the blocks are those of another model.

    Example:
        >>> adapter = from_peft(model, "my-edit-peft")
    """
    path = Path(folder) / WEIGHTS
    _check_exact(_config(Path(folder)), folder)
    try:
        read_file(path)  # refuses irregular and large files
        with safe_open(path, "pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in sorted(file.keys())}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        got = shorten(str(error), 200)
        raise InvalidValueError(f"safetensors in {path}", got, "pickled weights are never read") from error
    try:
        provenance = validate_provenance(parse_json(metadata.get(PROVENANCE, "{}").encode()))
    except ValueError as error:
        raise InvalidValueError(
            f"a provenance as tarot writes it in {path}", f"{error}", "import another adapter"
        ) from error
    known = {site.name: site for site in find_sites(model, "heads", 1.0)}
    blocks = {}
    for key, block in tensors.items():
        match = _KEY.fullmatch(key)
        if not match or match["site"] not in known:
            expected = "OFT blocks of this model's attention output projections only"
            raise InvalidValueError(expected, key, "merge it with PEFT")
        blocks[match["site"]] = block
    if not blocks:
        raise InvalidValueError(f"OFT blocks in {path}", "none")
    sites = tuple(site for name, site in known.items() if name in blocks)
    angles = torch.zeros(angle_mask(sites, ROTARY.n_angles).shape)
    for row, site in zip(angles, sites, strict=True):
        own_angles = _angles(blocks[site.name], site)
        row[: site.n_heads, : own_angles.shape[-1]] = own_angles
    return Adapter(angles, Edit.from_sites(model, "heads", sites, ROTARY), provenance)


def _cayley(angles: Float[Tensor, "head angle"], site: Site) -> Float[Tensor, "pair 1"]:
    """Return q = tan(t/2) of every pair, head after head."""
    used = angles[: site.n_heads, : ROTARY.n_angles(site.d_head)]
    return (used.double() / 2).tan().float().reshape(-1, 1)


def _angles(blocks: Tensor, site: Site) -> Float[Tensor, "head angle"]:
    """Return t = 2 atan(q) of every pair."""
    n = ROTARY.n_angles(site.d_head)
    if tuple(blocks.shape) != (expected := (site.n_heads * n, 1)):
        raise ShapeMismatch(f"OFT blocks of {site.name}", expected, tuple(blocks.shape), "made for another model")
    if not torch.isfinite(blocks).all():
        raise InvalidValueError(
            f"finite OFT blocks of {site.name}", f"{int((~torch.isfinite(blocks)).sum())} that are not"
        )
    return (2 * blocks.double().atan()).float().reshape(site.n_heads, n)


class _Config(TypedDict, total=False):
    """Keys of `adapter_config.json` that are read; others are ignored, and any may be missing."""

    peft_type: Name
    oft_block_size: int
    r: int
    use_cayley_neumann: bool
    block_share: bool
    coft: bool
    bias: Name
    modules_to_save: list[Name] | None


def _config(folder: Path) -> _Config:
    path = folder / CONFIG
    try:
        config: _Config = validate(_Config, parse_json(read_file(path)))
    except OSError as error:
        reason = f"{error.filename}: {error.strerror or error}"
        raise MissingFileError(f"{folder} is not the folder of a PEFT adapter: {reason}") from error
    except ValueError as error:
        raise InvalidValueError(f"{path} is not a PEFT configuration: {error}") from error
    return config


def _check_exact(config: _Config, folder: str | Path) -> None:
    for name, (exact, default) in REQUIRED.items():
        if (value := config.get(name, default)) != exact:
            raise InvalidValueError(
                f"an OFT adapter with {name}={exact!r}, which a rotary edit equals",
                f"{name}={short(value)} in {folder}",
                "merge it into a checkpoint with PEFT instead",
            )
