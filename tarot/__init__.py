"""Edit a language model by rotating its attention heads, and prove what it does (TaRot, arXiv 2410.04277)."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tarot.adapter import Adapter
    from tarot.errors import TarotError
    from tarot.harness import evaluate
    from tarot.intervention import merge_, rotated, unmerge_
    from tarot.models import load_model
    from tarot.tuning import Recipe, tune

__version__ = "0.1.0"

# Names resolve on first use: importing tarot, as pytest does for its plugin, must not import torch.
_ROOMS = {
    "Adapter": "adapter",
    "Recipe": "tuning",
    "TarotError": "errors",
    "evaluate": "harness",
    "load_model": "models",
    "merge_": "intervention",
    "rotated": "intervention",
    "tune": "tuning",
    "unmerge_": "intervention",
}

__all__ = [
    "Adapter",
    "Recipe",
    "TarotError",
    "__version__",
    "evaluate",
    "load_model",
    "merge_",
    "rotated",
    "tune",
    "unmerge_",
]


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module 'tarot' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tarot.{_ROOMS[name]}"), name)
