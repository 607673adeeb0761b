"""The file that outlives a killed run: JSON lines, the run's settings first, then a line a trial.

Floats come back exactly; a score that is not finite is stored as null. A run killed while writing leaves a last line
without its end, which does not count.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, ClassVar, Literal

from typing_extensions import TypedDict

from tarot._files.strict_json import Count, Fraction, Number, parse_json, read_file, validate
from tarot.errors import TarotError

FORMAT = 1
LARGEST = 2**32  # bytes


Origin = Literal["identity", "start", "sobol", "random", "acquisition", "gradient"]


@dataclass(frozen=True)
class Trial:
    """f(x) = score.

    Attributes:
        index: 0 for the identity.
        x: the point, in the unit cube.
        score: higher is better; nan where the objective gave no finite number, or a gradient that is not finite.
        origin: how the point was proposed. `start` is one of the space's, `sobol` one of the initial design (a uniform
            draw in more dimensions than the sequence has). After these, `random` in a search with a surrogate says that
            it failed, or wanted a point again.
        propose_seconds: spent on finding the point.
        evaluate_seconds: spent on the objective, its gradient included; of a batch that is evaluated elsewhere, on
            waiting for it since the trial before.
        gradient: d score / d x, for a search that follows it; else empty.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    index: Count
    x: tuple[Fraction, ...]
    score: float
    origin: Origin
    propose_seconds: Number
    evaluate_seconds: Number
    gradient: tuple[Number, ...] = ()


def best_of(trials: Sequence[Trial]) -> Trial:
    """The first trial with the highest finite score; trial 0 where none is finite."""
    return max(trials, key=lambda trial: trial.score if math.isfinite(trial.score) else -math.inf)


class _Header(TypedDict):
    """The first line."""

    format: Count
    settings: dict[str, Any]


class TrialLog:
    """Append-only: each trial is on the disk before the next begins.

    Attributes:
        path: the file.
        settings: what the run was begun with.
        trials: those in the file, in order.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], trials: Sequence[Trial] = ()) -> None:
        self.path = path
        self.settings = settings
        self.trials = list(trials)

    @classmethod
    def open(cls, path: str | os.PathLike[str], settings: Mapping[str, Any], resume: bool) -> "TrialLog":
        """A new log at `path`; with `resume`, the one that is there, if there is one, ready to be continued.

        Args:
            settings: all that decides the trials, as JSON can hold it. A budget does not: leave it out, and a search
                can be continued with a larger one.
            resume: whether the file may exist.

        Raises:
            TarotError: the file exists and `resume` is False; it has other settings, a newer format or a broken line;
                the disk refuses.
        """
        path = Path(path)
        header = _line({"format": FORMAT, "settings": dict(settings)})
        try:
            if not path.exists():
                return _create(path, header)
            if not resume:
                raise TarotError("a new trial log", f"{path}, which exists", "resume it, or choose another folder")
            content = read_file(path, LARGEST)
            if b"\n" not in content and header.startswith(content):  # killed while writing the settings
                path.unlink()
                return _create(path, header)
            log = cls.read(path)
            _same_settings(path, log.settings, json.loads(header)["settings"])
            os.truncate(path, content.rfind(b"\n") + 1)
            return log
        except OSError as error:
            raise _refusal(path, error) from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "TrialLog":
        """The log at `path` as it stands, whatever its settings; the file is not touched and may be growing.

        Raises:
            TarotError: there is no such file; it has a newer format or a broken line.
        """
        path = Path(path)
        try:
            content = read_file(path, LARGEST)
        except OSError as error:
            raise TarotError(f"a trial log {path}", _reason(error), "run the search first") from error
        header, *lines = content[: content.rfind(b"\n") + 1].split(b"\n")
        return cls(path, _settings(path, header), _trials(path, lines[:-1]))

    def append(self, trial: Trial) -> None:
        """Write the trial and wait until the disk has it.

        Raises:
            TarotError: the disk refuses; the log then ends with the trial before.
        """
        fields = asdict(trial) | {"score": trial.score if math.isfinite(trial.score) else None}
        if not trial.gradient:
            del fields["gradient"]
        _append(self.path, _line(fields))
        self.trials.append(trial)


def intact_size(path: Path) -> int:
    """Bytes of a trial log up to its first line that cannot be read; 0 where there is no file, or no settings."""
    if not path.exists():
        return 0
    # Not `splitlines`, which ends lines at more than a newline; a last line without its end does not count.
    header, *lines = read_file(path, LARGEST).split(b"\n")[:-1] or [b""]
    size, trials = 0, list[Trial]()
    try:
        _settings(path, header)
        size = len(header) + 1
        for line in lines:
            trials.append(_trial(line, trials))
            size += len(line) + 1
    except (TarotError, ValueError):
        return size
    return size


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _create(path: Path, header: bytes) -> TrialLog:
    path.touch(exist_ok=False)
    try:
        _append(path, header)
    except TarotError:
        path.unlink()
        raise
    return TrialLog(path, json.loads(header)["settings"])


def _append(path: Path, line: bytes) -> None:
    try:
        with path.open("r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except BaseException:  # Ctrl-C too: the whole line, or none of it
                with suppress(OSError):
                    file.truncate(size)
                raise
    except OSError as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: OSError) -> TarotError:
    return TarotError(f"to write {path}", _reason(error), "free some space, or choose another folder")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _settings(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header: _Header = validate(_Header, parse_json(line))
    except ValueError as error:
        raise TarotError(
            f"the settings of a search in line 1 of {path}", str(error), "choose another folder"
        ) from error
    version = header["format"]
    if version > FORMAT:
        raise TarotError(f"a trial log of format {FORMAT} or older", f"format {version} in {path}", "use a newer tarot")
    return header["settings"]


def _same_settings(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    differing = [key for key in sorted({*theirs, *ours}) if theirs.get(key) != ours.get(key)]
    if differing:
        raise TarotError(
            f"the settings that {path} was begun with",
            ", ".join(f"{key} {short(ours.get(key))} instead of {short(theirs.get(key))}" for key in differing),
            "resume with the same, or choose another folder",
        )


def _trials(path: Path, lines: Sequence[bytes]) -> list[Trial]:
    trials: list[Trial] = []
    for index, line in enumerate(lines):
        try:
            trials.append(_trial(line, trials))
        except ValueError as error:
            raise TarotError(
                f"trial {index} in line {index + 2} of {path}", str(error), "choose another folder"
            ) from error
    return trials


def _trial(line: bytes, before: Sequence[Trial]) -> Trial:
    """Read one trial; ValueError where it does not fit those before it."""
    fields = parse_json(line)
    if isinstance(fields, dict) and fields.get("score", math.nan) is None:
        fields["score"] = math.nan
    trial: Trial = validate(Trial, fields)
    if trial.index != len(before):
        raise ValueError(f"index: {trial.index}")
    if before and len(trial.x) != len(before[0].x):
        raise ValueError(f"x: {len(trial.x)} coordinates, and {len(before[0].x)} in trial 0")
    if trial.gradient and len(trial.gradient) != len(trial.x):
        raise ValueError(f"gradient: {len(trial.gradient)} numbers for {len(trial.x)} coordinates")
    return trial
