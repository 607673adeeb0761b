"""The folder of a search: trials, lock and adapter."""

from pathlib import Path

from tarot._files.paths import check_writable
from tarot.edit.adapter_folder import METADATA
from tarot.errors import TarotError
from tarot.search import Trial, TrialLog, trial_cost

TRIALS = "trials.jsonl"


LOCK = ".lock"  # held by the process that searches in the folder


def check_free(output: Path, resume: bool) -> None:
    if output.exists() and not output.is_dir():
        raise TarotError("a folder to write to", f"the file {output}", "choose another --output")
    check_writable(output, folder=True)
    there = {path.name for path in output.iterdir()} - {LOCK} if output.is_dir() else set()
    if not there or (resume and TRIALS in there):  # an adapter without trials is nothing to go on with
        return
    hint = "add --resume, or choose another" if TRIALS in there else "choose another"
    raise TarotError(
        "an empty output folder", f"{output} with {METADATA if METADATA in there else 'files in it'}", hint
    )


def make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TarotError(
            f"to make the folder {output}", error.strerror or str(error), "choose another --output"
        ) from error


def read_curve(folder: str | Path, search: str) -> list[float]:
    """The score after each evaluation of a finished search: a trial that counts for several stands there as often."""
    return [trial.score for trial in read_trials(folder) for _ in range(trial_cost(search))]


def read_trials(folder: str | Path) -> list[Trial]:
    """The trials that a search left in its folder; TarotError when there are none."""
    return TrialLog.read(Path(folder) / TRIALS).trials
