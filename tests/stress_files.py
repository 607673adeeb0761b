"""Let many threads replace one file at once, and count the writes that fail and the contents that are not whole.

    python tests/stress_files.py --rounds 10000

A round is one write. Each thread writes a content of its own, and reads the file after each write.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from tarot._files.atomic import write_atomically

THREADS = 8
SIZE = 4096  # bytes of a content


def failures(path: Path, content: bytes, rounds: int) -> Iterator[str]:
    """Write a content several times, and yield what went wrong."""
    for _ in range(rounds):
        try:
            write_atomically(path, content)
        except OSError as error:
            yield str(error)
        if len(found := path.read_bytes()) != SIZE or len(set(found)) != 1:
            yield f"a content of {len(found)} bytes of {len(set(found))} kinds"


def stress(rounds: int) -> list[str]:
    """Write from several threads, `rounds` times altogether, and return what went wrong."""
    with TemporaryDirectory(prefix="tarot-") as folder, ThreadPoolExecutor(THREADS) as threads:
        path = Path(folder, "file")
        share = -(-rounds // THREADS)
        contents = [bytes([number]) * SIZE for number in range(THREADS)]
        work = threads.map(lambda content: list(failures(path, content, share)), contents)
        found = [failure for each in work for failure in each]
        left = [each.name for each in Path(folder).iterdir() if each != path]
    return found + [f"{name} is left" for name in left]


def main() -> int:
    """Run the rounds and print what went wrong, with how often."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10000, help="number of writes")
    rounds, begin = parser.parse_args().rounds, time.perf_counter()
    found = stress(rounds)
    for failure in sorted(set(found)):
        print(f"{found.count(failure):6} times: {failure}")
    print(f"{rounds} writes by {THREADS} threads, {len(found)} failed, {time.perf_counter() - begin:.0f} s")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
