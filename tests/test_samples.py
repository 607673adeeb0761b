"""Samples: drawn honestly, and prompted as lm-eval prompts."""

import json
import re
from pathlib import Path

import pytest
from checkpoint import byte_model, byte_tokenizer, write_tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval import evaluate
from lm_eval.api.model import LM
from lm_eval.api.task import Task

from tarot.errors import TarotError, UnknownName
from tarot.models.lm_eval_model import TarotLM
from tarot.objectives.documents import document_key, normalize_text, question_part
from tarot.objectives.prompts import get_chat_template
from tarot.objectives.samples import MIXED_SHOTS, Sample, draw_samples
from tarot.objectives.task_loading import load_task, load_tasks
from tarot.objectives.tuning_split import check_disjoint, find_tuning_documents


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
    """An lm-eval model that keeps what it is asked."""

    def __init__(self, lm: TarotLM) -> None:
        super().__init__()
        self.lm, self.asked = lm, []

    def loglikelihood(self, requests: list, disable_tqdm: bool = False) -> list:
        self.asked += [request.args for request in requests]
        return [(0.0, False)] * len(requests)

    def generate_until(self, requests: list, disable_tqdm: bool = False) -> list:
        self.asked += [request.args for request in requests]
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


@given(n=st.integers(1, 20), seed=st.integers(0, 5), shots=st.sampled_from([0, 1, 6, "mix"]))
@settings(max_examples=25)
def test_samples_are_distinct_and_nobodys_shot(choice: Task, n: int, seed: int, shots: int | str) -> None:
    samples = draw_samples(choice, n, num_fewshot=shots, seed=seed)
    most = max(MIXED_SHOTS) if shots == "mix" else shots
    assert len({sample.key for sample in samples}) == n
    assert not {int(sample.id.split("/")[1]) for sample in samples} & set(range(most))
    assert all(sample.num_fewshot in (MIXED_SHOTS if shots == "mix" else (shots,)) for sample in samples)
    questions = [f"item {sample.id.split('/')[1]}\n" for sample in samples]
    for sample, question in zip(samples, questions, strict=True):
        context = sample.pairs[0][0]
        assert context.endswith(question + "A:")
        assert context.count("A:") == sample.num_fewshot + 1
        assert not any(other in context for other in questions if other != question)


@given(seed=st.integers(0, 100))
@settings(max_examples=10)
def test_the_seed_decides(choice: Task, seed: int) -> None:
    assert draw_samples(choice, 5, num_fewshot="mix", seed=seed) == draw_samples(
        choice, 5, num_fewshot="mix", seed=seed
    )


def test_other_seeds_draw_others(choice: Task) -> None:
    drawn = {tuple(sample.id for sample in draw_samples(choice, 5, seed=seed)) for seed in range(10)}
    assert len(drawn) == 10


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("name", ["choice", "generate", "loglikelihood"])
def test_prompts_are_those_of_an_evaluation(tmp_path: Path, lm: TarotLM, name: str, shots: int, chat: bool) -> None:
    """lm-eval is made to evaluate the documents that samples come from, by a test split that equals the other."""
    if name != "choice" and shots:
        return  # these two have no fixed shots
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
    asked = {args if name != "generate" else args[0] for args in recorder.asked}
    for sample in samples:
        assert {pair if name != "generate" else pair[0] for pair in sample.pairs} <= asked


def test_answers_that_begin_alike_are_told_apart(choice: Task, lm: TarotLM) -> None:
    (sample,) = draw_samples(choice, 1, chat_template=get_chat_template(lm, True))
    continuations = [lm.encode(*pair)[1] for pair in sample.pairs]
    assert len({tuple(tokens) for tokens in continuations}) == 3
    assert continuations[1][: len(continuations[0])] == continuations[0]  # red, redder


