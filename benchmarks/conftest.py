"""Benchmarks of real models: which cells where nothing else is asked for, and the ratios at the end."""

import pytest

DEFAULTS = {
    "tarot_model": ["wheel:smollm2-135m", "wheel:gemma3-270m"],
    "tarot_task": ["synth_implicatives", "synth_navigate", "synth_color"],
    "tarot_shots": "0,6",
}
# With shots in its prompts a cell takes up to twice as long: where nobody asks for them, one task stands for all.
SHOTS_ON = "synth_implicatives"

DEFAULTED = pytest.StashKey[set[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    defaulted = {name for name in DEFAULTS if getattr(config.option, name, None) is None and not config.getini(name)}
    for name in defaulted:
        setattr(config.option, name, DEFAULTS[name])
    config.stash[DEFAULTED] = defaulted


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not {"tarot_task", "tarot_shots"} <= config.stash[DEFAULTED]:
        return
    settings = [(item, getattr(item, "callspec", None)) for item in items]
    dropped = [
        item
        for item, call in settings
        if call and (cell := call.params.get("tarot_setting")) and cell.num_fewshot and cell.task != SHOTS_ON
    ]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured besides seconds, which pytest-benchmark's own table does not show."""
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    for bench in getattr(session, "benchmarks", []):
        if "gain" not in bench.extra_info:  # gains have a table of their own
            terminalreporter.write_line(f"{bench.name}: " + ", ".join(f"{k}={v}" for k, v in bench.extra_info.items()))
