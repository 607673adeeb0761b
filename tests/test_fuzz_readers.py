"""The first rounds of `fuzz_readers.py`: no reader raises anything but TarotError."""

import random
from collections import Counter
from pathlib import Path

import pytest
from fuzz_readers import MODEL_READERS, READERS, Reader, fuzz

ROUNDS = 2000
PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_changed_files_are_accepted_or_refused(part: int) -> None:
    results = [fuzz(0, number) for number in range(part, ROUNDS, PARTS)]
    assert [result for _, result in results if result not in ("accepted", "refused")] == []


@pytest.mark.parametrize("reader", READERS + MODEL_READERS, ids=lambda reader: reader.name)
def test_valid_files_are_accepted(reader: Reader, tmp_path: Path) -> None:
    for name, content in reader.files.items():
        (tmp_path / name).write_bytes(content)
    reader.read(tmp_path, random.Random(0))


def test_some_changed_files_are_accepted_and_some_refused() -> None:
    results = Counter(fuzz(1, number) for number in range(40 * len(READERS)))
    for reader in READERS:
        assert results[reader.name, "accepted"] > 0
        assert results[reader.name, "refused"] > 0 or reader.name in ("pictures", "answers", "divergences")
