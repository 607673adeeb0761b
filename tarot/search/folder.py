"""The folder of a search: its trials, the scores of its texts, and the lock of the process that runs it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tarot._files.lock import hold_lock
from tarot._files.paths import check_writable
from tarot.edit.adapter_folder import METADATA
from tarot.errors import TarotError
from tarot.objectives.objective import Evaluation
from tarot.objectives.rewards.text_scores import TextScoreLog
from tarot.search.algorithms.policy_gradient import DrawLog
from tarot.search.algorithms.registry import SEARCHES
from tarot.search.trials import Trial, TrialLog, Trials

TRIALS = "trials.jsonl"
RECIPE = "recipe.yml"  # lm-eval would read a .yaml file in a folder of tasks as a task
LOCK = ".lock"


@dataclass(frozen=True)
class SearchLogs:
    """The files that grow while a search runs.

    Attributes:
        trials: log of the trials; None keeps nothing on disk.
        texts: log of what each trial's texts scored; None if no texts are generated or nothing is kept.
        draws: log of the texts that a policy gradient follows.
    """

    trials: TrialLog | None = None
    texts: TextScoreLog | None = None
    draws: DrawLog = field(default_factory=lambda: DrawLog(None))

    @property
    def logged_trials(self) -> tuple[Trial, ...]:
        """The trials that are logged."""
        return tuple(self.trials.trials) if self.trials else ()

    def keep_texts(self, evaluation: Evaluation) -> tuple[float, float]:
        """Log the text scores of the next trial; return its score and the standard error."""
        if self.texts and evaluation.texts:
            self.texts.add(len(self.logged_trials), evaluation.texts)
        return evaluation.score, evaluation.error


@contextmanager
def open_logs(
    folder: Path | None, settings: Mapping[str, Any], *, resume: bool, with_texts: bool
) -> Iterator[SearchLogs]:
    """Lock the folder and open the logs in it; a None folder gives logs that keep nothing.

    A body that raises before the first trial leaves nothing behind, unless it has kept other work in the folder.

    Args:
        folder: made if it is missing.
        settings: everything that decides the trials; a resumed log must have the same.
        resume: continue with the trials in the folder.
        with_texts: whether the objective generates texts.

    Raises:
        TarotError: another process holds the folder, it cannot be written, or its trials have other settings.
    """
    if folder is None:
        yield SearchLogs()
        return
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    with hold_lock(folder / LOCK, wait=False):
        trials = TrialLog.open(folder / TRIALS, settings, resume)
        try:
            yield SearchLogs(trials, TextScoreLog(folder) if with_texts else None, DrawLog(folder))
        except BaseException:
            if not trials.trials and {path.name for path in folder.iterdir()} <= {LOCK, TRIALS}:
                with suppress(OSError):  # another process has written there
                    for path in folder.iterdir():
                        path.unlink()
                    for parent in missing:
                        parent.rmdir()
            raise


def check_free(folder: Path, *, resume: bool) -> None:
    """Raise TarotError unless a search may write to this folder.

    The folder must be missing or empty. To resume, it may hold the trials of a search.
    """
    if folder.exists() and not folder.is_dir():
        raise TarotError("a folder to write to", f"the file {folder}", "choose another --output-path")
    check_writable(folder, folder=True)
    names = {path.name for path in folder.iterdir()} - {LOCK} if folder.is_dir() else set()
    # An adapter that was composed, pruned or imported has no trials to resume.
    if not names or (resume and TRIALS in names):
        return
    hint = "add --resume, or choose another" if TRIALS in names else "choose another"
    contents = METADATA if METADATA in names else "files in it"
    raise TarotError("an empty output folder", f"{folder} with {contents}", hint)


def read_trials(folder: str | Path) -> Trials:
    """Return the trials that a search left in its folder.

    Raises:
        TarotError: the folder has no trials, or they are damaged.

    Example:
        >>> config = tarot.TaRotConfig("synth_color", num_samples=8, search="random")
        >>> adapter = tarot.tune(model, tokenizer, config, budget=4, output_dir="my-edit")
        >>> [trial.origin for trial in read_trials("my-edit")]
        ['identity', 'random', 'random', 'random']
        >>> len(read_trials("my-edit").to_pandas())
        4
    """
    return TrialLog.read(Path(folder) / TRIALS).trials


def read_curve(folder: str | Path, search: str) -> list[float]:
    """Return the score after each evaluation of a search; a trial that counts for three is repeated three times.

    Raises:
        TarotError: as for `read_trials`.

    Example:
        >>> config = tarot.TaRotConfig("synth_color", num_samples=8)
        >>> adapter = tarot.tune(model, tokenizer, config, budget=6, output_dir="my-edit")
        >>> len(read_curve("my-edit", "adam"))
        6
    """
    return [trial.score for trial in read_trials(folder) for _ in range(SEARCHES[search].trial_cost)]
