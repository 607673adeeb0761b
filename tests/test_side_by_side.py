"""Base and edited output: the texts are those of the two models, and the scores are those of an evaluation."""

import threading
from pathlib import Path
from typing import Any

import pytest
from checkpoint import byte_model, byte_tokenizer
from edits import hooks, snapshot, unchanged

import tarot
from tarot.cli.try_ import _score
from tarot.edit.adapter import Adapter
from tarot.errors import InvalidValueError, TarotError
from tarot.evaluation.side_by_side import SideBySide, check_try_task
from tarot.models.generation.text_stream import TextStream
from tarot.models.loaded_model import LoadedModel
from tarot.models.missing_numbers import NO_NUMBER


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    """A model of this module's own, so that what others leave on the shared one does not count."""
    return LoadedModel("bytes", byte_model(), byte_tokenizer())


def direct_text(loaded: LoadedModel, prompt: str, n: int) -> str:
    """Return the greedy continuation of a rendered prompt by the model as it stands."""
    ids = loaded.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    output: Any = loaded.model.generate(**ids, max_new_tokens=n, do_sample=False)
    return str(loaded.tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("chat", [True, False])
def test_the_texts_are_those_of_the_base_and_the_edited_model(
    loaded: LoadedModel, tuned_adapter: Adapter, strength: float, chat: bool
) -> None:
    side_by_side = SideBySide(loaded, apply_chat_template=chat, max_new_tokens=10)
    prompt = "<user>item 7</s><assistant>" if chat else "item 7"
    before = snapshot(loaded.model)
    *shorter, complete = side_by_side.write("item 7", tuned_adapter, strength=strength)
    assert unchanged(loaded.model, before)
    assert complete.base == direct_text(loaded, prompt, 10)
    with tuned_adapter.apply(loaded.model, strength=strength):
        assert complete.edited == direct_text(loaded, prompt, 10)
    assert (complete.base == complete.edited) == (strength == 0)
    assert shorter and all(complete.edited.startswith(pair.edited) for pair in shorter)


@pytest.mark.parametrize("chat", [True, False])
def test_examples_are_the_prompts_of_an_evaluation(loaded: LoadedModel, tasks_folder: Path, chat: bool) -> None:
    examples = SideBySide(loaded, apply_chat_template=chat).example_prompts("own_choice", tasks_folder, 2)
    assert list(examples) == [f"Name what it says.\nitem {row}\nA:" for row in (1000, 1001)]
    results = tarot.evaluate(
        loaded.model,
        loaded.tokenizer,
        "own_choice",
        include_path=tasks_folder,
        limit=2,
        apply_chat_template=chat,
    )
    documents = results["samples"]["own_choice"]
    assert list(examples.values()) == [document["arguments"][0][0] for document in documents]
    assert (list(examples.values()) == list(examples)) != chat


def test_the_scores_are_those_of_an_evaluation(loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path) -> None:
    tried = list(SideBySide(loaded).try_task("own_choice", tuned_adapter, include_path=tasks_folder, limit=3))
    for side, adapter in (("base", None), ("edited", tuned_adapter)):
        results = tarot.evaluate(
            loaded.model, loaded.tokenizer, "own_choice", adapter=adapter, include_path=tasks_folder, limit=3
        )
        for document, logged in zip(tried, results["samples"]["own_choice"], strict=True):
            assert document.prompt == logged["arguments"][0][0]
            assert [answer.is_right for answer in document.answers] == [row == logged["target"] for row in range(3)]
            values = [float(value) for value, _ in logged["filtered_resps"]]
            assert [getattr(answer, side) for answer in document.answers] == pytest.approx(values, abs=1e-4)
    assert [document.id for document in tried] == ["test/0", "test/1", "test/2"]
    assert [answer.text for answer in tried[0].answers] == ["red", "redder", "blue"]


def test_prompts_have_the_shots_that_the_adapter_was_tuned_with(
    loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path
) -> None:
    shown = Adapter(tuned_adapter.angles, tuned_adapter.edit, {**tuned_adapter.provenance, "num_fewshot": 2})
    (document,) = SideBySide(loaded).try_task("own_choice", shown, include_path=tasks_folder, limit=1)
    assert document.prompt.count("<user>") == 3
    assert check_try_task("own_generate", shown, include_path=tasks_folder)[1] == 0


def test_a_generated_answer_ends_at_the_tasks_own_stop(
    loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops: list[object] = []
    begin = TextStream.__init__

    def recording(self: TextStream, *args: Any, **options: Any) -> None:
        stops.append(list(options["until"]))
        begin(self, *args, **options)

    monkeypatch.setattr(TextStream, "__init__", recording)
    (document,) = SideBySide(loaded).try_task("own_generate", tuned_adapter, include_path=tasks_folder, limit=1)
    assert stops == [["\n"], ["\n"]] and document.texts
    assert [(answer.text, answer.is_right) for answer in document.answers] == [("redder", True)]


def test_a_task_that_only_a_reward_can_score_has_texts_alone(loaded: LoadedModel, reward_adapter: Adapter) -> None:
    (document,) = SideBySide(loaded, max_new_tokens=3).try_task("openings", reward_adapter, limit=1)
    assert document.answers == () and document.texts


CONTEXTS = """
task: own_contexts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/test.jsonl}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{gold}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: " it is."
"""


def test_answers_inside_the_prompt_are_shown_by_it(
    loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "contexts.yaml").write_text(CONTEXTS.format(folder=tasks_folder).lstrip())
    side_by_side = SideBySide(loaded, apply_chat_template=False)
    (document,) = side_by_side.try_task("own_contexts", tuned_adapter, include_path=tmp_path, limit=1)
    assert [answer.text for answer in document.answers] == ["red", "redder", "blue"] and document.texts is None


def test_threads_take_turns(loaded: LoadedModel, tuned_adapter: Adapter) -> None:
    side_by_side = SideBySide(loaded, max_new_tokens=12)
    *_, expected = side_by_side.write("item 7", tuned_adapter)
    seen: list[object] = []

    def write() -> None:
        try:
            seen.append(list(side_by_side.write("item 7", tuned_adapter))[-1])
        except TarotError as error:
            seen.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [expected] * 4 and not hooks(loaded.model)


def test_a_long_prompt_keeps_its_end(loaded: LoadedModel, tuned_adapter: Adapter) -> None:
    side_by_side = SideBySide(loaded, apply_chat_template=False, max_new_tokens=4000)
    stream = side_by_side.write("y" * 4000 + "x" * 96, tuned_adapter)
    assert next(stream) == next(side_by_side.write("x" * 96, tuned_adapter))


@pytest.mark.parametrize("n", [0, 4096])
def test_a_number_of_tokens_that_leaves_no_room_is_refused(loaded: LoadedModel, n: int) -> None:
    with pytest.raises(InvalidValueError, match="new tokens"):
        SideBySide(loaded, max_new_tokens=n)


def test_a_blank_prompt_is_refused(loaded: LoadedModel, tuned_adapter: Adapter) -> None:
    with pytest.raises(InvalidValueError, match="empty"):
        next(SideBySide(loaded).write(" \n", tuned_adapter))


def test_a_document_that_the_adapter_was_tuned_on_is_refused(tuned_adapter: Adapter, tasks_folder: Path) -> None:
    config = (tasks_folder / "choice.yaml").read_text().replace("test.jsonl", "train.jsonl")
    samples: Any = tuned_adapter.provenance["samples_drawn"]
    assert "train.jsonl" in config and samples
    folder = tasks_folder.parent / "leaking"
    folder.mkdir(exist_ok=True)
    (folder / "choice.yaml").write_text(config.replace("own_choice", "own_leak"))
    with pytest.raises(TarotError, match="samples or shots"):
        check_try_task("own_leak", tuned_adapter, include_path=folder)


def test_what_is_no_number_is_named(loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path) -> None:
    model = byte_model()
    model.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    side_by_side = SideBySide(LoadedModel("bytes", model, byte_tokenizer()), max_new_tokens=4)
    (document,) = side_by_side.try_task("own_choice", tuned_adapter, include_path=tasks_folder, limit=1)
    assert document.texts.base == document.texts.edited == "(no number (NaN or infinite))"
    assert {_score(value) for answer in document.answers for value in (answer.base, answer.edited)} == {NO_NUMBER}
