"""GGUF export: an edit merged into a file for llama.cpp and the programs built on it.

An edit changes a few tensors. These are written unquantised; all others, and the metadata, are copied byte for byte.
Nothing is converted; llama.cpp's own script does that.

Some architectures store projections permuted or transposed. Each tensor that is replaced must therefore equal, number
for number, the weight that the model was loaded with.

Requires the package gguf, which the extra `models` installs.
"""

from contextlib import closing
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.scripts.gguf_new_metadata import copy_with_new_metadata
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tarot._files.atomic import replace_file
from tarot.edit.adapter import Adapter
from tarot.edit.merge import merge_temporarily
from tarot.edit.sites import n_layers
from tarot.errors import InvalidValueError

_MERGE = "tarot merge writes the folder that llama.cpp's converter reads"


def to_gguf(
    model: PreTrainedModel, adapter: Adapter, source: str | Path, output: str | Path, *, without_gate: bool = False
) -> tuple[str, ...]:
    """Write a copy of a GGUF file with the edit merged, and return the names of the tensors that differ.

    Edited tensors are float16, or float32 if they were before or if a number is too large for float16. Unedited
    tensors, such as those of a layer whose angles are zero, keep their bytes. The file is written atomically.

    Args:
        model: the model loaded from `source`, in float32 and in memory; restored at the end.
        adapter: an adapter of the model, with any rotation and any sites.
        source: the GGUF file.
        output: the new file.
        without_gate: export the edit of a gated adapter so that it acts on every prompt.

    Raises:
        InvalidValueError: the adapter has a gate or does not fit the model, `source` is not a GGUF file, or it stores a
            projection other than the model does.
        FileAccessError: `output` cannot be written.

    Example:
        >>> to_gguf(model, adapter, "model.gguf", "edited.gguf")
        ('blk.0.attn_output.weight', 'blk.1.attn_output.weight')
    """
    adapter.check_no_gate(without_gate)
    sites = adapter.find_sites(model)
    before = {id(parameter): parameter.data for site in sites for parameter in site.module.parameters()}
    kinds = {"offloaded weights" if each.is_meta else str(each.dtype) for each in before.values()}
    if kinds != {"torch.float32"}:
        got = ", ".join(sorted(kinds - {"torch.float32"}))
        raise InvalidValueError(
            "weights in float32 and in memory", got, "load the model without a dtype or a device map"
        )
    reader, architecture = _read(Path(source))
    names = gguf.get_tensor_name_map(architecture, n_layers(model))
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    edited: dict[str, gguf.ReaderTensor] = {}
    with merge_temporarily(model, adapter.angles, sites, adapter.rotation):
        for site in sites:
            # Some models are converted without their head, so that module names lack its prefix.
            short_name = site.name.removeprefix(f"{model.base_model_prefix}.")
            stem = names.get_name(site.name) or names.get_name(short_name)
            for name, parameter in site.module.named_parameters():
                if torch.equal(parameter, before[id(parameter)]):
                    continue
                tensor = tensors.get(f"{stem}.{name}")
                if tensor is None or not _equals(tensor, _output_rows(site.module, before[id(parameter)])):
                    got = f"other numbers, or in another order, in {tensor.name}" if tensor else "none of that name"
                    raise InvalidValueError(f"the model's {site.name}.{name} in {source}", got, _MERGE)
                edited[tensor.name] = _replace(tensor, _output_rows(site.module, parameter.data))
    reader.tensors = [edited.get(tensor.name, tensor) for tensor in reader.tensors]
    with (
        replace_file(Path(output)) as part,
        closing(gguf.GGUFWriter(part, gguf.MODEL_ARCH_NAMES[architecture], endianess=reader.endianess)) as writer,
    ):
        writer.data_alignment = reader.alignment
        try:
            copy_with_new_metadata(reader, writer, {}, [])
        except ValueError as error:  # an empty list, which other writers accept
            raise InvalidValueError(
                f"The package gguf cannot write the metadata of {source}: {error}", hint=_MERGE
            ) from error
    return tuple(edited)


def _read(source: Path) -> tuple[gguf.GGUFReader, gguf.MODEL_ARCH]:
    """Open the file, whose tensors are loaded when they are used, and return its architecture too."""
    try:
        reader = gguf.GGUFReader(source)
    except (OSError, ValueError, LookupError) as error:
        raise InvalidValueError(f"{source} is not a complete GGUF file: {error}", hint="check the download") from error
    field = reader.get_field(gguf.Keys.General.ARCHITECTURE)
    known = {name: architecture for architecture, name in gguf.MODEL_ARCH_NAMES.items()}
    if (name := field.contents() if field else None) not in known:
        raise InvalidValueError(f"an architecture that the package gguf knows in {source}", repr(name), "update gguf")
    return reader, known[name]


def _output_rows(module: nn.Module, weight: Tensor) -> np.ndarray:
    """Return the weight with one row for each output, as GGUF stores it and Conv1D does not."""
    return (weight.T if isinstance(module, Conv1D) and weight.ndim == 2 else weight).detach().cpu().numpy()


def _equals(tensor: gguf.ReaderTensor, weight: np.ndarray) -> bool:
    return np.array_equal(gguf.dequantize(tensor.data, tensor.tensor_type), weight)


def _replace(tensor: gguf.ReaderTensor, weight: np.ndarray) -> gguf.ReaderTensor:
    kind = gguf.GGMLQuantizationType.F16
    if tensor.tensor_type == gguf.GGMLQuantizationType.F32 or np.abs(weight).max() > np.finfo(np.float16).max:
        kind = gguf.GGMLQuantizationType.F32
    data = gguf.quantize(weight, kind)
    return tensor._replace(tensor_type=kind, data=data, n_bytes=data.nbytes)
