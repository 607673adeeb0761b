"""Adapters: the angles of an edit, where they act, and where they came from."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from reprlib import repr as short
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tarot.arguments import require_flag, require_number, require_path, require_text
from tarot.edit import hub
from tarot.edit.adapter_folder import METADATA, WEIGHTS, AdapterContent, read_adapter_folder, write_adapter_folder
from tarot.edit.fingerprint import has_other_weights, shapes_fingerprint
from tarot.edit.gate import PromptGate
from tarot.edit.hooks import apply_rotation
from tarot.edit.layers import format_layers
from tarot.edit.measurement import MeasuredResult
from tarot.edit.merge import merge_rotation
from tarot.edit.provenance import Parent, scale_provenance, to_json_values, tuned_tasks, tuned_weights
from tarot.edit.rotation import ROTATIONS, Angles, Rotation
from tarot.edit.sites import SITE_KINDS, Site, decoder_layers, find_sites
from tarot.errors import InvalidValueError, MissingFileError, ShapeMismatch

logger = logging.getLogger("tarot")


@dataclass(frozen=True)
class Edit:
    """Where and how the angles of an adapter act.

    Args:
        sites: kind of site, `heads` or `mlp`.
        layers: indices of the edited layers, one for each row of angles.
        rotation: name in `ROTATIONS`.
        model: fingerprint of the edited projections' names and shapes.

    Raises:
        UnknownName: there is no such kind of site or rotation.
    """

    sites: str
    layers: tuple[int, ...]
    rotation: str
    model: str

    def __post_init__(self) -> None:
        _ = SITE_KINDS[self.sites], ROTATIONS[self.rotation]  # raise UnknownName

    @classmethod
    def from_sites(cls, model: PreTrainedModel, kind: str, sites: tuple[Site, ...], rotation: Rotation) -> "Edit":
        """Return the edit of these sites, which are of one kind, in `model`."""
        return cls(kind, tuple(site.layer for site in sites), rotation.name, shapes_fingerprint(model, sites))


@dataclass(frozen=True, eq=False, repr=False)
class Adapter:
    """An edit that can be applied, merged, saved and shared.

    Two adapters are equal if they edit a model alike and have the same provenance.

    Args:
        angles: radians, `layer x head x angle`.
        edit: where and how the angles act.
        provenance: plain JSON values on how the angles were found.
        gate: decides once a sequence whether the edit acts on it; None for always.

    Example:
        >>> adapter = tarot.Adapter.from_pretrained("my-edit")
        >>> adapter
        Adapter(task='synth_color', model='wheel:smollm2-135m', layers='0-1', fingerprint='...')
    """

    angles: Angles
    edit: Edit
    provenance: Mapping[str, object]
    gate: PromptGate | None = None

    def __post_init__(self) -> None:
        kinds = {"angles": Tensor, "edit": Edit, "provenance": Mapping, "gate": PromptGate | None}
        for name, kind in kinds.items():
            if not isinstance(value := getattr(self, name), kind):
                raise InvalidValueError(f"{name} of an adapter cannot be {short(value)}.", hint="see tarot.Adapter")
        if self.angles.ndim != 3:
            raise InvalidValueError("angles by layer, head and angle", f"{self.angles.ndim} dimensions")

    def __repr__(self) -> str:
        """Name the adapter, without its angles and samples."""
        task = " + ".join(sorted(self.tasks)) or None
        model = self.provenance.get("model")
        layers = short(format_layers(self.edit.layers))
        return f"Adapter(task={short(task)}, model={short(model)}, {layers=!s}, fingerprint={self.fingerprint!r})"

    def __eq__(self, other: object) -> bool:
        """Compare the edits, bit for bit, and their provenance as JSON holds it."""
        if not isinstance(other, Adapter):
            return NotImplemented
        return self.fingerprint == other.fingerprint and (
            to_json_values(self.provenance) == to_json_values(other.provenance)
        )

    def __hash__(self) -> int:
        """Hash the fingerprint."""
        return hash(self.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of everything that determines the edited model's behaviour."""
        digest = hashlib.sha256(json.dumps([*vars(self.edit).values()]).encode())
        digest.update(self.angles.detach().cpu().double().contiguous().numpy().tobytes())
        if self.gate:
            digest.update(json.dumps([self.gate.layer, self.gate.bias]).encode())
            digest.update(self.gate.weight.detach().cpu().double().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def rotation(self) -> Rotation:
        """Family of the rotations that the angles belong to."""
        return ROTATIONS[self.edit.rotation]

    @cached_property
    def tasks(self) -> frozenset[str]:
        """Tasks that this adapter, or any adapter it was made from, was tuned on."""
        return tuned_tasks(self.provenance)

    def find_sites(self, model: PreTrainedModel) -> tuple[Site, ...]:
        """Return the sites of `model` that the angles belong to, one for each row of angles.

        Raises:
            ShapeMismatch: the model's projections do not have the angles' shape.
            InvalidValueError: the model has too few layers, or projections of other names or sizes, or is no model.
        """
        _require_model(model)
        last_edited, last = max(self.edit.layers), len(decoder_layers(model)) - 1
        if last_edited > last:
            raise InvalidValueError(
                f"a model with a layer {last_edited}",
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
        if (fingerprint := shapes_fingerprint(model, sites)) != self.edit.model:
            raise InvalidValueError(
                f"the projections that the adapter was made for ({self.edit.model})",
                f"those of {type(model).__name__} ({fingerprint})",
                "load the model named in the adapter's tarot.json",
            )
        return sites

    def apply(self, model: PreTrainedModel, *, strength: float = 1.0) -> AbstractContextManager[object]:
        """Edit `model` inside a `with` block; the hooks are gone on exit.

        A gate decides for each row, in the pass that reads the prompt (`tarot.edit.gate`). Threads, nesting and the
        order of nested edits: see `tarot.edit.hooks.apply_rotation`. A model with other weights than the one that the
        adapter was tuned on is edited with a warning in the log.

        Args:
            model: the model that the adapter was made for.
            strength: factor of every angle; 0 leaves the model as it is.

        Raises:
            InvalidValueError: the adapter is for another model, or the strength is not finite.

        Example:
            >>> with adapter.apply(model, strength=0.5):
            ...     output = model.generate(**tokenizer("Did Ed leave?", return_tensors="pt"), max_new_tokens=8)
        """
        self._warn_of_other_weights(model)
        return apply_rotation(model, self._angles(strength), self.find_sites(model), self.rotation, self.gate)

    def merge(self, model: PreTrainedModel, *, strength: float = 1.0, without_gate: bool = False) -> PreTrainedModel:
        """Fold the edit into the weights of `model`, permanently, and return it. It then costs nothing at inference.

        Args:
            model: the model that the adapter was made for.
            strength: factor of every angle.
            without_gate: merge the edit of a gated adapter so that it acts on every prompt.

        Raises:
            InvalidValueError: the adapter is for another model or has a gate, the weights are quantised, or the
                strength is not finite.

        Example:
            >>> adapter.merge(model).save_pretrained("my-model")
        """
        self.check_no_gate(without_gate)
        self._warn_of_other_weights(model)
        merge_rotation(model, self._angles(strength), self.find_sites(model), self.rotation)
        return model

    def check_no_gate(self, without_gate: bool = False) -> None:
        """Raise InvalidValueError if the adapter has a gate, which no weight can hold, unless it is to be left out."""
        if not require_flag("without_gate", without_gate) and self.gate:
            raise InvalidValueError(
                f"The gate of adapter {self.fingerprint} cannot be merged into weights.",
                hint="apply the adapter, or merge without its gate: without_gate=True, or --without-gate",
            )

    def has_other_weights(self, model: PreTrainedModel) -> bool:
        """Return whether this adapter, or one it was made from, is known to be tuned on other weights than the model's.

        Example:
            >>> adapter.has_other_weights(model)
            False
        """
        _require_model(model)
        return has_other_weights(model, tuned_weights(self.provenance))

    def _warn_of_other_weights(self, model: PreTrainedModel) -> None:
        if self.has_other_weights(model):
            _warn_once(self.fingerprint, str(self.provenance.get("model", "other models")))

    def _angles(self, strength: float) -> Angles:
        strength = require_number("strength", strength, "a finite number", math.isfinite)
        return self.angles if strength == 1 else self.scaled(strength).angles

    def scaled(self, strength: float) -> "Adapter":
        """Return this adapter with every angle times `strength`: 0 is the identity and 1 this edit.

        For `Rotary` and `Scale` that is the edit's power, `R^strength`, and -1 is its inverse. For `Givens` it is a
        path from the identity to the edit. The provenance keeps the task and the samples but not the scores.

        Raises:
            InvalidValueError: the strength is not a finite number, or an angle would not be finite.

        Example:
            >>> weaker = adapter.scaled(0.5)
        """
        strength = require_number("strength", strength, "a finite number", math.isfinite)
        angles = self.angles * strength
        if not torch.isfinite(angles).all():
            raise InvalidValueError("a strength that leaves every angle finite", repr(strength))
        return replace(self, angles=angles, provenance=scale_provenance(self.as_parent(strength)))

    def as_parent(self, strength: float = 1.0) -> Parent:
        """Describe this adapter in the provenance of one that is made from it."""
        return Parent(strength, self.fingerprint, self.provenance)

    def save_pretrained(self, folder: str | Path) -> None:
        """Save to a folder, as `adapter.safetensors` and `tarot.json`.

        Raises:
            FileAccessError: the folder cannot be written.

        Example:
            >>> adapter.save_pretrained("my-edit")
        """
        if (path := require_path("folder", folder)) is None:
            raise InvalidValueError("folder must be a path, not None.")
        edit = {**vars(self.edit), "layers": list(self.edit.layers)}
        content = AdapterContent(self.angles, edit, self.provenance, self.gate)
        write_adapter_folder(path, content, self.fingerprint)

    @classmethod
    def from_pretrained(cls, reference: str | Path, *, revision: str | None = None) -> "Adapter":
        """Load from a folder or, where there is no such folder, from the hub.

        Args:
            reference: a folder, or a hub id such as `owner/name`.
            revision: branch, tag or commit on the hub.

        Raises:
            MissingFileError: there is no such folder or hub repository, or it has no adapter.
            FileAccessError: the hub cannot be read.
            InvalidValueError: a file is damaged or of a newer format.

        Example:
            >>> adapter = tarot.Adapter.from_pretrained("my-edit")
        """
        if not isinstance(reference, str | os.PathLike):
            raise InvalidValueError(f"An adapter's folder or hub id is text or a path, not {short(reference)}.")
        if revision is not None:
            require_text("revision", revision)
        path = Path(reference).expanduser()
        if path.is_file():
            raise InvalidValueError(f"{str(reference)!r} is a file; give the adapter's folder.")
        if path.is_dir():
            folder = path
        elif isinstance(reference, str):
            folder = hub.pull_files(reference, (METADATA, WEIGHTS), revision)
        else:
            raise MissingFileError(f"There is no folder {str(reference)!r}.")
        angles, edit, provenance, gate = read_adapter_folder(folder)
        layers = tuple(edit["layers"])
        return cls(angles, Edit(edit["sites"], layers, edit["rotation"], edit["model"]), provenance, gate)

    @classmethod
    def resolve(cls, adapter: "Adapter | str | Path") -> "Adapter":
        """Return an adapter as it is, or load it from its folder or hub id.

        Raises:
            InvalidValueError: it is neither. Errors of loading: see `from_pretrained`.

        Example:
            >>> adapter = tarot.Adapter.resolve("my-edit")
        """
        if isinstance(adapter, cls):
            return adapter
        if isinstance(adapter, str | os.PathLike):
            return cls.from_pretrained(adapter)
        raise InvalidValueError(
            f"{short(adapter)} is no adapter; give a tarot.Adapter, the folder of one, or its hub id."
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        results: MeasuredResult | Sequence[MeasuredResult] = (),
        license: str | None = None,
    ) -> str:
        """Save the adapter and a model card to the hub in one commit, and return its address.

        Args:
            repo_id: `name` or `owner/name`; created if it does not exist.
            private: whether a new repository is private.
            results: one or several comparisons of this adapter, which the card shows as tables and in its metadata.
            license: licence of the adapter, as the hub calls it, such as `apache-2.0`. That of the base model is not
                looked up: an adapter file must not trigger a request.

        Raises:
            InvalidValueError: a result is no comparison, or one of another adapter.
            FileAccessError: the hub refuses or cannot be reached.

        Example:
            >>> adapter.push_to_hub("me/color", private=True)
            'https://huggingface.co/me/color/commit/0a1b2c'
        """
        require_text("repo_id", repo_id)
        require_flag("private", private)
        if license is not None:
            require_text("license", license)
        measured = [result.to_measurement() for result in _comparisons(results)]
        if other := [each.adapter for each in measured if each.adapter != self.fingerprint]:
            raise InvalidValueError(f"The results are of another adapter, {other[0]}, not of {self.fingerprint}.")
        with TemporaryDirectory(prefix="tarot-") as scratch:
            self.save_pretrained(scratch)
            return hub.push_folder(repo_id, Path(scratch), private=private, measured=measured, license=license)


def _require_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        hint = "unpack what load_model returns: model, tokenizer = ..." if isinstance(model, Iterable) else ""
        raise InvalidValueError("a transformers model", type(model).__name__, hint)


@cache
def _warn_once(adapter: str, model: str) -> None:
    logger.warning(
        "adapter %s was tuned on other weights than this model's (those of %s): its recorded scores and divergence do "
        "not hold here",
        adapter,
        model,
    )


def _comparisons(results: object) -> list[MeasuredResult]:
    """Return one or several results as a list; raise InvalidValueError for anything else."""
    listed = list(results) if isinstance(results, Sequence) and not isinstance(results, str) else [results]
    comparisons = [result for result in listed if isinstance(result, MeasuredResult)]
    if len(comparisons) < len(listed):
        hint = "read a file with tarot.evaluation.results.results_file.load_comparisons"
        raise InvalidValueError(f"results must be comparisons, not {short(results)}.", hint=hint)
    return comparisons
