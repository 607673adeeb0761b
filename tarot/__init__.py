"""Edit a language model by rotating its attention heads, and prove what it does (TaRot, arXiv 2410.04277)."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter
    from tarot.edit.hooks import apply_rotation
    from tarot.edit.merge import merge_rotation, unmerge_rotation
    from tarot.errors import TarotError
    from tarot.evaluation.evaluate import evaluate
    from tarot.models.load import load_model
    from tarot.search.config import TaRotConfig
    from tarot.search.tune import tune

__version__ = "0.1.0"

# Names resolve on first use: importing tarot, as pytest does for its plugin, must not import torch.
_MODULES = {
    "Adapter": "edit.adapter",
    "Recipe": "search.tune",
    "TarotError": "errors",
    "evaluate": "models.lm_eval_model",
    "load_model": "models.load",
    "merge_": "edit.hooks",
    "rotated": "edit.hooks",
    "tune": "search.tune",
    "unmerge_": "edit.hooks",
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
    if name not in _MODULES:
        raise AttributeError(f"module 'tarot' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tarot.{_MODULES[name]}"), name)
