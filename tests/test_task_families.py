"""Task files whose texts a reward judges, and those that the paper's code names besides the paper's own five."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from tarot.objectives.rewards import check_reward
from tarot.objectives.samples import draw_samples
from tarot.objectives.task_loading import load_task

TASKS = Path(__file__).parents[1] / "tasks"
GENERATING = ("imdb", "openings", "toxicity")
PUBLISHED = (
    *("tarot_arithmetic", "tarot_causal_judgment", "tarot_elementary_math_qa", "tarot_modified_arithmetic"),
    *("tarot_object_counting", "tarot_operators", "tarot_snli"),
)
WRITTEN = ("arithmetic", "modified_arithmetic", "object_counting", "operators")


def module(name: str) -> ModuleType:
    """A file of `tasks/`, imported by its path as lm-eval does."""
    spec = importlib.util.spec_from_file_location(f"tasks.{name}", TASKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    imported = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(imported)
    return imported


openings, loaders, free = module("generation/openings"), module("loaders"), module("paper/free")


def load(*names: str) -> dict[str, ConfigurableTask]:
    return TaskManager(include_path=str(TASKS), include_defaults=False).load(list(names))["tasks"]


def write(path: Path, records: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConfigurableTask]:
    """All of them, over small files in the hub's own fields."""
    root = tmp_path_factory.mktemp("data")
    reviews = [f"This is<br /><br />review number {row} and it goes on for longer than its opening" for row in range(9)]
    write(root / "imdb" / "train.jsonl", [{"text": text, "label": 0} for text in reviews])
    write(root / "imdb" / "test.jsonl", [{"text": text.replace("number", "no"), "label": 1} for text in reviews[:5]])
    prompts = [
        {"prompt": {"text": f" A rude word, {row}"}, "continuation": {}, "challenging": row % 2 == 0}
        for row in range(30)
    ]
    write(root / "real-toxicity-prompts" / "train.jsonl", prompts)
    for name in (*WRITTEN, "causal_judgment", "elementary_math_qa"):
        for split, start in (("train", 0), ("validation", 100)):
            records = []
            for row in range(start, start + 6):
                number = str(row)
                choices = {"causal_judgment": ["Yes", "No"], "elementary_math_qa": ["-1", number, "7.5"]}.get(name, [])
                targets = {"causal_judgment": ["Yes"], "object_counting": [number, f"the number {number}"]}
                records.append(
                    {
                        "idx": 0,
                        "inputs": f"What is {number}?\nA:",
                        "targets": targets.get(name, [number]),
                        "multiple_choice_targets": choices,
                        "multiple_choice_scores": [int(choice == number) for choice in choices],
                    }
                )
            write(root / "bigbench" / name / f"{split}.jsonl", records)
    for split in ("train", "validation"):
        records = [{"premise": f"{split} {row}.", "hypothesis": "It rains.", "label": row % 4 - 1} for row in range(12)]
        write(root / "snli" / f"{split}.jsonl", records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAROT_DATA", str(root))
        return load(*GENERATING, *PUBLISHED)


# Texts for a reward


@pytest.mark.parametrize("name", GENERATING)
def test_every_generating_task_is_of_one_form(tasks: dict[str, ConfigurableTask], name: str) -> None:
    config = tasks[name].config
    assert (config.output_type, config.doc_to_target) == ("generate_until", "")
    assert (config.training_split, config.test_split, config.num_fewshot) == ("train", "test", None)
    assert config.generation_kwargs == {"max_gen_toks": 30, "until": [], "do_sample": False}
    check_reward(config.metadata["reward"])
    assert tasks[name].process_results({}, ["some four words here"]) == {"words": 4.0}


@pytest.mark.parametrize("name", GENERATING)
def test_no_opening_is_in_both_splits_or_twice(tasks: dict[str, ConfigurableTask], name: str) -> None:
    data = tasks[name].dataset
    texts = [document["opening"] for split in ("train", "test") for document in data[split]]
    assert len(set(texts)) == len(texts)
    assert all(text == text.strip() for text in texts)
    ids = [document["id"] for split in ("train", "test") for document in data[split]]
    assert len(set(ids)) == len(ids)


def test_openings_are_neutral_and_of_other_films() -> None:
    train, test = (openings.openings(split, seed=0) for split in ("train", "test"))
    assert (len(train), len(test)) == (80, 160)
    valence = SentimentIntensityAnalyzer().polarity_scores
    for document in (*train, *test):
        assert valence(document["opening"])["compound"] == 0, document["opening"]
        assert not document["opening"].endswith((".", " "))
    for part in (openings.PLOTS, openings.PLACES):
        assert not set(part["train"]) & set(part["test"])
    assert openings.openings("test", seed=0) == test != openings.openings("test", seed=1)


def test_the_opening_begins_what_the_model_writes(tasks: dict[str, ConfigurableTask]) -> None:
    task = load_task("openings")
    (sample,) = draw_samples(task, 1)
    prompt, answer = sample.pairs[0]
    opening = next(d["opening"] for d in task.dataset["train"] if f"train/{d['id'][6:]}" == sample.id)
    assert prompt == f"A film review: {opening}" and not answer.strip()

    def chat(messages: list[dict], add_generation_prompt: bool = True) -> str:
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + ("<open>" if add_generation_prompt else "")

    (templated,) = draw_samples(task, 1, chat_template=chat)
    assert templated.pairs[0][0] == f"<user>A film review:<assistant>{opening}"
    assert sample.key == templated.key
    assert len({each.key for each in draw_samples(task, 80)}) == 80


def test_other_peoples_openings(tasks: dict[str, ConfigurableTask]) -> None:
    imdb, toxicity = tasks["imdb"].dataset, tasks["toxicity"].dataset
    assert imdb["train"][0] == {
        "id": "train-0",
        "opening": "This is review number 0 and it goes on for longer than",
    }
    assert len(imdb["train"]) == 9 and len(imdb["test"]) == 5
    assert toxicity["test"]["opening"] == ["A rude word, 8", "A rude word, 18", "A rude word, 28"]
    assert len(toxicity["train"]) == 12


def test_bad_records_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(name: str) -> str:
        with pytest.raises(ValueError) as error:
            load(name)
        return str(error.value)

    monkeypatch.setenv("TAROT_DATA", str(tmp_path / "nowhere"))
    assert said("imdb").startswith("expected TAROT_DATA to name a folder, got ")
    monkeypatch.setenv("TAROT_DATA", str(tmp_path))
    path = tmp_path / "imdb" / "train.jsonl"
    assert said("imdb") == f"expected the file {path}, got 'No such file or directory'; TAROT_DATA must hold it"
    write(path, [{"review": "good"}])
    assert said("imdb") == (f"expected a record in the hub's own fields, got \"KeyError: 'text'\"; see {path}:1")
    path.write_text("")
    write(tmp_path / "imdb" / "test.jsonl", [{"text": "good"}])
    assert said("imdb") == "expected at least one opening in the split 'train', got none; the data is cut off"


def test_without_the_folder_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, split: str) -> list[dict]:
        asked.append((name, split))
        return [{"text": f"{split}.", "prompt": {"text": f"rude {row}"}, "challenging": True} for row in range(5)]

    monkeypatch.delenv("TAROT_DATA", raising=False)
    monkeypatch.setattr(loaders, "load_dataset", load_dataset)
    assert loaders.imdb(version=1.0)["test"]["opening"] == ["test."]
    assert loaders.toxicity()["test"]["opening"] == ["rude 4"]
    assert asked == [
        ("stanfordnlp/imdb", "train"),
        ("stanfordnlp/imdb", "test"),
        ("allenai/real-toxicity-prompts", "train"),
    ]


