"""Shared parts of the benchmarks: the models and cells of a default run, and the ratios between alternatives.

Each benchmark times one alternative, such as the edited model with hooks, in a group with those that it is compared
with, such as the unedited model. The tables and files of pytest-benchmark hold the seconds; `extra_info` holds ratios,
errors and gains.
"""

from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from alternatives import Alternatives

DEFAULTS = {
    "tarot_model": ["wheel:smollm2-135m", "wheel:gemma3-270m"],
    "tarot_tasks": ["synth_implicatives", "synth_navigate", "synth_color"],
    "tarot_num_fewshot": "0,6",
}
# Shots make a cell up to twice as long, so a default run measures them on one task only.
TASK_WITH_SHOTS = "synth_implicatives"
# Benchmarks whose ratios differ little between models: a default run measures them on the first model only.
ONE_MODEL = {"bench_harness", "bench_limit", "bench_scaling", "bench_search", "bench_switch", "bench_time_to_score"}

DEFAULTED = pytest.StashKey[set[str]]()
EXTRA_INFO = pytest.StashKey[dict[str, dict[str, Any]]]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Set defaults of options that are not given, before tarot's plugin reads them."""
    defaulted = {name for name in DEFAULTS if getattr(config.option, name, None) is None and not config.getini(name)}
    for name in defaulted:
        setattr(config.option, name, DEFAULTS[name])
    config.stash[DEFAULTED] = defaulted
    if not (config.option.tarot_work or config.getini("tarot_work")):
        # With an adapter from an earlier run, the time of a cell would lack its search.
        cache = TemporaryDirectory()
        config.add_cleanup(cache.cleanup)
        config.option.tarot_work = cache.name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the items that make a default run too long."""
    defaulted = config.stash[DEFAULTED]

    def too_long(item: pytest.Item) -> bool:
        call = getattr(item, "callspec", None)
        setting = call.params.get("tarot_setting") if call else None
        if setting is None:
            return False
        if setting.task:
            return (
                {"tarot_tasks", "tarot_num_fewshot"} <= defaulted
                and setting.num_fewshot
                and setting.task != TASK_WITH_SHOTS
            )
        one_model = getattr(item, "originalname", "") in ONE_MODEL
        return one_model and "tarot_model" in defaulted and setting.model != DEFAULTS["tarot_model"][0]

    dropped = [item for item in items if too_long(item)]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]


@pytest.fixture(scope="session")
def alternatives() -> Alternatives:
    """Share the times of earlier benchmarks."""
    return Alternatives()


@pytest.fixture
def bounded(tarot_setting: Any) -> bool:
    """Tell whether the bounds on ratios apply: they were set for the default models.

    In a smaller model fixed costs outweigh the work. Bounds on errors apply to every model.
    """
    return tarot_setting.model in DEFAULTS["tarot_model"]


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_generate_json(benchmarks: list[Any]) -> None:
    """Drop benchmarks that ended before their first round (a failure, Ctrl-C): they have no statistics to write."""
    benchmarks[:] = [benchmark for benchmark in benchmarks if benchmark]


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_group_stats(config: pytest.Config, benchmarks: Sequence[dict[str, Any]]) -> None:
    """Keep `extra_info` for the summary; pytest-benchmark's own implementation does the grouping."""
    current = (each for each in benchmarks if each["path"] is None)  # the others are from the files compared with
    config.stash[EXTRA_INFO] = {each["name"]: each["extra_info"] for each in current}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show `extra_info`, which pytest-benchmark's own table leaves out."""
    for name, extra_info in terminalreporter.config.stash.get(EXTRA_INFO, {}).items():
        if "gain" not in extra_info:  # tarot's own table shows gains
            terminalreporter.write_line(f"{name}: " + ", ".join(f"{key}={value}" for key, value in extra_info.items()))