@given(row=st.integers(0, 29))
@settings(max_examples=10)
def test_a_key_says_what_a_document_says(choice: Task, row: int) -> None:
    doc = dict(choice.training_docs()[row])
    assert document_key(choice, doc) == document_key(choice, {**doc})
    assert document_key(choice, doc) != document_key(choice, {**doc, "question": "another"})
    assert document_key(choice, doc) != document_key(choice, {**doc, "gold": (doc["gold"] + 1) % 3})


def error_of(*args: object, **kwargs: object) -> str:
    with pytest.raises(TarotError) as error:
        draw_samples(*args, **kwargs)  # type: ignore[arg-type]  # wrong ones on purpose
    return str(error.value)


def test_too_few_documents(choice: Task) -> None:
    assert error_of(choice, 25, num_fewshot=6) == (
        "expected at least 25 samples and 6 shots in the 'train' split of own_choice, got 30 documents; "
        "use fewer samples or shots"
    )
    assert len(draw_samples(choice, 24, num_fewshot=6)) == 24


@pytest.mark.parametrize("shots", [-1, "many", "1.5", "6"])
def test_shots_that_are_no_number(choice: Task, shots: object) -> None:
    assert error_of(choice, 5, num_fewshot=shots) == f"expected a number of shots from 0, or 'mix', got {shots!r}"


def test_a_training_split_that_is_evaluated_is_an_error(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    (tmp_path / "test.jsonl").write_text((tmp_path / "train.jsonl").read_text())
    assert error_of(load_task("own_choice", tmp_path), 20) == (
        "expected at least 20 samples and 0 shots in the 'train' split of own_choice, got 30 documents "
        "(30 also evaluated); use fewer samples or shots"
    )


def disguised(line: str) -> dict[str, object]:
    """The same document with its choices the other way round, in capitals, with no-break spaces."""
    row = json.loads(line)
    question = str(row["question"]).upper().replace(" ", "\u00a0") + " "
    return {"question": question, "choices": row["choices"][::-1], "gold": 2 - row["gold"]}


@pytest.mark.parametrize("sampler", ["first_n", "default"])
@pytest.mark.parametrize("shots", [0, 2, "mix"])
def test_evaluated_and_repeated_documents_are_left_out(
    tmp_path: Path, sampler: str, shots: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    write_tasks(tmp_path)
    (file := tmp_path / "choice.yaml").write_text(file.read_text().replace("sampler: first_n", f"sampler: {sampler}"))
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    evaluated = [disguised(lines[row]) for row in (0, 4, 7)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evaluated))
    repeated = [disguised(lines[row]) for row in (1, 9)]
    (tmp_path / "train.jsonl").write_text("\n".join([*lines, *map(json.dumps, repeated)]) + "\n")
    task = load_task("own_choice", tmp_path)
    documents = find_tuning_documents(task)
    assert (documents.size, documents.evaluated, documents.repeated) == (32, 3, 2)
    most = max(MIXED_SHOTS) if shots == "mix" else shots
    for seed in range(4):
        samples = draw_samples(task, 27 - most, num_fewshot=shots, seed=seed)
        assert len({question_part(sample.key) for sample in samples}) == len(samples)
        for prompt in (normalize_text(sample.pairs[0][0]) for sample in samples):
            questions = re.findall(r"item \d+", prompt)
            assert not {"item 0", "item 4", "item 7"} & set(questions)
            assert questions.count(questions[-1]) == 1
    assert "left out of the samples of own_choice: 3 also evaluated, 2 repeated" in caplog.text
    assert "(3 also evaluated, 2 repeated)" in error_of(task, 28 - most, num_fewshot=shots)


def test_an_adapters_samples_are_recognized_in_another_order(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    tuned_on = [sample.key for sample in draw_samples(load_task("own_choice", tmp_path), 5)]
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(disguised(line)) + "\n" for line in lines))
    task = load_task("own_choice", tmp_path)
    with pytest.raises(TarotError, match="got 5 of 5 that are"):
        check_disjoint(task, tuned_on)
    check_disjoint(task, [])


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("shots", [2, "mix"])
def test_a_task_without_shots_has_none(tmp_path: Path, pinned: bool, shots: int | str) -> None:
    write_tasks(tmp_path)
    if pinned:
        (file := tmp_path / "choice.yaml").write_text(file.read_text() + "num_fewshot: 0\n")
    samples = draw_samples(load_task("own_choice", tmp_path), 9, num_fewshot=shots)
    assert {sample.num_fewshot for sample in samples} <= ({0} if pinned else {0, 2, 4, 6})
    assert any(sample.pairs[0][0].count("A:") > 1 for sample in samples) != pinned


