"""Files: whole or not at all."""

from pathlib import Path

import pytest

from tarot import files
from tarot.errors import TarotError
from tarot.files import write_atomically


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "card.json"
    target.write_bytes(b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(TarotError) as error:
        write_atomically(target, b"after")
    assert str(error.value) == (
        f"expected to write {target}, got No space left on device; free space or choose another place"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]
    assert target.read_bytes() == b"before"


def test_a_folder_is_made_for_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "file", b"content")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"content"


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TarotError, match=r"expected to write .*file/card, got .*; free space or choose another place"):
        write_atomically(tmp_path / "file" / "card", b"content")
