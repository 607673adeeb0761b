"""What `tarot_gain` gives a test, how it explains a failed assertion, and the summary of a run."""

import doctest
import json
from dataclasses import asdict, replace
from types import ModuleType, SimpleNamespace

import pytest
from plugin_suite import five_documents

import tarot.pytest_plugin.explanation
import tarot.pytest_plugin.gain
from tarot.errors import TarotError, printable
from tarot.evaluation.results.results_file import comparisons_to_json
from tarot.pytest_plugin.explanation import explain
from tarot.pytest_plugin.gain import TarotGain
from tarot.pytest_plugin.hooks import Collector
from tarot.pytest_plugin.session import STATE, SessionState
from tarot.pytest_plugin.summary import pytest_terminal_summary


@pytest.mark.parametrize("module", [tarot.pytest_plugin.gain, tarot.pytest_plugin.explanation])
def test_examples_run(module: ModuleType) -> None:
    names = {**vars(module), "comparison": five_documents()}
    examples = [each for each in doctest.DocTestFinder().find(module, globs=names) if each.examples]
    assert examples and not any(doctest.DocTestRunner().run(each).failed for each in examples)


def test_gains_in_each_metric() -> None:
    gain = TarotGain(five_documents())
    assert (gain.accuracy.value, gain.accuracy.gained, gain.accuracy.lost) == (pytest.approx(0.4), 3, 1)
    assert gain.greedy_f1.value == gain.greedy_accuracy.value == 0
    assert repr(gain) == "<TarotGain over zero-shot of m t 0-shot seed 0>"
    with pytest.raises(TarotError, match="expected an arm among zero-shot, edited, got 'few-shot'"):
        _ = gain.over_few_shot
    with pytest.raises(
        TarotError, match=r"expected draws of few-shot prompts, got none in m t .*; give --tarot-draws 5"
    ):
        _ = gain.over_draws


def test_an_explanation_names_documents_that_changed_either_way() -> None:
    text = explain(five_documents())
    assert "gained, likeliest choice: 3\n  0: first long long" in text
    assert " ... (right: no, zero-shot: yes, edited: no)\n  3: fourth (right: yes, zero-shot: no, edited: yes)" in text
    assert "lost, likeliest choice: 1\n  2: third (right: no, zero-shot: no, edited: yes)" in text
    assert "gained, greedy answer: 0\n" in text and "few-shot" not in text
    assert max(map(len, text.splitlines())) < 200
    assert all(len(line) <= 80 for line in text.split("gained, likeliest choice")[0].splitlines())


def test_an_explanation_compares_with_further_baselines() -> None:
    plain = five_documents()
    baseline = replace(plain.arm("edited"), name="lora", labels=20)
    lines = explain(replace(plain, arms=(*plain.arms, baseline))).splitlines()
    header = lines.index("edited minus  weighted F1 of the greedy answer, 95% CI")
    assert lines[header + 1].startswith("lora          0.000 [") and lines[header + 2] == ""
    assert not any(line.startswith("edited minus  weighted") for line in explain(plain).splitlines())


class Terminal:
    """A terminal that records the lines, and whether they are red."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bool]] = []

    def section(self, title: str) -> None:
        self.write_line(title)

    def write_line(self, line: str, *, red: bool = False, bold: bool = False) -> None:
        self.lines.append((line, red))


def test_the_summary_is_sorted_and_losses_are_red(pytestconfig: pytest.Config) -> None:
    good = five_documents()
    swapped = {"zero-shot": "edited", "edited": "zero-shot"}
    bad = replace(good, seed=1, arms=tuple(replace(arm, name=swapped[arm.name]) for arm in good.arms[::-1]))
    greedy = [replace(arm, greedy=arm.predicted) for comparison in (bad, good) for arm in comparison.arms]
    bad, good = replace(bad, arms=tuple(greedy[:2])), replace(good, arms=tuple(greedy[2:]))
    state = SessionState(pytestconfig, {}, notes=["note"], failures=["failure \x1b[2J"])
    state.comparisons |= {1: bad, 0: good}
    stash = pytest.Stash()
    stash[STATE] = state
    terminal = Terminal()
    writer = SimpleNamespace(fullwidth=200)
    pytest_terminal_summary(terminal, SimpleNamespace(stash=stash, get_terminal_writer=lambda: writer))
    title, header, first, second, mean, *rest = terminal.lines
    assert title[0] == "tarot: weighted F1 of the greedy answer"
    assert header[0].split()[:7] == ["model", "task", "shots", "seed", "base", "few-shot", "edited"]
    assert (first[0].split()[3], first[1]) == ("0", False) and " +0.381" in first[0]
    assert (second[0].split()[3], second[1]) == ("1", True) and " -0.381" in second[0]
    assert mean[0].startswith("mean ") and "of 2" in mean[0]
    narrow = Terminal()
    writer.fullwidth = 80
    pytest_terminal_summary(narrow, SimpleNamespace(stash=stash, get_terminal_writer=lambda: writer))
    assert max(len(line) for line, _ in narrow.lines) <= 80 < len(header[0])
    loss = " ".join(line for line, red in narrow.lines if red)
    assert sorted(loss.split()) == sorted([*second[0].split(), "FAILED", "failure", r"\x1b[2J"])
    assert rest == [("note", False), (r"FAILED failure \x1b[2J", True)]


def test_an_explanation_escapes_what_files_hold() -> None:
    hostile = replace(five_documents(), texts=("\x1b[2J",) * 5, task="\x1b]0;t\x07", command="tarot \u202e")
    text = explain(hostile)
    assert all(line == printable(line) for line in text.split("\n")) and r"\x1b[2J" in text


def test_comparisons_survive_the_way_from_a_worker(pytestconfig: pytest.Config) -> None:
    state = SessionState(pytestconfig, {})
    sent = {"when": "teardown", "tarot_cells": [asdict(five_documents())], "tarot_notes": ["note", "note"]}
    report = type("Report", (), sent)()
    Collector(state).pytest_runtest_logreport(report)
    Collector(state).pytest_runtest_logreport(report)
    assert [*state.comparisons.values()] == [five_documents()] and state.notes == ["note"]
    fewer_arms = replace(five_documents(), arms=five_documents().arms[:-1])
    other = type("Report", (), {"when": "teardown", "tarot_cells": [asdict(fewer_arms)]})()
    Collector(state).pytest_runtest_logreport(other)
    assert [*state.comparisons.values()] == [five_documents()]
    assert json.loads(comparisons_to_json([*state.comparisons.values()]))["cells"][0]["texts"][1] == "second"
