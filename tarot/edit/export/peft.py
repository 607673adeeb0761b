"""q = tan(t/2): an edit as PEFT's OFT adapter, which PEFT and stock lm-eval load as it stands, and back.

OFT turns a Linear's input block by block, x' = x R with R = (I - Q)(I + Q)^-1. For blocks of two, Q = [[0, q], [-q, 0]]
gives R = [[cos t, -sin t], [sin t, cos t]] at q = tan(t/2), a plane of `Rotary`: one number a pair, exact for every
angle, up to whole turns. PEFT's default is the first terms of a series instead, and wrong at these angles.

PEFT is not needed to write or to read its files, which are JSON and safetensors; never a pickle.

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
from tarot.errors import MissingFileError, ShapeMismatch, TarotError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PROVENANCE = "tarot"
"""Key of our provenance in the weights' metadata. Who trains them further writes that anew, and then it is not ours."""

# What makes an OFT adapter a `Rotary` edit, each with the value that PEFT takes where a file does not say.
EXACT: Mapping[str, tuple[object, object]] = {
    "peft_type": ("OFT", None),
    "oft_block_size": (2, 32),
    "r": (0, 0),
    "use_cayley_neumann": (False, True),
    "block_share": (False, False),
    "coft": (False, False),
    "bias": ("none", "none"),
    "modules_to_save": (None, None),
}
_KEY = re.compile(r"base_model\.model\.(?P<site>.+)\.oft_R\.weight")
_MERGE = "tarot merge writes a checkpoint with any edit in it"


def to_peft(model: PreTrainedModel, adapter: Adapter, folder: str | Path, reference: str = "") -> None:
    """Write the folder that `PeftModel.from_pretrained(model, folder)` and lm-eval's `peft=folder` take.

    lm-eval resizes a padded vocabulary to the tokenizer's when it is given `peft=`, which moves such a model's
    log-probabilities a little, edited or not.

    Args:
        model: what the adapter was made for; unchanged.
        adapter: a `Rotary` edit of heads.
        folder: of `adapter_config.json` and `adapter_model.safetensors`.
        reference: the base model's name in the configuration.

    Raises:
        TarotError: another rotation or other sites, a model whose projections PEFT refuses (GPT-2's Conv1D), or
            one that the adapter does not fit.
    """
    if (adapter.edit.rotation, adapter.edit.sites) != (ROTARY.name, "heads"):
        raise TarotError(
            "an edit that OFT can hold, rotary on heads", f"{adapter.edit.rotation} on {adapter.edit.sites}", _MERGE
        )
    sites = adapter.find_sites(model)
    for site in sites:
        if not isinstance(site.module, nn.Linear):
            kind = type(site.module).__name__
            raise TarotError(f"a Linear at {site.name}, which is all that PEFT's OFT edits", kind, _MERGE)
    config = {
        **{name: exact for name, (exact, _) in EXACT.items()},
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
    """The adapter that a PEFT folder holds, angles in (-pi, pi].

    Its provenance is what `to_peft` wrote; of an adapter that PEFT made or trained on it is empty, so that nobody can
    tell which documents it was trained on.

    Raises:
        TarotError: a folder without safetensors, or one that no `Rotary` edit of this model's heads equals: other
            blocks, the inexact Cayley transform, other modules, numbers that are not finite.
        ShapeMismatch: blocks of another model.
    """
    path = Path(folder) / WEIGHTS
    _check_exact(_config(Path(folder)), folder)
    try:
        read_file(path)  # refuses what is not a regular file, or too large
        with safe_open(path, "pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        got = shorten(str(error), 200)
        raise TarotError(f"safetensors in {path}", got, "pickled weights are never read") from error
    try:
        provenance = validate_provenance(parse_json(metadata.get(PROVENANCE, "{}").encode()))
    except ValueError as error:
        raise TarotError(f"a provenance as tarot writes it in {path}", f"{error}", "import another adapter") from error
    known = {site.name: site for site in find_sites(model, "heads", 1.0)}
    blocks = {}
    for key, block in tensors.items():
        found = _KEY.fullmatch(key)
        if not found or found["site"] not in known:
            alone = "OFT blocks of this model's attention output projections alone"
            raise TarotError(alone, key, "merge it with PEFT")
        blocks[found["site"]] = block
    if not blocks:
        raise TarotError(f"OFT blocks in {path}", "none")
    sites = tuple(site for name, site in known.items() if name in blocks)
    angles = torch.zeros(angle_mask(sites, ROTARY.n_angles).shape)
    for row, site in zip(angles, sites, strict=True):
        found_angles = _angles(blocks[site.name], site)
        row[: site.n_heads, : found_angles.shape[-1]] = found_angles
    return Adapter(angles, Edit.from_sites(model, "heads", sites, ROTARY), provenance)


def _cayley(angles: Float[Tensor, "head angle"], site: Site) -> Float[Tensor, "pair 1"]:
    """q = tan(t/2), head after head."""
    own = angles[: site.n_heads, : ROTARY.n_angles(site.d_head)]
    return (own.double() / 2).tan().float().reshape(-1, 1)


def _angles(blocks: Tensor, site: Site) -> Float[Tensor, "head angle"]:
    """t = 2 atan(q)."""
    n = ROTARY.n_angles(site.d_head)
    if tuple(blocks.shape) != (expected := (site.n_heads * n, 1)):
        raise ShapeMismatch(f"OFT blocks of {site.name}", expected, tuple(blocks.shape), "made for another model")
    if not torch.isfinite(blocks).all():
        raise TarotError(f"finite OFT blocks of {site.name}", f"{int((~torch.isfinite(blocks)).sum())} that are not")
    return (2 * blocks.double().atan()).float().reshape(site.n_heads, n)


class _Config(TypedDict, total=False):
    """What is read of `adapter_config.json`; PEFT writes more, which is ignored, and older versions less."""

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
        raise MissingFileError(
            f"a PEFT adapter folder with {CONFIG}", f"{error.strerror} at {error.filename}"
        ) from error
    except ValueError as error:
        raise TarotError(f"a PEFT configuration in {path}", f"{error}") from error
    return config


def _check_exact(config: _Config, folder: str | Path) -> None:
    for name, (exact, default) in EXACT.items():
        if (value := config.get(name, default)) != exact:
            raise TarotError(
                f"an OFT adapter with {name}={exact!r}, which a rotary edit equals",
                f"{name}={short(value)} in {folder}",
                "merge it into a checkpoint with PEFT instead",
            )
