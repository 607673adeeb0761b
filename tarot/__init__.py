"""Edit what a causal language model does by rotating its attention heads, and measure what that changes.

The method is TaRot (Singh, Dutta and Chakraborty, "Mechanistic Behavior Editing of Language Models", arXiv 2410.04277).
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter
    from tarot.errors import TarotError
    from tarot.evaluation.compare import compare
    from tarot.evaluation.evaluate import evaluate
    from tarot.evaluation.results.comparison import Comparison
    from tarot.models.load import load_model
    from tarot.search.config import TaRotConfig
    from tarot.search.tune import tune

__version__ = "0.1.0"

# Names resolve on first use: pytest imports this package for its plugin, and must not pay for torch.
_MODULES = {
    "Adapter": "edit.adapter",
    "Comparison": "evaluation.results.comparison",
    "TaRotConfig": "search.config",
    "TarotError": "errors",
    "compare": "evaluation.compare",
    "evaluate": "evaluation.evaluate",
    "load_model": "models.load",
    "tune": "search.tune",
}

__all__ = [
    "Adapter",
    "Comparison",
    "TaRotConfig",
    "TarotError",
    "__version__",
    "compare",
    "evaluate",
    "load_model",
    "tune",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'tarot' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tarot.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
