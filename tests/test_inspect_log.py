"""Logs for Inspect hold every document of every arm, as Inspect's own reader and viewer see them."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, Chromium
from fabricated import EVIL, fabricated, reward_comparison

from tarot.errors import TarotError
from tarot.evaluation.results.comparison import OUTSIDE, Comparison
from tarot.report.inspect_log import write_inspect_logs, write_reward_logs

log: Any = pytest.importorskip("inspect_ai.log", reason="needs the extra inspect")

CHOICES = (" red", " green", " <b>blue</b>")
N = 6


def compared(**fields: Any) -> Comparison:
    """Return a comparison with choices, whose texts outside the choices are known."""
    comparison = fabricated(n=N, **fields)
    arms = tuple(
        replace(arm, written=tuple("" if answer != OUTSIDE else f"{EVIL} {arm.name}" for answer in arm.greedy))
        for arm in comparison.arms
    )
    return replace(comparison, choices=(CHOICES,) * N, arms=arms)


def answers(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    """Return documents as lm-eval logs them, with a choice that has no number."""
    return {
        arm.name: [
            {
                "arguments": [(f"{EVIL}\nprompt {row} of {arm.name}", choice) for choice in CHOICES],
                "filtered_resps": [(-1.0 - row, True), (-2.5, False), (float("nan"), False)],
            }
            for row in range(N)
        ]
        for arm in comparison.arms
    }


def test_inspect_reads_every_document_of_every_arm(tmp_path: Path) -> None:
    comparison = compared()
    files = write_inspect_logs(tmp_path / "new", comparison, answers(comparison))
    assert len(files) == len(comparison.arms)
    for file, arm in zip(files, comparison.arms, strict=True):
        read = log.read_eval_log(str(file))
        assert (read.status, read.eval.model, read.eval.task_args["arm"]) == ("success", comparison.model, arm.name)
        assert read.eval.metadata["command"] == comparison.command and len(read.samples) == N
        greedy, likeliest = ({each.value for each in score.metrics.values()} for score in read.results.scores)
        assert greedy == {comparison.score(name, arm=arm.name) for name in ("greedy_acc", "greedy_f1")}
        assert likeliest == {comparison.score(name, arm=arm.name) for name in ("acc", "f1")}
        for row, sample in enumerate(read.samples):
            gold, answer = comparison.gold[row], arm.greedy[row]
            assert sample.input == f"{EVIL}\nprompt {row} of {arm.name}" and sample.choices == list(CHOICES)
            assert sample.target == CHOICES[gold].strip()
            assert sample.output.completion == (arm.written[row] or CHOICES[answer].strip())
            assert sample.metadata["log_probabilities"] == {" red": -1.0 - row, " green": -2.5}
            assert [sample.scores[name].value for name in ("greedy", "likeliest")] == [
                "C" if answer == gold else "I",
                "C" if arm.predicted[row] == gold else "I",
            ]
            assert f"{-1.0 - row:.4f}" in sample.scores["greedy"].explanation


def test_documents_without_a_number_are_named(tmp_path: Path) -> None:
    comparison = compared()
    broken = replace(comparison.arms[0], without_number=(1, 4), greedy=(OUTSIDE,) * N, predicted=(OUTSIDE,) * N)
    comparison = replace(comparison, arms=(broken, *comparison.arms[1:]))
    first, other, *_ = (log.read_eval_log(str(file)) for file in write_inspect_logs(tmp_path, comparison, {}))
    assert first.eval.task_args["without_number"].startswith("2 of 6 documents without a number")
    assert "without_number" not in other.eval.task_args
    assert first.samples[1].scores["greedy"].answer == "no number"


def test_without_the_logged_documents_the_question_is_the_prompt(tmp_path: Path) -> None:
    comparison = replace(compared(), choices=())
    read = log.read_eval_log(str(write_inspect_logs(tmp_path, comparison, {})[0]))
    assert [sample.input for sample in read.samples] == list(comparison.texts)
    assert all(sample.choices is None and sample.scores["greedy"].explanation is None for sample in read.samples)


def test_rewards_are_logged_with_their_texts(tmp_path: Path) -> None:
    comparison = reward_comparison()
    prompts = {name: [f"{name} prompt {row}" for row in range(len(comparison.prompts))] for name in ("base", "edited")}
    documents = {name: [{"arguments": [(text, {})]} for text in texts] for name, texts in prompts.items()}
    base, edited = (log.read_eval_log(str(file)) for file in write_reward_logs(tmp_path, comparison, documents))
    for name, read, texts in (("base", base, comparison.base), ("edited", edited, comparison.edited)):
        assert [sample.input for sample in read.samples] == prompts[name]
        assert [sample.metadata["document"] for sample in read.samples] == list(comparison.prompts)
        assert [sample.output.completion for sample in read.samples] == list(texts.texts)
        assert [sample.scores["reward"].value for sample in read.samples] == list(texts.rewards)
        assert read.results.scores[0].metrics["mean"].value == texts.summary.reward


def test_logs_are_replaced_and_others_kept(tmp_path: Path) -> None:
    write_inspect_logs(tmp_path, compared(), {})
    write_inspect_logs(tmp_path, compared(), {})
    write_inspect_logs(tmp_path, compared(seed=1), {})
    assert len(list(tmp_path.iterdir())) == 2 * len(compared().arms)


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(TarotError, match=r"-e '\.\[inspect\]'"):
        write_inspect_logs(tmp_path, compared(), {})


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_viewer_shows_a_sample(tmp_path: Path) -> None:
    comparison = compared()
    edited = write_inspect_logs(tmp_path, comparison, answers(comparison))[2]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    view = ("-m", "inspect_ai", "view", "start", "--log-dir", str(tmp_path), "--host", "127.0.0.1", "--port", str(port))
    with subprocess.Popen(
        [sys.executable, *view], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            assert server.stdout and any("Running on" in line for line in server.stdout)
            with Chromium() as page:
                page.open(f"http://127.0.0.1:{port}/")
                page.wait_for("document.body && document.body.innerText.includes('4 items')")
                assert "made_up (edited)" in page.evaluate("document.body.innerText")
                page.open(f"http://127.0.0.1:{port}/#/logs/{edited.name}/samples/sample/2/1")
                page.wait_for("document.body && document.body.innerText.includes('prompt 2 of edited')")
                text = page.evaluate("document.body.innerText")
                assert comparison.answer_text(2, comparison.gold[2]) in text and "alert('fabricated')" in text
        finally:
            server.kill()
