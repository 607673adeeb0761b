"""Call transformers without requests to the hub, progress bars or warnings."""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants
from transformers.utils import logging


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
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    # The GGUF reader's own bar has no switch.
    reader: Any = sys.modules.get("transformers.modeling_gguf_pytorch_utils")
    bar = getattr(reader, "tqdm", None)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        if bar:
            reader.tqdm = functools.partial(bar, disable=True)
        yield
    finally:
        if bar:
            reader.tqdm = bar
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