@pytest.mark.parametrize("gold", [3, -1, None])
def test_wrong_answers_of_evaluated_documents_are_an_error(tmp_path: Path, gold: object) -> None:
    write_tasks(tmp_path)
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write(json.dumps({"question": "item", "choices": ["red", "redder", "blue"], "gold": gold}) + "\n")
    (file := tmp_path / "choice.yaml").write_text(file.read_text().replace('"{{gold}}"', "gold"))
    assert f"got {gold} in test/12 of own_choice" in error_of(load_task("own_choice", tmp_path), 5)


@pytest.mark.parametrize(
    ("replace", "by", "expected"),
    [
        (
            "training_split: train",
            "",
            "expected a task with a training split, or a validation split besides the test split",
        ),
        (
            'doc_to_text: "{{question}}\\nA:"',
            'doc_to_text: ""',
            "expected a prompt to complete, got an empty one in train/",
        ),
        (
            'doc_to_target: "{{gold}}"',
            'doc_to_target: "{{gold if question|length > 8 else gold + 7}}"',
            "expected a gold answer among ['red', 'redder', 'blue']",
        ),
        (
            "output_type: multiple_choice",
            "output_type: loglikelihood_rolling",
            "expected a task of output type multiple_choice",
        ),
    ],
)
def test_tasks_that_cannot_be_tuned_on(tmp_path: Path, replace: str, by: str, expected: str) -> None:
    write_tasks(tmp_path)
    file = tmp_path / "choice.yaml"
    assert replace in file.read_text()
    text = file.read_text().replace(replace, by)
    if "doc_to_text" in by:
        text = text.replace('description: "Name what it says.\\n"\n', "")
    file.write_text(text)
    assert error_of(load_task("own_choice", tmp_path), 5).startswith(expected)


def test_a_validation_split_will_do(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    file = tmp_path / "choice.yaml"
    file.write_text(file.read_text().replace("training_split: train", "validation_split: train"))
    assert all(sample.id.startswith("train/") for sample in draw_samples(load_task("own_choice", tmp_path), 5))


def test_unknown_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'synth_color'\?"):
        load_task("synth_colour")
    with pytest.raises(
        TarotError, match="got the group 'tarot_synthetic'; choose one of synth_color, synth_implicatives"
    ):
        load_task("tarot_synthetic")
    with pytest.raises(TarotError, match="expected a folder of task files, got 'nowhere'"):
        load_task("synth_color", "nowhere")
    monkeypatch.setenv("TAROT_DATA", "nowhere")
    with pytest.raises(TarotError, match="TAROT_DATA"):
        load_tasks(["tarot_navigate"])


@pytest.mark.parametrize(
    "text, said",
    [
        ("task: [own", "line 1"),
        ("- task", "Expected YAML dict"),
        ("task: own\ninclude: absent.yaml", "absent.yaml"),
        ("task: \xff", "position 6"),
    ],
)
def test_a_broken_file_is_no_unknown_task(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(TarotError, match=r"expected task files that lm-eval can read, got .*own\.yaml.*") as caught:
        load_task("own", tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sample_is_plain_data(choice: Task) -> None:
    (sample,) = draw_samples(choice, 1)
    assert isinstance(hash(sample), int)
    assert Sample(**vars(sample)) == sample
