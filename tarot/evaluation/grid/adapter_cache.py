"""A cache of tuned adapters: one folder for each combination of everything that determines an adapter.

Processes that need the same adapter wait for the one that tunes it. An interrupted search is resumed from its trials,
and so is a damaged entry: intact trials are not evaluated again.
"""

import hashlib
import json
import logging
import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from tarot._files.atomic import write_atomically
from tarot._files.lock import hold_lock
from tarot._files.strict_json import read_file
from tarot.edit.adapter import Adapter
from tarot.edit.adapter_folder import METADATA, WEIGHTS
from tarot.errors import FileAccessError, TarotError
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.retained import prompts_digest
from tarot.objectives.rewards.text_scores import TextScoreLog
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.samples import draw_samples
from tarot.objectives.tasks.task_loading import load_task
from tarot.search.algorithms.policy_gradient import DrawLog
from tarot.search.callbacks import Callback
from tarot.search.config import TaRotConfig
from tarot.search.folder import LOCK, TRIALS
from tarot.search.loop import SearchResult
from tarot.search.provenance import library_versions, search_settings
from tarot.search.trials import Trial, TrialLog, intact_size
from tarot.search.tune import check_request, tune

logger = logging.getLogger("tarot")


def tune_cached(
    loaded: LoadedModel,
    config: TaRotConfig,
    cache: Path,
    *,
    budget: int,
    include_path: str | None,
    notify: Callable[[str], None],
    on_phase: Callable[[str], None] = lambda phase: None,
) -> tuple[Adapter, Path]:
    """Return the adapter of a configuration, model and data, and its folder; tune it unless it is in the cache.

    Args:
        loaded: model and tokenizer; unchanged afterwards.
        config: what to search.
        cache: folder of all entries; created if it does not exist.
        budget: evaluations of the objective.
        include_path: folder of further task files.
        notify: called with a line on what was done about an interrupted or damaged entry.
        on_phase: called with what is done next.

    Raises:
        TarotError: as for `tarot.tune`; or the cache cannot be written.
        KeyboardInterrupt: Ctrl-C while tuning; the trials so far are kept.

    Example:
        >>> loaded, config = tarot.load_model("wheel:smollm2-135m"), tarot.TaRotConfig("synth_color")
        >>> adapter, folder = tune_cached(loaded, config, Path("cache"), budget=6, include_path=None, notify=print)
    """
    check_request(config, budget=budget)
    folder = cache / entry_name(loaded, config, budget, include_path)
    with hold_lock(Path(f"{folder}.lock")):
        if (finished := _load_finished(folder)) is not None:
            return finished, folder
        with hold_lock(folder / LOCK, wait=False), _repair_errors(folder):
            resumed = _repair(folder, notify)
        if resumed:
            notify(f"resumed the search in {folder} after {resumed} trials")
        adapter = tune(
            loaded.model,
            loaded.tokenizer,
            config,
            output_dir=folder,
            budget=budget,
            include_path=include_path,
            resume=True,
            callbacks=[_ReportSearch(on_phase)],
        )
        if adapter.provenance["interrupted"]:
            raise KeyboardInterrupt
        return adapter, folder


class _ReportSearch(Callback):
    """Name the phases of a search, and write a line into the log after each trial."""

    def __init__(self, on_phase: Callable[[str], None]) -> None:
        self._on_phase = on_phase

    def on_phase(self, phase: str) -> None:
        self._on_phase(phase)

    def on_search_begin(self, *_: object, budget: int, **__: object) -> None:
        self._on_phase(f"searching, {budget} evaluations")

    def on_trial(self, trial: Trial, result: SearchResult) -> None:
        best, identity = result.best.score, result.identity.score
        logger.info("trial %d, %d evaluations: best %.4f, identity %.4f", trial.index, result.spent, best, identity)


def entry_name(loaded: LoadedModel, config: TaRotConfig, budget: int, include_path: str | None) -> str:
    """Return the folder name of an entry: readable words, and a digest of everything that determines the adapter.

    These are the configuration, budget, model, weights and library versions, and the prompts of the samples. Under a
    limit of divergence, they include the retained prompts.
    """
    template = get_chat_template(TarotLM(loaded.model, tokenizer=loaded.tokenizer), config.apply_chat_template)
    task = load_task(config.task, include_path)
    samples = (
        draw_samples(task, config.n_drawn, num_fewshot=config.num_fewshot, seed=config.seed, chat_template=template)
        if config.n_drawn
        else []
    )
    retained = None if config.max_kl is None else prompts_digest(config.retain, config.task, include_path)
    determines = {
        **search_settings(loaded, config, samples, retained),
        "budget": budget,
        "tokens": [loaded.tokenizer.encode(text) for sample in samples for text in sample.pairs[sample.gold]],
        "versions": {"python": platform.python_version(), **library_versions()},
    }
    digest = hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()[:16]
    readable = re.sub(
        r"[^\w.-]+", "-", f"{Path(loaded.reference).name}-{config.task}-{config.num_fewshot}-{config.seed}"
    )
    return f"{readable[:50]}-{digest}"


def _load_finished(folder: Path) -> Adapter | None:
    """Return the adapter of an entry if its search has ended and all its files are intact, else None."""
    if not (folder / METADATA).exists():
        return None
    try:
        adapter = Adapter.from_pretrained(folder)
        TrialLog.read(folder / TRIALS)
    except TarotError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        return None
    return None if adapter.provenance.get("interrupted") else adapter


@contextmanager
def _repair_errors(folder: Path) -> Iterator[None]:
    """Raise FileAccessError for an OSError in the body."""
    try:
        yield
    except OSError as error:
        hint = "make it readable and writable, or choose another cache"
        raise FileAccessError(f"to repair the cache entry {folder}", error.strerror or str(error), hint) from error


def _repair(folder: Path, notify: Callable[[str], None]) -> int:
    """Repair an unfinished or damaged entry so that a search can resume it, and return the number of its trials.

    Trials are expensive and adapters are not: keep the intact trials, from which the search writes the adapter again.
    Of the damaged files, only those of the adapter are deleted; the others are renamed.
    """
    path = folder / TRIALS
    if (size := intact_size(path)) == 0:
        if any(file.name != LOCK for file in folder.iterdir()):
            backup = next(name for i in count(1) if not (name := Path(f"{folder}.damaged-{i}")).exists())
            folder.rename(backup)
            notify(f"renamed a damaged cache entry to {backup} and tuned again: no trial of it can be read")
        return 0
    try:
        Adapter.from_pretrained(folder)
    except TarotError as error:
        if (folder / METADATA).exists():
            notify(f"wrote the adapter in {folder} again, from its trials: {error}")
        (folder / METADATA).unlink(missing_ok=True)
        (folder / WEIGHTS).unlink(missing_ok=True)
    content = read_file(path)
    if size <= content.rfind(b"\n"):  # an interrupted search leaves a last line without its end
        write_atomically(folder / f"{TRIALS}.damaged", content)
        os.truncate(path, size)
        notify(f"kept the intact trials in {path}; the damaged file is {TRIALS}.damaged")
    for log in (TextScoreLog, DrawLog):
        try:
            log(folder)
        except TarotError as error:
            file = folder / log.file
            file.rename(f"{file}.damaged")
            notify(f"renamed {file} to {file.name}.damaged: {error}")
    return len(TrialLog.read(path).trials)
