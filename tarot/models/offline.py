"""Call libraries without requests to the hub, progress bars or warnings."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from huggingface_hub import constants
from transformers.utils import logging as transformers_logging

from tarot.edit.patch import restoring


@contextmanager
def hub_offline() -> Iterator[None]:
    """Refuse every request to the hub. Whatever a checkpoint's files name must be on this machine."""
    with restoring(partial(setattr, constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE)):
        constants.HF_HUB_OFFLINE = True
        yield


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the bars and warnings of transformers: commands show their own progress, and real faults raise."""
    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    # The GGUF reader's own bar has no switch.
    reader: Any = sys.modules.get("transformers.modeling_gguf_pytorch_utils")
    bar = getattr(reader, "tqdm", None)

    def restore() -> None:
        if bar:
            reader.tqdm = bar
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()

    with restoring(restore):
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        if bar:
            reader.tqdm = partial(bar, disable=True)
        yield


@contextmanager
def quiet_loggers(*loggers: str) -> Iterator[None]:
    """Let only errors through from some loggers, whose warnings users can do nothing about."""
    levels = {name: logging.getLogger(name).level for name in loggers}

    def restore() -> None:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)

    with restoring(restore):
        for name in loggers:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
