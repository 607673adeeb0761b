"""Trials of a search, and the log that keeps them on disk.

The log is a file of JSON lines: the search's settings first, then one trial a line. Floats are stored exactly; a score
that is not finite is stored as null. A process that is killed while writing leaves an incomplete last line, which is
ignored.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypedDict

from tarot._files.strict_json import Count, Fraction, Number, parse_json, read_file, validate
from tarot.errors import TarotError

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = 1
LARGEST = 2**32  # bytes

Origin = Literal["identity", "sobol", "random", "acquisition", "gradient"]


@dataclass(frozen=True)
class Trial:
    """One evaluated point: f(x) = score.

    Attributes:
        index: 0 for the identity.
        x: the point, in the unit cube.
        score: higher is better; NaN if the score or its gradient was not finite.
        origin: how the point was proposed. `sobol` is a point of the initial design.
            `random` after those means that the surrogate could not be fitted, or proposed a point again.
        propose_seconds: time spent on proposing the point.
        evaluate_seconds: time spent on the objective and its gradient; for a step that is evaluated elsewhere, the time
            spent waiting since the previous trial.
        gradient: d score / d x, or its estimate from sampled texts, if the search follows the gradient; under a limit,
            the direction of `tarot.search.kl_limit`.
        kl: divergence from the unedited model on the trial's part of the retained contexts, in nats a token; None
            without a limit.
        error: standard error of the score; 0 if it is exact.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    index: Count
    x: tuple[Fraction, ...]
    score: float
    origin: Origin
    propose_seconds: Number
    evaluate_seconds: Number
    gradient: tuple[Number, ...] = ()
    kl: Number | None = None
    error: Number = 0.0

    @property
    def point(self) -> Float[Tensor, " d"]:
        """The point as searches compute with it."""
        return torch.tensor(self.x, dtype=torch.float64)


def best_of(trials: Sequence[Trial]) -> Trial:
    """Return the first trial with the highest finite score; trial 0 if none is finite."""
    return max(trials, key=lambda trial: trial.score if math.isfinite(trial.score) else -math.inf)


class Trials(list[Trial]):
    """The trials of a search, in order: a list that can also be shown as a table.

    Example:
        >>> trials = Trials([Trial(0, (0.5,), -2.0, "identity", 0.0, 1.5), Trial(1, (0.7,), -1.0, "random", 0.0, 1.5)])
        >>> trials.to_pandas()[["trial", "score", "best_score"]].values.tolist()
        [[0.0, -2.0, -2.0], [1.0, -1.0, -1.0]]
    """

    def to_pandas(self) -> "DataFrame":
        """Return a table with one row a trial; needs pandas, which lm-eval installs.

        Columns: `trial`, `score`, `best_score` (the highest so far), `origin`, `propose_seconds`, `evaluate_seconds`.
        """
        from pandas import DataFrame

        columns = ("trial", "score", "best_score", "origin", "propose_seconds", "evaluate_seconds")
        best: list[float] = []
        for trial in self:
            best.append(max((trial.score, *best[-1:]), key=lambda score: score if math.isfinite(score) else -math.inf))
        rows = [
            (trial.index, trial.score, highest, trial.origin, trial.propose_seconds, trial.evaluate_seconds)
            for trial, highest in zip(self, best, strict=True)
        ]
        return DataFrame(rows, columns=list(columns))


class _Header(TypedDict):
    """The first line of a log."""

    format: Count
    settings: dict[str, Any]


