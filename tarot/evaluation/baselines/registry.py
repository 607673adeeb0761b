"""The baselines by name. Imports no torch, so that commands check names before they load a model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tarot.arguments import Registry
from tarot.errors import TarotError, require_package


@dataclass(frozen=True)
class Baseline:
    """A method to beat.

    Attributes:
        module: the module below `tarot.evaluation.baselines` whose `BASELINES` has it.
        summary: what it does, for lists of options.
        extra: the extra of `tarot-lm` that it needs; "" for none.
        changes_model: whether it makes a `BaselineEdit`; otherwise it changes the prompts or the answers.
    """

    module: str
    summary: str
    extra: str = ""
    changes_model: bool = True

    @property
    def is_trained(self) -> bool:
        """Whether it trains weights, and so can hold the limit of the compared edit."""
        return self.module == "trained"


def _peft(summary: str) -> Baseline:
    return Baseline("trained", summary, extra="peft")


def _prompting(summary: str) -> Baseline:
    return Baseline("prompting", summary, changes_model=False)


BASELINES: Mapping[str, Baseline] = MappingProxyType(
    Registry(
        "baseline",
        {
            "all-shots": _prompting("all labelled documents as shots, as many as the context holds"),
            "best-shots": _prompting("the best of ten draws of shots, by the likelihood of the other labels"),
            "nearest-shots": _prompting(
                "for each document the labelled ones nearest to it, by the model's own embedding"
            ),
            "batch-calibration": _prompting("few-shot answers, divided by their mean over the documents"),
            "lora": _peft("LoRA of rank 8"),
            "dora": _peft("DoRA of rank 8"),
            "ia3": _peft("IA3"),
            "oft": _peft("orthogonal finetuning in blocks of two, on the edited projections"),
            "road": _peft("RoAd"),
            "vera": _peft("VeRA of rank 256"),
            "prompt-tuning": Baseline("prompt_tuning", "20 trained vectors in front of every prompt", extra="peft"),
            "caa": Baseline("steering", "a mean difference of activations, added after one layer"),
            "iti": Baseline(
                "steering", "mean differences of head outputs, added to the heads that tell right from wrong"
            ),
            "eigenpruning": Baseline("eigenpruning", "drop singular values of attention matrices"),
        },
    )
)


def check_baselines(names: Iterable[str]) -> None:
    """Check that baselines exist, occur once, and have the packages that they need.

    Raises:
        UnknownName: no such baseline.
        TarotError: a name occurs twice, or a package is not installed.

    Example:
        >>> check_baselines(["caa", "all-shots"])
    """
    names = list(names)
    for name in names:
        if extra := BASELINES[name].extra:
            require_package(extra, f"The baseline {name}", extra)
    if len(set(names)) < len(names):
        raise TarotError("each baseline once", ", ".join(names))
