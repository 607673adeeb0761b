"""The examples in docstrings run and print what they show.

An example may use a causal model and its tokenizer (`model`, `tokenizer`), an adapter tuned on eight samples of
`synth_color` (`adapter`), its `comparison`, and the `objective` that it was tuned for.
"""

import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoint import byte_model, byte_tokenizer
from test_compare import tuned
from test_compare_rewards import tuned as tuned_for_reward

import tarot
from tarot.edit.sites import find_sites
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.answers import AnswerObjective
from tarot.objectives.tasks.samples import draw_samples
from tarot.objectives.tasks.task_loading import load_task

PACKAGES = ("tarot.models", "tarot.objectives", "tarot.search", "tarot.evaluation", "tarot.analysis", "tarot.report")


def examples() -> Iterator[doctest.DocTest]:
    for package in PACKAGES:
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            module = importlib.import_module(found.name)
            yield from (test for test in doctest.DocTestFinder().find(module, globs=vars(module)) if test.examples)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """Return the names that examples may use."""
    loaded = LoadedModel("wheel:smollm2-135m", byte_model(), byte_tokenizer())
    adapter = tuned(loaded, None, task="synth_color", num_samples=8, layers=0.5)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    samples = draw_samples(load_task("synth_color"), 8)
    return {
        "tarot": tarot,
        "Path": Path,
        "loaded": loaded,
        "model": loaded.model,
        "tokenizer": loaded.tokenizer,
        "adapter": adapter,
        "comparison": tarot.compare(loaded.model, loaded.tokenizer, adapter, limit=20),
        "objective": AnswerObjective(loaded.model, samples, lm.encode, sites=find_sites(loaded.model, "heads", 0.5)),
    }


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_examples(
    example: doctest.DocTest, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = names["loaded"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tarot, "load_model", lambda reference: loaded, raising=False)
    example.globs.update(names)
    if "compare_rewards" in example.name:
        example.globs["adapter"] = tuned_for_reward(loaded)
    failures: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(example, out=failures.append)
    assert not failures, "".join(failures)
