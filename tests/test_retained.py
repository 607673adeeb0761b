"""Retained contexts: where they come from, and that nothing that measures retention is among them."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tarot.analysis.neutral_text import neutral_text
from tarot.errors import InvalidValueError, MissingFileError, TarotError, UnknownName
from tarot.evaluation.command import repeat_command
from tarot.models.lm_eval_model import TarotLM
from tarot.models.scoring.scorer import Request
from tarot.objectives import retained
from tarot.objectives.retained import (
    ANSWER_TOKENS,
    answer_prompts,
    bundled_prompts,
    check_retain,
    first_tokens,
    make_retained,
    own_texts,
    retained_digest,
    task_contexts,
)
from tarot.objectives.tasks.documents import question_part
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.samples import draw_samples, render_evaluation_documents
from tarot.objectives.tasks.task_loading import load_task, load_tasks
from tarot.search.config import TaRotConfig
from tarot.search.folder import read_trials
from tarot.search.kl_limit import PARTS
from tarot.search.problem import Problem
from tarot.search.retention import LEAST_SHARE, Retention, part_of
from tarot.search.tune import tune


@pytest.fixture
def lm(loaded: Any) -> TarotLM:
    return TarotLM(loaded.model, tokenizer=loaded.tokenizer)


@pytest.fixture
def few_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prompts and two short texts, so that a test takes seconds."""
    monkeypatch.setattr(retained, "bundled_prompts", lambda template: ["Is it? ", "One, two,"])
    monkeypatch.setattr(retained, "N_TEXTS", 2)
    monkeypatch.setattr(retained, "TEXT_TOKENS", 6)


def test_bundled_prompts_are_many_and_distinct(lm: TarotLM) -> None:
    template = get_chat_template(lm, enabled=True)
    plain, chat = bundled_prompts(None), bundled_prompts(template)
    assert len(set(plain)) == len(plain) == len(chat) >= 100
    assert 0.5 < sum("<user>" in prompt for prompt in chat) / len(chat) < 1
    assert sum(not prompt.isascii() for prompt in plain) >= 5


def test_bundled_prompts_are_no_documents_of_tarot_s_tasks() -> None:
    tasks = load_tasks(["tarot_synthetic"])["tasks"].values()
    contexts = {pair[0].strip() for task in tasks for s in render_evaluation_documents(task) for pair in s.pairs}
    assert contexts.isdisjoint(prompt.strip() for prompt in bundled_prompts(None))


@torch.no_grad()
def test_answers_are_the_model_s_own(lm: TarotLM) -> None:
    prompts = ["Is it? ", "a considerably longer prompt with several words"]
    for prompt, request in zip(prompts, answer_prompts(lm, prompts), strict=True):
        tokens = lm.tok_encode(prompt)
        assert request.context == tuple(tokens)
        assert 1 <= len(request.continuation) <= ANSWER_TOKENS
        # A byte model may write half a character, which changes when it is encoded again: the first token is exact.
        first = int(lm.model(torch.tensor([tokens])).logits[0, -1].argmax())
        assert request.continuation[0] == first or "\ufffd" in lm.tokenizer.decode([first])


def test_contexts_of_first_tokens_end_with_the_prompt(lm: TarotLM) -> None:
    prompts = ["Is it? ", "x" * 3 * lm.max_length]
    for prompt, request in zip(prompts, first_tokens(lm, prompts), strict=True):
        assert len(request.continuation) == 1
        assert request.context == tuple(lm.tok_encode(prompt)[-lm.max_length :])


def test_own_texts_are_not_those_that_measure(loaded: Any, lm: TarotLM, wheel_cache: Path) -> None:
    texts = own_texts(lm, seed=0)
    assert texts == own_texts(lm, seed=0) != own_texts(lm, seed=1)
    measured = neutral_text(loaded, 500).tolist()
    for context, continuation in texts:
        n = min(len(continuation), len(measured[0]) - 1)
        assert all(list(context + continuation)[: n + 1] != row[: n + 1] for row in measured)


def test_prompts_of_a_task_are_not_evaluated_and_need_no_labels(lm: TarotLM, tasks_folder: Path) -> None:
    task = load_task("own_choice", tasks_folder)
    evaluated = {question_part(sample.key) for sample in render_evaluation_documents(task)}
    drawn = draw_samples(task, 12, seed=3)
    assert evaluated.isdisjoint(question_part(sample.key) for sample in drawn)
    contexts = task_contexts(lm, task, None, seed=3)
    prompts = {tuple(lm.encode(*pair)[0]) for sample in render_evaluation_documents(task) for pair in sample.pairs}
    assert prompts.isdisjoint(request.context for request in contexts)
    generating = load_task("own_generate", tasks_folder)
    for sample in draw_samples(generating, 5, seed=3):
        reference = Request(*map(tuple, lm.encode(*sample.pairs[0])))
        assert reference not in task_contexts(lm, generating, None, seed=3)


