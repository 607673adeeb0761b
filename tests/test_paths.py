"""Paths: the cache folder, and outputs that are checked before the work."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot._files.paths import cache_folder, check_writable
from tarot.errors import FileAccessError


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), st.booleans())
def test_new_paths_are_accepted_and_nothing_is_created(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], folder: bool
) -> None:
    base = tmp_path_factory.mktemp("base")
    check_writable(base.joinpath(*parts), folder=folder)
    assert list(base.iterdir()) == []


def test_an_existing_path_must_be_of_the_right_kind(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_writable(tmp_path / "file")
    check_writable(tmp_path, folder=True)
    with pytest.raises(FileAccessError, match="not a folder"):
        check_writable(tmp_path / "file", folder=True)
    with pytest.raises(FileAccessError, match="not a regular file"):
        check_writable(tmp_path)


@pytest.mark.parametrize("name", ["file/deep", "n" * 300])
def test_paths_that_cannot_be_created_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    for folder in (True, False):
        with pytest.raises(FileAccessError, match="cannot be written"):
            check_writable(tmp_path / name, folder=folder)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tarot"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path(os.path.expanduser("~/.cache/tarot"))
