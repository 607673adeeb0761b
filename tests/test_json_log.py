"""Logs of one entry a trial: what is added is read back, whatever the entries are, and damage is an error."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarot._files.json_log import IndexedLog, read_intact
from tarot._files.strict_json import Count
from tarot.errors import FileAccessError, InvalidValueError


@dataclass(frozen=True)
class Part:
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    score: float
    parts: tuple[tuple[Part, ...], ...]


class Log(IndexedLog[Entry]):
    file, kind, title = "entries.json", Entry, "entries"


PARTS = st.builds(Part, st.text(st.characters(codec="utf-8")), st.lists(st.integers(0, 9)).map(tuple))
ENTRIES = st.builds(
    Entry, st.floats(-1e9, 1e9), st.lists(st.lists(PARTS, max_size=2).map(tuple), max_size=2).map(tuple)
)


@given(st.dictionaries(st.integers(0, 5), ENTRIES, min_size=1))
def test_a_resumed_log_has_every_entry(entries: dict[int, Entry]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        for trial, entry in entries.items():
            Log(folder).add(trial, entry)  # each time a new process
        assert Log.read(folder) == Log(folder).entries == entries


def test_without_a_folder_nothing_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = Log(None)
    log.add(0, Entry(0.0, ()))
    assert log.entries and not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{", "[]", '{"-1": {"score": 0.0, "parts": []}}', '{"0": {"score": "high"}}'])
def test_damage_is_an_error_but_not_where_it_counts_as_empty(tmp_path: Path, content: str) -> None:
    (tmp_path / Log.file).write_text(content)
    with pytest.raises(InvalidValueError, match="are damaged"):
        Log(tmp_path)
    assert read_intact(tmp_path / Log.file, dict[Count, Entry]) is None


def test_a_missing_file_is_an_error_for_who_reads_it(tmp_path: Path) -> None:
    assert Log(tmp_path).entries == {} and read_intact(tmp_path / Log.file, Entry) is None
    with pytest.raises(FileAccessError, match="No such file"):
        Log.read(tmp_path)