def test_sources_combine(lm: TarotLM, few_prompts: None, tasks_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("First prompt\n\nSecond prompt\n")
    names = ["own_generate", str(file)]
    sources = make_retained(lm, None, names, tuned_task="own_choice", include_path=tasks_folder)
    assert [source.name for source in sources] == ["prompts", "own text", "own_generate", str(file)]
    assert [len(sources[i].contexts) for i in (0, 1, 3)] == [2, 2, 2]
    digests = {retained_digest(sources[:i]) for i in range(1, 5)}
    assert len(digests) == 4


def test_a_tokenizer_that_starts_no_text_has_prompts_alone(lm: TarotLM, few_prompts: None) -> None:
    tokenizer = deepcopy(lm.tokenizer)
    tokenizer.bos_token = tokenizer.eos_token = None
    without = TarotLM(lm.model, tokenizer=tokenizer)
    assert [source.name for source in make_retained(without, None, tuned_task="own_choice")] == ["prompts"]


def test_the_tuned_task_is_not_retained() -> None:
    with pytest.raises(InvalidValueError, match="tuned"):
        check_retain(["synth_color"], "synth_color")
    tasks = retained.retained_tasks(["tarot_synthetic"], "synth_color")
    assert sorted(task.config.task for task in tasks) == ["synth_implicatives", "synth_navigate"]


@pytest.mark.parametrize(
    ("name", "content", "error", "keyword"),
    [
        ("missing.txt", None, MissingFileError, "exist"),
        ("blank.txt", "\n  \n", InvalidValueError, "no prompts"),
        ("form.jsonl", '{"question": "a"}\n', InvalidValueError, "line 1"),
        ("form.jsonl", '{"prompt": "a"}\n{"prompt": 3}\n', InvalidValueError, "line 2"),
        ("form.jsonl", '{"messages": [{"role": "user"}]}\n', InvalidValueError, "line 1"),
        ("form.jsonl", "not json\n", InvalidValueError, "line 1"),
        ("bytes.txt", b"\xff\xfe\xfa", InvalidValueError, "UTF-8"),
    ],
)
def test_bad_files_are_refused(
    tmp_path: Path, name: str, content: str | bytes | None, error: type[TarotError], keyword: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=keyword):
        check_retain([str(path)], "synth_color")


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(UnknownName, match="synth_color"):
        check_retain(["synth_colour"], "synth_navigate")


def test_forms_of_a_file(tmp_path: Path, lm: TarotLM) -> None:
    template = get_chat_template(lm, enabled=True)
    path = tmp_path / "mine.jsonl"
    lines = [{"prompt": "Hi"}, {"messages": [{"role": "user", "content": "Hi"}]}, {"text": "Hi"}, {"prompt": "Ho"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert retained.read_prompt_file(path, None) == ["Hi", "Ho"]
    assert retained.read_prompt_file(path, template) == ["<user>Hi</s><assistant>", "Hi", "<user>Ho</s><assistant>"]


def test_lines_may_end_as_windows_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"Hi\r\n\r\nHo\r\n")
    assert retained.read_prompt_file(path, None) == ["Hi", "Ho"]


def test_reading_stops_only_where_the_divergence_is_above(loaded: Any, few_prompts: None, tasks_folder: Path) -> None:
    config = TaRotConfig("own_choice", num_samples=4)
    problem = Problem.from_config(loaded, config, tasks_folder)
    retention = Retention.from_problem(loaded, problem, tasks_folder)
    space = problem.make_space()
    x = torch.rand(space.d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angles = space.angles(x).float()
    whole = retention.kl(angles)
    for stop_above in (0.0, whole * 0.3, whole * 0.99, whole, whole * 2):
        kl = retention.kl(angles, stop_above)
        assert (kl > stop_above) == (whole > stop_above) and kl <= whole
        assert kl == whole or kl > stop_above
    assert retention.kl(angles, 0.0) < whole


@given(st.integers(1, 200))
def test_parts_have_all_contexts_in_equal_shares(n: int) -> None:
    contexts = [Request((i,), (0,)) for i in range(n)]
    parts = [part_of(contexts, part) for part in range(PARTS)]
    assert {context for part in parts for context in part} == set(contexts)
    sizes = [len(part) for part in parts]
    assert all(len(set(part)) == len(part) for part in parts)
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= min(n, LEAST_SHARE)


def test_tune_keeps_the_limit_and_resumes(loaded: Any, few_prompts: None, tasks_folder: Path, tmp_path: Path) -> None:
    config = TaRotConfig("own_choice", num_samples=4, layers=0.5, max_kl=0.02, retain=("own_generate",))
    free = tune(
        loaded.model, loaded.tokenizer, TaRotConfig("own_choice", num_samples=4, layers=0.5, max_kl=None), budget=18,
        include_path=tasks_folder,
    )  # fmt: skip
    assert "retention" not in free.provenance
    trials = {}
    for name, budgets in {"whole": [18], "parts": [9, 18]}.items():
        for budget in budgets:
            adapter = tune(
                loaded.model,
                loaded.tokenizer,
                config,
                budget=budget,
                include_path=tasks_folder,
                output_dir=tmp_path / name,
                resume=budget != budgets[0],
            )
        trials[name] = [(trial.x, trial.score, trial.kl, trial.gradient) for trial in read_trials(tmp_path / name)]
        notes: Any = adapter.provenance["retention"]
        assert notes["kl"] <= 0.02
        assert set(notes["contexts"]) == {"prompts", "own text", "own_generate"}
    assert trials["whole"] == trials["parts"]
    assert "pick" not in adapter.provenance
    picked = tune(
        loaded.model,
        loaded.tokenizer,
        config,
        budget=18,
        include_path=tasks_folder,
        output_dir=tmp_path / "whole",
        resume=True,
        pick=4,
    )
    assert (picked.provenance["best_trial"], picked.provenance["pick"]) == (4, "4")
    assert "--pick 4" in repeat_command(loaded, picked)
    with pytest.raises(TarotError, match="retain"):
        tune(
            loaded.model,
            loaded.tokenizer,
            TaRotConfig("own_choice", num_samples=4, layers=0.5, max_kl=0.02),
            include_path=tasks_folder,
            output_dir=tmp_path / "whole",
            resume=True,
        )
