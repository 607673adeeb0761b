"""Prompts: the text of a sample is the text that an evaluation shows."""

from pathlib import Path

import pytest
from checkpoint import byte_model, byte_tokenizer, write_tasks
from lm_eval import evaluate
from lm_eval.api.model import LM
from lm_eval.api.task import Task

from tarot.models.lm_eval_model import TarotLM
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.samples import draw_samples
from tarot.objectives.tasks.task_loading import load_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def choice(folder: Path) -> Task:
    return load_task("own_choice", folder)


@pytest.fixture(scope="module")
def lm() -> TarotLM:
    return TarotLM(byte_model(), tokenizer=byte_tokenizer())


class Recorder(LM):
    """An lm-eval model that records its requests."""

    def __init__(self, lm: TarotLM) -> None:
        super().__init__()
        self.lm, self.requests = lm, []

    def loglikelihood(self, requests: list, disable_tqdm: bool = False) -> list:
        self.requests += [request.args for request in requests]
        return [(0.0, False)] * len(requests)

    def generate_until(self, requests: list, disable_tqdm: bool = False) -> list:
        self.requests += [request.args for request in requests]
        return [""] * len(requests)

    def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = False) -> list:
        raise NotImplementedError

    def apply_chat_template(self, history: list, add_generation_prompt: bool = True) -> str:
        return self.lm.apply_chat_template(history, add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        return "bytes"

    def chat_template(self, chat_template: object = False) -> str:
        return "template"


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize(("name", "shots"), [("choice", 0), ("choice", 3), ("generate", 0), ("loglikelihood", 0)])
def test_prompts_are_those_of_an_evaluation(tmp_path: Path, lm: TarotLM, name: str, shots: int, chat: bool) -> None:
    """Let lm-eval evaluate the samples' documents, by a test split that equals the training split."""
    write_tasks(tmp_path, train=12, test=12)
    task = load_task(f"own_{name}", tmp_path)
    samples = draw_samples(task, 6, num_fewshot=shots, chat_template=get_chat_template(lm, chat))
    (tmp_path / "test.jsonl").write_text((tmp_path / "train.jsonl").read_text())
    evaluated = load_task(f"own_{name}", tmp_path)
    evaluated.set_config("num_fewshot", shots)
    recorder = Recorder(lm)
    evaluate(
        recorder,
        {"tasks": {"task": evaluated}},
        apply_chat_template=chat,
        fewshot_as_multiturn=True,
        bootstrap_iters=0,
    )
    requested = {args if name != "generate" else args[0] for args in recorder.requests}
    for sample in samples:
        assert {pair if name != "generate" else pair[0] for pair in sample.pairs} <= requested


def test_answers_with_a_common_prefix_have_different_tokens(choice: Task, lm: TarotLM) -> None:
    (sample,) = draw_samples(choice, 1, chat_template=get_chat_template(lm, True))
    continuations = [lm.encode(*pair)[1] for pair in sample.pairs]
    assert len({tuple(tokens) for tokens in continuations}) == 3
    assert continuations[1][: len(continuations[0])] == continuations[0]  # red, redder
