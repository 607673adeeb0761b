"""What a search leaves behind: angles, and where they came from.

An adapter is a folder of two files, `adapter.safetensors` with the angles and `tarot.json` with everything needed to
apply, judge and repeat them. Nothing in it is executed when it is read.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from reprlib import repr as short
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from transformers import PreTrainedModel

from tarot._files.atomic import write_atomically
from tarot._files.strict_json import parse_json, read_file
from tarot.edit import hub
from tarot.edit.fingerprint import shapes_fingerprint
from tarot.edit.hooks import apply_rotation
from tarot.edit.merge import merge_rotation
from tarot.edit.provenance import validate_metadata, validate_provenance
from tarot.edit.rotation import ROTATIONS, Rotation
from tarot.edit.sites import Site, decoder_layers, find_sites
from tarot.errors import MissingFileError, ShapeMismatch, TarotError, UnknownName

FORMAT = 1
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
WEIGHTS = "adapter.safetensors"
METADATA = "tarot.json"
FILES = (METADATA, WEIGHTS)
LARGEST = 2**28  # bytes of each file


@dataclass(frozen=True)
class Edit:
    """Where and how angles act: kind of site, layers by index, rotation by name, fingerprint of the model."""

    sites: str
    layers: tuple[int, ...]
    rotation: str
    model: str

    @classmethod
    def of(cls, model: PreTrainedModel, kind: str, sites: tuple[Site, ...], rotation: Rotation) -> "Edit":
        """The edit of these sites, found in `model` as `kind`."""
        return cls(kind, tuple(site.layer for site in sites), rotation.name, shapes_fingerprint(model, sites))


@dataclass(frozen=True)
class Adapter:
    """Angles in radians, `layer x head x angle`, the edit they belong to, and their provenance (plain JSON values)."""

    angles: Float[Tensor, "layer head angle"]
    edit: Edit
    provenance: Mapping[str, object]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of everything that determines the edited model's behaviour."""
        digest = hashlib.sha256(json.dumps([*vars(self.edit).values()]).encode())
        digest.update(self.angles.double().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def rotation(self) -> Rotation:
        return ROTATIONS[self.edit.rotation]

    @cached_property
    def tasks(self) -> frozenset[str]:
        """What it, or any adapter that it was made from, was tuned on."""

        def named(said: Mapping[str, Any]) -> Iterator[str]:
            if "task" in said:
                yield str(said["task"])
            for parent in said.get("parents", ()):
                yield from named(parent["provenance"])

        return frozenset(named(self.provenance))

    def sites(self, model: PreTrainedModel) -> tuple[Site, ...]:
        """This model's sites that the angles belong to.

        Raises:
            ShapeMismatch: the model's projections are not of the angles' shape.
            TarotError: they are, but of another model's names or sizes; or it has fewer layers.
        """
        wanted, last = max(self.edit.layers), len(decoder_layers(model)) - 1
        if wanted > last:
            raise TarotError(
                f"a model with a layer {wanted}",
                f"{type(model).__name__}, whose last is {last}",
                "this adapter is for another model",
            )
        sites = find_sites(model, self.edit.sites, self.edit.layers)
        expected = (
            len(sites),
            max(site.n_heads for site in sites),
            max(self.rotation.n_angles(site.d_head) for site in sites),
        )
        if expected != tuple(self.angles.shape):
            raise ShapeMismatch("angles", expected, tuple(self.angles.shape), "this adapter is for another model")
        if (found := shapes_fingerprint(model, sites)) != self.edit.model:
            raise TarotError(
                f"the projections that the adapter was made for ({self.edit.model})",
                f"those of {type(model).__name__} ({found})",
                "load the model named in the adapter's tarot.json",
            )
        return sites

    def apply(self, model: PreTrainedModel, *, strength: float = 1.0) -> AbstractContextManager[object]:
        """Edit `model` inside a `with` block; the hooks are gone on exit.

        Args:
            model: the model that the adapter was made for.
            strength: factor of every angle; 0 leaves the model as it is.

        Raises:
            TarotError: the adapter is for another model, or the strength is not finite.

        Example:
            >>> with adapter.apply(model, strength=0.5):
            ...     model.generate(**tokenizer("Did Ed leave?", return_tensors="pt"))
        """
        return apply_rotation(model, self._angles(strength), self.sites(model), self.rotation)

    def merge(self, model: PreTrainedModel, *, strength: float = 1.0) -> PreTrainedModel:
        """Fold the edit into the weights of `model`, permanently, and return it. It then costs nothing at inference.

        Args:
            model: the model that the adapter was made for.
            strength: factor of every angle.

        Raises:
            TarotError: the adapter is for another model, the weights are quantised, or the strength is not finite.

        Example:
            >>> adapter.merge(model).save_pretrained("my-model")
        """
        merge_rotation(model, self._angles(strength), self.sites(model), self.rotation)
        return model

    def _angles(self, strength: float) -> Float[Tensor, "layer head angle"]:
        return self.angles if strength == 1 else self.scaled(strength).angles

    @classmethod
    def of(cls, adapter: "Adapter | str | Path") -> "Adapter":
        """Return an adapter as it is, and read one that is named by its folder or hub id.

        Raises:
            TarotError: something else, or an adapter that cannot be read.
        """
        if isinstance(adapter, cls):
            return adapter
        if isinstance(adapter, str | Path):
            return cls.from_pretrained(adapter)
        raise TarotError("an adapter, its folder or its hub id", type(adapter).__name__)

    def scaled(self, factor: float) -> "Adapter":
        """Angles times `factor`: 0 is the identity and 1 this edit.

        For `Rotary` and `Scale` that is the edit's power, R^factor, and -1 its inverse; for `Givens` a path to it.
        TarotError when an angle does not stay finite.
        """
        angles = self.angles * factor
        if not torch.isfinite(angles).all():
            raise TarotError("a strength that leaves every angle finite", repr(factor))
        # Still of its task, by its recipe; but what it scored there, nobody has seen.
        kept = {key: value for key, value in self.provenance.items() if key not in ("scores", "best_trial")}
        return replace(self, angles=angles, provenance=kept | composed_provenance((factor, self)))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write both files; the second names the first's digest, so that a pair half-written is not taken for whole."""
        weights = save({"angles": self.angles.contiguous()})
        card = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "edit": {**vars(self.edit), "layers": list(self.edit.layers)},
            "provenance": _plain(self.provenance),
        }
        write_atomically(Path(folder) / WEIGHTS, weights)
        write_atomically(Path(folder) / METADATA, (json.dumps(card, indent=1) + "\n").encode())

    @classmethod
    def _read(cls, folder: Path) -> "Adapter":
        """Read an adapter's folder.

        Raises:
            TarotError: a file is missing, truncated, of a newer format, or holds values that the schema refuses, such
                as a number that is not finite.
        """
        card_path, weights_path = Path(folder) / METADATA, Path(folder) / WEIGHTS
        try:
            content, weights = read_file(card_path, LARGEST), read_file(weights_path, LARGEST)
        except OSError as error:
            raise MissingFileError(
                f"an adapter folder with {METADATA} and {WEIGHTS}",
                f"{error.strerror} at {error.filename}",
                "run tarot tune first",
            ) from error
        try:
            card = parse_json(content)
        except ValueError as error:
            raise TarotError(
                f"JSON in {card_path}", f"{error}", "the file is damaged; tune again with --resume"
            ) from error
        version = card.get("format") if isinstance(card, dict) else None
        if type(version) is not int:
            raise TarotError(f"a format number in {card_path}", short(version), "is this a tarot adapter?")
        if version > FORMAT:
            raise TarotError(f"adapter format {FORMAT} at most", f"{version} in {card_path}", "update tarot")
        try:
            described = validate_metadata(card)
            provenance = validate_provenance(card.get("provenance", {}))
        except ValueError as error:
            raise TarotError(f"an adapter as tarot writes it in {card_path}", f"{error}", "tune again") from error
        if hashlib.sha256(weights).hexdigest() != described["weights_sha256"]:
            raise TarotError(
                f"the {WEIGHTS} that {METADATA} describes",
                f"another or a truncated one in {folder}",
                "tune again with --resume, or copy the folder again",
            )
        edit = Edit(**described["edit"] | {"layers": tuple(described["edit"]["layers"])})
        if edit.rotation not in ROTATIONS:
            raise UnknownName("rotation", edit.rotation, ROTATIONS)
        return cls(_angles(weights, len(edit.layers), folder), edit, provenance)

    def push_to_hub(self, repo_id: str, *, private: bool = False, measured: str = "") -> str:
        """Save the adapter and a model card to the hub in one commit, and return its address.

        Args:
            repo_id: `name` or `owner/name`; made if it is not there.
            private: whether a repository that is made is.
            measured: a paragraph for the card on what the edit gains on unseen documents, which `tarot compare` tells.

        Raises:
            TarotError: the hub refuses or cannot be reached.
        """
        with TemporaryDirectory(prefix="tarot-") as scratch:
            self.save_pretrained(scratch)
            return hub.push(repo_id, Path(scratch), private=private, measured=measured)

    @classmethod
    def from_pretrained(cls, reference: str | Path, *, revision: str | None = None) -> "Adapter":
        """Read an adapter from a folder, or from the hub where there is no such folder.

        Raises:
            TarotError: it cannot be found, or a file is missing, truncated, of a newer format or holds a number that is
                not finite.
        """
        is_folder = Path(reference).expanduser().is_dir()
        return cls._read(Path(reference).expanduser() if is_folder else hub.pull(str(reference), FILES, revision))