class TrialLog:
    """An append-only file of trials. Each trial is on the disk before the next begins.

    Attributes:
        path: the file.
        settings: the settings that the search was started with.
        trials: the trials in the file, in order.

    Example:
        >>> log = TrialLog.open("trials.jsonl", {"seed": 0}, resume=False)
        >>> log.append(Trial(0, (0.5, 0.5), -1.25, "identity", 0.0, 1.5))
        >>> TrialLog.read("trials.jsonl").trials[0].score
        -1.25
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], trials: Sequence[Trial] = ()) -> None:
        self.path = path
        self.settings = settings
        self.trials = Trials(trials)

    @classmethod
    def open(cls, path: str | os.PathLike[str], settings: Mapping[str, Any], resume: bool) -> "TrialLog":
        """Create a log, or open an existing one to append to.

        Args:
            path: the file.
            settings: everything that decides the trials, as JSON values. The budget does not: without it, a search can
                be continued with a larger one.
            resume: whether the file may exist.

        Raises:
            TarotError: the file exists and `resume` is False; it has other settings, a newer format or a damaged line;
                or it cannot be written.
        """
        path = Path(path)
        header = _line({"format": FORMAT, "settings": dict(settings)})
        try:
            if not path.exists():
                return _create(path, header)
            if not resume:
                raise TarotError("a new trial log", f"{path}, which exists", "resume it, or choose another folder")
            content = read_file(path, LARGEST)
            if b"\n" not in content and header.startswith(content):  # interrupted while writing the settings
                path.unlink()
                return _create(path, header)
            log = cls.read(path)
            _check_same_settings(path, log.settings, json.loads(header)["settings"])
            os.truncate(path, content.rfind(b"\n") + 1)
            return log
        except OSError as error:
            raise _write_error(path, error) from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "TrialLog":
        """Read a log of any settings; a search may be appending to it, and the file is not changed.

        Raises:
            TarotError: the file is missing, has a newer format or a damaged line.
        """
        path = Path(path)
        try:
            content = read_file(path, LARGEST)
        except OSError as error:
            raise TarotError(
                f"Cannot read the trial log {path}: {_reason(error)}", hint="run the search first"
            ) from error
        header, *lines = content[: content.rfind(b"\n") + 1].split(b"\n")
        return cls(path, _settings(path, header), _parse_trials(path, lines[:-1]))

    def append(self, trial: Trial) -> None:
        """Write a trial, and return when it is on the disk.

        Raises:
            TarotError: the file cannot be written; the log then ends with the previous trial.
        """
        fields = asdict(trial) | {"score": trial.score if math.isfinite(trial.score) else None}
        if not trial.gradient:
            del fields["gradient"]
        if trial.kl is None:
            del fields["kl"]
        if not trial.error:
            del fields["error"]
        _append(self.path, _line(fields))
        self.trials.append(trial)


def intact_size(path: Path) -> int:
    """Return the size in bytes of the readable part of a log, which ends before the first damaged line.

    0 if the file is missing or its settings are damaged.
    """
    if not path.exists():
        return 0
    # `splitlines` would also split at other characters. The last part is an incomplete line or empty.
    header, *lines = read_file(path, LARGEST).split(b"\n")[:-1] or [b""]
    size, trials = 0, list[Trial]()
    try:
        _settings(path, header)
        size = len(header) + 1
        for line in lines:
            trials.append(_parse_trial(line, trials))
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
            except BaseException:  # on Ctrl-C too: write the complete line or nothing
                with suppress(OSError):
                    file.truncate(size)
                raise
    except OSError as error:
        raise _write_error(path, error) from error


def _write_error(path: Path, error: OSError) -> TarotError:
    return TarotError(f"Cannot write {path}: {_reason(error)}", hint="free some space, or choose another folder")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _settings(path: Path, line: bytes) -> dict[str, Any]:
    """Parse the first line of a log."""
    try:
        header: _Header = validate(_Header, parse_json(line))
    except ValueError as error:
        raise TarotError(
            f"Line 1 of {path} has no settings of a search: {error}", hint="choose another folder"
        ) from error
    version = header["format"]
    if version > FORMAT:
        raise TarotError(f"a trial log of format {FORMAT} or older", f"format {version} in {path}", "use a newer tarot")
    return header["settings"]


_DIGESTS = {
    "prompts": "other samples or prompts",
    "retained": "other retained prompts",
    "shapes": "other projections of the model",
    "weights": "other weights of the model",
}
"""Meaning of a difference in a setting that is logged as a digest."""


def _check_same_settings(path: Path, logged: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
    differing = [key for key in sorted({*logged, *requested}) if logged.get(key) != requested.get(key)]
    if differing:
        raise TarotError(
            f"the settings that {path} was started with",
            ", ".join(
                _DIGESTS.get(key) or f"{key} {short(requested.get(key))} instead of {short(logged.get(key))}"
                for key in differing
            ),
            "resume with the same, or choose another folder",
        )


def _parse_trials(path: Path, lines: Sequence[bytes]) -> list[Trial]:
    trials: list[Trial] = []
    for index, line in enumerate(lines):
        try:
            trials.append(_parse_trial(line, trials))
        except ValueError as error:
            where = f"Line {index + 2} of {path} is not trial {index}"
            raise TarotError(f"{where}: {error}", hint="choose another folder") from error
    return trials


def _parse_trial(line: bytes, before: Sequence[Trial]) -> Trial:
    """Parse one trial; ValueError if it is damaged or does not follow the trials before it."""
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
