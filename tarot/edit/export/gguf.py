"""W <- W R^T in a GGUF file: an edit as a file that llama.cpp, and what is built on it, runs.

An edit changes a few tensors. Those are written anew, unquantised; all others stay quantised as they are, byte for
byte, and so does the metadata. Nothing is converted: only llama.cpp's own script does that, which no package keeps.

Whether a file keeps a projection as transformers does, or permuted or transposed, differs between architectures. So
each tensor that is replaced has to be, number for number, the weight that the model was loaded with.

The package gguf, which this needs, comes with the extra `tarot-lm[models]`.
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
from tarot.errors import TarotError

_MERGE = "tarot merge writes the folder that llama.cpp's converter reads"


def to_gguf(model: PreTrainedModel, adapter: Adapter, source: str | Path, output: str | Path) -> tuple[str, ...]:
    """Write the GGUF file `source` with the edit in its weights, and return the names of the tensors that differ.

    They are float16, or float32 where they were or where a number is too large for 16 bits. What the edit does not
    change, such as a layer whose angles are zero, keeps its bytes. The file appears whole or not at all.

    Args:
        model: what was loaded from `source`, in float32 and in memory; as before when it is done.
        adapter: an edit of it, of any rotation and any sites.
        source: what `models.gguf_file` finds for the model's reference.
        output: the new file.

    Raises:
        TarotError: a file that cannot be read or written, an adapter that does not fit the model, or a projection that
            the file does not hold as the model does.
    """
    sites = adapter.find_sites(model)
    before = {id(parameter): parameter.data for site in sites for parameter in site.module.parameters()}
    if unlike := {"none here" if each.is_meta else str(each.dtype) for each in before.values()} - {"torch.float32"}:
        got = ", ".join(sorted(unlike))
        raise TarotError("weights in float32 and in memory", got, "load the model without a dtype or a device map")
    reader, architecture = _read(Path(source))
    names = gguf.get_tensor_name_map(architecture, n_layers(model))
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    edited: dict[str, gguf.ReaderTensor] = {}
    with merge_temporarily(model, adapter.angles, sites, adapter.rotation):
        for site in sites:
            # Some models are converted without their head, their modules' names without its prefix.
            own = site.name.removeprefix(f"{model.base_model_prefix}.")
            stem = names.get_name(site.name) or names.get_name(own)
            for name, parameter in site.module.named_parameters():
                if torch.equal(parameter, before[id(parameter)]):
                    continue
                tensor = tensors.get(f"{stem}.{name}")
                if tensor is None or not _holds(tensor, _in_rows(site.module, before[id(parameter)])):
                    got = f"other numbers, or in another order, in {tensor.name}" if tensor else "none of that name"
                    raise TarotError(f"the model's {site.name}.{name} in {source}", got, _MERGE)
                edited[tensor.name] = _replaced(tensor, _in_rows(site.module, parameter.data))
    reader.tensors = [edited.get(tensor.name, tensor) for tensor in reader.tensors]
    with (
        replace_file(Path(output)) as part,
        closing(gguf.GGUFWriter(part, gguf.MODEL_ARCH_NAMES[architecture], endianess=reader.endianess)) as writer,
    ):
        writer.data_alignment = reader.alignment
        try:
            copy_with_new_metadata(reader, writer, {}, [])
        except ValueError as error:  # an empty list, which others write
            raise TarotError(f"metadata in {source} that the package gguf writes", f"{error}", _MERGE) from error
    return tuple(edited)


def _read(source: Path) -> tuple[gguf.GGUFReader, gguf.MODEL_ARCH]:
    """The file, whose tensors stay on the disk until they are used, and its architecture."""
    try:
        reader = gguf.GGUFReader(source)
    except (OSError, ValueError, LookupError) as error:
        raise TarotError(f"a whole GGUF file in {source}", f"{error}", "check that it was downloaded whole") from error
    field = reader.get_field(gguf.Keys.General.ARCHITECTURE)
    known = {name: architecture for architecture, name in gguf.MODEL_ARCH_NAMES.items()}
    if (named := field.contents() if field else None) not in known:
        raise TarotError(f"an architecture that the package gguf knows in {source}", repr(named), "update gguf")
    return reader, known[named]


def _in_rows(module: nn.Module, weight: Tensor) -> np.ndarray:
    """An output a row, as GGUF has it and Conv1D has not."""
    return (weight.T if isinstance(module, Conv1D) and weight.ndim == 2 else weight).detach().cpu().numpy()


def _holds(tensor: gguf.ReaderTensor, weight: np.ndarray) -> bool:
    return np.array_equal(gguf.dequantize(tensor.data, tensor.tensor_type), weight)


def _replaced(tensor: gguf.ReaderTensor, weight: np.ndarray) -> gguf.ReaderTensor:
    kind = gguf.GGMLQuantizationType.F16
    if tensor.tensor_type == gguf.GGMLQuantizationType.F32 or np.abs(weight).max() > np.finfo(np.float16).max:
        kind = gguf.GGMLQuantizationType.F32
    data = gguf.quantize(weight, kind)
    return tensor._replace(tensor_type=kind, data=data, n_bytes=data.nbytes)