def _angles(weights: bytes, layers: int, folder: str | Path) -> Tensor:
    """Read the angles, one row a layer, from a safetensors file."""
    try:
        tensors = load(weights)
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        got = shorten(f"{type(error).__name__}: {error}", 200)
        raise TarotError(f"safetensors in {folder}/{WEIGHTS}", got, "tune again") from error
    if "angles" not in tensors:
        raise TarotError(f"angles in {folder}/{WEIGHTS}", f"{len(tensors)} other tensors", "tune again")
    angles = tensors["angles"]
    if angles.dtype not in DTYPES:
        raise TarotError(f"angles of a floating-point type in {folder}", str(angles.dtype), "tune again")
    if angles.ndim != 3 or len(angles) != layers or not angles.numel():
        raise TarotError(
            f"angles of shape ({layers}, heads, angles) in {folder}", f"shape {tuple(angles.shape)}", "tune again"
        )
    if not torch.isfinite(angles).all():
        got = f"{int((~torch.isfinite(angles)).sum())} that are not in {folder}"
        raise TarotError("finite angles", got, "tune again")
    return angles


def _plain(value: object) -> object:
    """Copy JSON values with null for a float that is not finite: JSON has no such numbers."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def composed_provenance(*parents: tuple[float, Adapter]) -> dict[str, object]:
    """Provenance of an adapter made from others: each with its strength, and the samples of them all.

    It has no task of its own, but what its parents were tuned on it must not be evaluated on either.
    """
    provenance: dict[str, object] = {
        "parents": [
            {"strength": strength, "fingerprint": parent.fingerprint, "provenance": dict(parent.provenance)}
            for strength, parent in parents
        ]
    }
    models = {parent.provenance.get("model") for _, parent in parents}
    if len(models) == 1 and (model := models.pop()):
        provenance["model"] = model
    lists = [parent.provenance.get("samples_drawn") for _, parent in parents]
    if drawn := [sample for each in lists if isinstance(each, list) for sample in each]:
        provenance["samples_drawn"] = drawn
    return provenance
