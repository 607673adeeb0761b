"""Adapters tuned once: a folder for each combination of everything that determines one.

Workers that want the same adapter wait for the one that tunes it. A search that died is resumed from its trials; an
entry that is damaged is dropped, with a word, and tuned again.
"""

import hashlib
import json
import logging
import platform
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from tarot.adapter import CARD, Adapter, shapes_fingerprint, weights_fingerprint
from tarot.errors import TarotError
from tarot.files import locked
from tarot.harness import TarotLM, chat_template
from tarot.models import LoadedModel
from tarot.samples import draw, load_task
from tarot.search import TrialLog
from tarot.sites import find_sites, parse_layers
from tarot.tuning import LIBRARIES, TRIALS, Recipe, check_search, tune

logger = logging.getLogger("tarot")


def tuned(
    loaded: LoadedModel,
    recipe: Recipe,
    cache: Path,
    *,
    budget: int,
    include_path: str | None,
    say: Callable[[str], None],
) -> tuple[Adapter, Path]:
    """The adapter of this recipe, model and data, from the cache or tuned into it, and its folder.

    Args:
        cache: folder of all entries; made where it is missing.
        say: is told what was done about an entry that was not whole.

    Raises:
        TarotError: what `tarot.tune` raises, or a cache that cannot be written.
        KeyboardInterrupt: Ctrl-C while tuning; the trials so far are kept.
    """
    check_search(recipe, budget)
    folder = cache / key(loaded, recipe, budget, include_path)
    with locked(Path(f"{folder}.lock")):
        if (whole := _whole(folder, say)) is not None:
            return whole, folder
        resumed = _resumable(folder, say)
        if resumed:
            say(f"resumed the search in {folder} after {resumed} trials")
        adapter = tune(
            loaded,
            recipe,
            folder,
            budget=budget,
            include_path=include_path,
            resume=True,
            on_trial=lambda trial, result: logger.info(
                "trial %d of %d: best %.4f, identity %.4f",
                trial.index + 1,
                budget,
                result.best.score,
                result.identity.score,
            ),
        )
        if adapter.provenance["interrupted"]:
            raise KeyboardInterrupt
        return adapter, folder


def key(loaded: LoadedModel, recipe: Recipe, budget: int, include_path: str | None) -> str:
    """Folder name: readable, and a digest of recipe, budget, model, weights, versions and the samples' very prompts."""
    sites = find_sites(loaded.model, recipe.sites, parse_layers(recipe.layers))
    template = chat_template(TarotLM(loaded.model, tokenizer=loaded.tokenizer), recipe.chat)
    task = load_task(recipe.task, include_path)
    samples = draw(task, recipe.samples, num_fewshot=recipe.num_fewshot, seed=recipe.seed, chat_template=template)
    determines = {
        "recipe": asdict(recipe),
        "budget": budget,
        "model": loaded.reference,
        "shapes": shapes_fingerprint(loaded.model, sites),
        "weights": weights_fingerprint(loaded.model),
        "tokens": [loaded.tokenizer.encode(text) for sample in samples for text in sample.pairs[sample.gold]],
        "samples": [[sample.key, sample.pairs, sample.gold] for sample in samples],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }
    digest = hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()[:16]
    readable = re.sub(
        r"[^\w.-]+", "-", f"{Path(loaded.reference).name}-{recipe.task}-{recipe.num_fewshot}-{recipe.seed}"
    )
    return f"{readable}-{digest}"


def _whole(folder: Path, say: Callable[[str], None]) -> Adapter | None:
    """The entry's adapter, if it is finished; a damaged entry is removed."""
    if not (folder / CARD).exists():
        return None
    try:
        adapter = Adapter.load(folder)
        TrialLog.read(folder / TRIALS)
    except TarotError as error:
        _drop(folder, error, say)
        return None
    return None if adapter.provenance.get("interrupted") else adapter


def _resumable(folder: Path, say: Callable[[str], None]) -> int:
    """How many trials an unfinished entry has; one that cannot be resumed is removed."""
    path = folder / TRIALS
    if not path.exists():
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    try:
        log = TrialLog.read(path)
    except TarotError as error:
        _drop(folder, error, say)
        return 0
    return len(log.trials)


def _drop(folder: Path, error: TarotError, say: Callable[[str], None]) -> None:
    shutil.rmtree(folder)
    say(f"dropped a damaged cache entry and tuned again: {error}")
