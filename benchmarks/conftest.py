"""Benchmarks are collected by their own names, and say what they measured."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The ratios, which pytest-benchmark's own table of seconds does not show."""
    session = getattr(terminalreporter.config, "_benchmarksession", None)
    for bench in getattr(session, "benchmarks", []):
        terminalreporter.write_line(f"{bench.name}: " + ", ".join(f"{k}={v}" for k, v in bench.extra_info.items()))
