"""Loaders of tasks/: labels in turn, one-line errors for bad data, the hub where no folder is named."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_files import RECORD, import_task_module, load, write_paper_data, write_records

loaders = import_task_module("loaders")


@given(golds=st.lists(st.integers(0, 4), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_labels_alternate(golds: list[int], seed: int) -> None:
    documents = [{"id": row, "gold": gold} for row, gold in enumerate(golds)]
    ordered = loaders.alternate_labels(documents, seed)
    assert sorted(ordered, key=lambda document: document["id"]) == documents
    left = Counter(golds)
    while ordered:
        # Each round has one of every label left; within a label, documents keep their order.
        one_round, ordered = ordered[: len(left)], ordered[len(left) :]
        assert {document["gold"] for document in one_round} == set(left)
        left = Counter({gold: count - 1 for gold, count in left.items() if count > 1})
    for gold in set(golds):
        ids = [document["id"] for document in loaders.alternate_labels(documents, seed) if document["gold"] == gold]
        assert ids == sorted(ids)
    assert loaders.alternate_labels(documents, seed) == loaders.alternate_labels(documents, seed)


@pytest.mark.parametrize(
    ("third_line", "message"),
    [
        (
            '{"inputs": "Take',
            "expected a JSON object on every line, got 'Unterminated string starting at: line 1 column 12 (char 11)'; "
            "see {path}:3",
        ),
        (
            json.dumps({"inputs": "Take"}),
            "expected a record in the hub's own fields, got \"KeyError: 'targets'\"; see {path}:3",
        ),
        ("[1]", "expected a record in the hub's own fields, got {error}; see {path}:3"),
        (
            json.dumps(RECORD | {"inputs": None}),
            "expected a record in the hub's own fields, got {error}; see {path}:3",
        ),
        (
            json.dumps(RECORD | {"targets": "False"}),
            "expected a record in the hub's own fields, got {error}; see {path}:3",
        ),
        (
            json.dumps(RECORD | {"targets": ["Maybe"]}),
            "expected an answer among True, False, got 'Maybe'; see {path}:3",
        ),
        (
            json.dumps(RECORD | {"targets": [["True"]]}),
            "expected an answer among True, False, got ['True']; see {path}:3",
        ),
    ],
)
def test_the_error_names_a_bad_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, third_line: str, message: str
) -> None:
    path = write_paper_data(tmp_path) / "bigbench" / "navigate" / "validation.jsonl"
    path.write_text(f"{json.dumps(RECORD)}\n{json.dumps(RECORD)}\n{third_line}\n{json.dumps(RECORD)}\n")
    monkeypatch.setenv("TAROT_DATA", str(tmp_path))
    with pytest.raises(ValueError) as caught:
        load("tarot_navigate")
    pattern = re.escape(message.format(path=path, error="ERROR")).replace(
        "ERROR", "[\"'](Type|Attribute|Value)Error: .*"
    )
    assert re.fullmatch(pattern, str(caught.value))


@pytest.mark.parametrize("label", [4, -1, None])
def test_a_label_outside_the_topics_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: object) -> None:
    write_records(write_paper_data(tmp_path) / "ag_news" / "train.jsonl", [{"text": "News.", "label": label}])
    monkeypatch.setenv("TAROT_DATA", str(tmp_path))
    expected = "expected an answer among World, Sports, Business, Technology, got {!r}; see {}:1"
    with pytest.raises(ValueError) as caught:
        load("tarot_ag_news")
    assert str(caught.value) == expected.format(label, tmp_path / "ag_news" / "train.jsonl")


def test_a_missing_folder_a_missing_file_and_an_empty_file_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error_of(task: str) -> str:
        with pytest.raises(ValueError) as caught:
            load(task)
        return str(caught.value)

    monkeypatch.setenv("TAROT_DATA", str(tmp_path / "nowhere"))
    nowhere = f"expected TAROT_DATA to name a folder, got '{tmp_path / 'nowhere'}'; unset it to read from the hub"
    assert error_of("tarot_color") == nowhere
    write_paper_data(tmp_path)
    monkeypatch.setenv("TAROT_DATA", str(tmp_path))
    missing = tmp_path / "bigbench" / "color" / "validation.jsonl"
    missing.unlink()
    assert error_of("tarot_color") == (
        f"expected the file {missing}, got 'No such file or directory'; TAROT_DATA must hold it"
    )
    missing.write_text("")
    assert (
        error_of("tarot_color")
        == "expected at least one record in the split 'validation', got none; the data is cut off"
    )


def test_answers_come_from_the_hub_without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    requested = []

    def load_dataset(*source: str, split: str) -> list[dict]:
        requested.append((*source, split))
        return [{"text": f"{split}.", "label": 2}] if "ag_news" in source[0] else [RECORD | {"inputs": split}]

    monkeypatch.delenv("TAROT_DATA", raising=False)
    monkeypatch.setattr(loaders, "load_dataset", load_dataset)
    data = loaders.bigbench(name="navigate", choices=["True", "False"], pretrained="any", version=1.0)
    expected = {"id": "validation-0", "text": "validation", "choices": ["True", "False"], "gold": 1}
    assert list(data["validation"]) == [expected]
    assert loaders.ag_news(choices=["World", "Sports", "Business", "Technology"])["test"]["gold"] == [2]
    assert requested == [
        ("tasksource/bigbench", "navigate", "train"),
        ("tasksource/bigbench", "navigate", "validation"),
        ("fancyzhx/ag_news", "train"),
        ("fancyzhx/ag_news", "test"),
    ]

    def unreachable(*source: str, split: str) -> None:
        raise ConnectionError("Couldn't reach it\non line two")

    monkeypatch.setattr(loaders, "load_dataset", unreachable)
    with pytest.raises(ValueError) as caught:
        loaders.bigbench(name="navigate", choices=["True", "False"])
    assert str(caught.value) == (
        'expected the data set tasksource/bigbench/navigate from the hub, got "ConnectionError: Couldn\'t reach it"; '
        "set TAROT_DATA to a folder that holds it"
    )


@pytest.fixture
def real_data() -> Path:
    if "TAROT_DATA" in os.environ:
        return Path(os.environ["TAROT_DATA"])
    if os.environ.get("CI") == "true":
        pytest.fail("TAROT_DATA is not set: in CI the paper's data must be there")
    pytest.skip("TAROT_DATA is not set: it names a folder of the paper's data, which cannot be shipped")


def test_the_papers_data_give_the_papers_answers(real_data: Path) -> None:
    for name, task in load("tarot_paper").items():
        training, evaluated = list(task.training_docs()), list(task.eval_docs)
        assert not {document["text"] for document in training} & {document["text"] for document in evaluated}
        assert len(training) > 40 and len(evaluated) > 40
        for document in (*training, *evaluated):
            assert document["text"] == document["text"].strip()
            assert document["text"].endswith({"tarot_ag_news": "\nTopic:", "tarot_winowhy": " is"}.get(name, "\nA:"))
            assert not document["text"].startswith(("Given a fact", "Please answer"))
        folder = real_data / (f"bigbench/{name[6:]}" if name != "tarot_ag_news" else "ag_news")
        last = folder / ("validation.jsonl" if name != "tarot_ag_news" else "test.jsonl")
        for document, line in zip(evaluated, last.read_text().splitlines(), strict=True):
            record = json.loads(line)
            answer = document["choices"][document["gold"]]
            assert [answer] == record.get("targets", [document["choices"][record.get("label", 0)]])
        assert len({document["gold"] for document in training[:6]}) == min(6, len(training[0]["choices"]))


def test_the_error_names_a_bad_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def error_of(name: str) -> str:
        with pytest.raises(ValueError) as error:
            load(name)
        return str(error.value)

    monkeypatch.setenv("TAROT_DATA", str(tmp_path / "nowhere"))
    assert error_of("imdb").startswith("expected TAROT_DATA to name a folder, got ")
    monkeypatch.setenv("TAROT_DATA", str(tmp_path))
    path = tmp_path / "imdb" / "train.jsonl"
    assert error_of("imdb") == f"expected the file {path}, got 'No such file or directory'; TAROT_DATA must hold it"
    write_records(path, [{"review": "good"}])
    assert error_of("imdb") == (f"expected a record in the hub's own fields, got \"KeyError: 'text'\"; see {path}:1")
    path.write_text("")
    write_records(tmp_path / "imdb" / "test.jsonl", [{"text": "good"}])
    assert error_of("imdb") == "expected at least one opening in the split 'train', got none; the data is cut off"


def test_openings_come_from_the_hub_without_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    requested = []

    def load_dataset(name: str, split: str) -> list[dict]:
        requested.append((name, split))
        return [{"text": f"{split}.", "prompt": {"text": f"rude {row}"}, "challenging": True} for row in range(5)]

    monkeypatch.delenv("TAROT_DATA", raising=False)
    monkeypatch.setattr(loaders, "load_dataset", load_dataset)
    assert loaders.imdb(version=1.0)["test"]["opening"] == ["test."]
    assert loaders.toxicity()["test"]["opening"] == ["rude 4"]
    assert requested == [
        ("stanfordnlp/imdb", "train"),
        ("stanfordnlp/imdb", "test"),
        ("allenai/real-toxicity-prompts", "train"),
    ]
