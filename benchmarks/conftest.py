"""Benchmarks of real models: which ones where nothing else is asked for, and the ratios at the end."""

import pytest

DEFAULTS = {
    "tarot_model": ["wheel:smollm2-135m", "wheel:gemma3-270m"],
    "tarot_task": ["synth_implicatives", "synth_navigate", "synth_color"],
}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for name, value in DEFAULTS.items():
        if getattr(config.option, name, None) is None and not config.getini(name):
            setattr(config.option, name, value)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured besides seconds, which pytest-benchmark's own table does not show."""
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    for bench in getattr(session, "benchmarks", []):
        if "gain" not in bench.extra_info:  # gains have a table of their own
            terminalreporter.write_line(f"{bench.name}: " + ", ".join(f"{k}={v}" for k, v in bench.extra_info.items()))
