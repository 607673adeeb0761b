"""Call libraries without requests to the hub, progress bars or warnings."""

import functools
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants
from transformers.utils import logging as transformers_logging


@contextmanager
def hub_offline() -> Iterator[None]:
    """Refuse every request to the hub. Whatever a checkpoint's files name must be on this machine."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the bars and warnings of transformers: commands show their own progress, and real faults raise."""
    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    # The GGUF reader's own bar has no switch.
    reader: Any = sys.modules.get("transformers.modeling_gguf_pytorch_utils")
    bar = getattr(reader, "tqdm", None)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        if bar:
            reader.tqdm = functools.partial(bar, disable=True)
        yield
    finally:
        if bar:
            reader.tqdm = bar
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def quiet_loggers(*loggers: str) -> Iterator[None]:
    """Let only errors through from some loggers, whose warnings users can do nothing about."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