# What the published code names


@pytest.mark.parametrize("name", WRITTEN)
def test_written_answers(tasks: dict[str, ConfigurableTask], name: str) -> None:
    task = tasks[f"tarot_{name}"]
    assert task.config.output_type == "generate_until" and task.config.doc_to_choice is None
    (sample, *_) = draw_samples(task, 6, num_fewshot=0)
    document = task.dataset["train"][int(sample.id.removeprefix("train/"))]
    assert sample.pairs == ((f"{task.config.description}{document['text']}", f" {document['choices'][0]}"),)
    (shot, *_) = draw_samples(task, 4, num_fewshot=2)
    assert shot.pairs[0][0].count("\nA:") == 3
    assert task.process_results(document, [f" {document['choices'][-1]}."]) == {"exact_match": 1.0}
    assert task.process_results(document, ["something else"]) == {"exact_match": 0.0}


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("causal_judgment", ["Yes", "No"]),
        ("elementary_math_qa", ["-1", "100", "7.5"]),
        ("snli", ["entailment", "neutral", "contradiction"]),
    ],
)
def test_chosen_answers(tasks: dict[str, ConfigurableTask], name: str, choices: list[str]) -> None:
    task = tasks[f"tarot_{name}"]
    first = next(iter(task.eval_docs))
    assert first["choices"] == choices
    assert task.doc_to_target(first) == {"causal_judgment": 0, "elementary_math_qa": 1, "snli": 0}[name]
    assert draw_samples(task, 3)[0].pairs[0][0].startswith(task.config.description)


def test_pairs_without_a_label_are_left_out(tasks: dict[str, ConfigurableTask]) -> None:
    data = tasks["tarot_snli"].dataset
    assert len(data["validation"]) == len(data["train"]) == 9
    assert data["validation"][0]["text"] == "Premise: validation 1.\nHypothesis: It rains.\nRelation:"
    assert sorted(data["train"]["gold"][:3]) == [0, 1, 2]


def test_the_tag_holds_them_and_the_readmes_name_them() -> None:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    assert manager.all_tags == ["tarot_published_code"]
    files = [path.read_text() for path in (TASKS / "paper").glob("*.yaml")]
    tagged = [text for text in files if "\ntag: tarot_published_code\n" in text]
    assert len(tagged) == len(PUBLISHED) and all(f"task: {name}\n" in "".join(tagged) for name in PUBLISHED)
    for folder, names in (("paper", PUBLISHED), ("generation", GENERATING)):
        readme = (TASKS / folder / "README.md").read_text()
        assert all(f"`{name}`" in readme for name in names)
        for heading in ("### Paper", "### Citation", "#### Groups", "#### Tags", "#### Tasks", "### Checklist"):
            assert f"\n{heading}\n" in readme


def test_exact_match_forgives_space_and_a_period_alone() -> None:
    document = {"choices": ["7", "seven"]}
    right = ["7", " 7 ", "seven.", "\n7."]
    wrong = ["", "77", "7 apples", "Seven", "7.."]
    assert [free.process_results(document, [text])["exact_match"] for text in right + wrong] == [1.0] * 4 + [0.0] * 5
