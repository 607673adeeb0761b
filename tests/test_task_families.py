"""Tasks with texts for a reward, and the published code's tasks besides the paper's five."""

import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from task_files import (
    GENERATING,
    OPENINGS,
    PUBLISHED,
    TASKS,
    WRITTEN,
    import_task_module,
    load_with_data,
    write_records,
)
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from tarot.objectives.rewards.registry import check_reward
from tarot.objectives.tasks.samples import draw_samples
from tarot.objectives.tasks.task_loading import load_task

openings, records = map(import_task_module, ("generation/openings", "generation/records"))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConfigurableTask]:
    """Load the tasks over small files with the hub's own fields."""
    root = tmp_path_factory.mktemp("data")
    reviews = [f"This is<br /><br />review number {row} and it goes on for longer than its opening" for row in range(9)]
    write_records(root / "imdb" / "train.jsonl", [{"text": text, "label": 0} for text in reviews])
    write_records(
        root / "imdb" / "test.jsonl", [{"text": text.replace("number", "no"), "label": 1} for text in reviews[:5]]
    )
    prompts = [
        {"prompt": {"text": f" A rude word, {row}"}, "continuation": {}, "challenging": row % 2 == 0}
        for row in range(30)
    ]
    write_records(root / "real-toxicity-prompts" / "train.jsonl", prompts)
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
            write_records(root / "bigbench" / name / f"{split}.jsonl", records)
    for split in ("train", "validation"):
        records = [{"premise": f"{split} {row}.", "hypothesis": "It rains.", "label": row % 4 - 1} for row in range(12)]
        write_records(root / "snli" / f"{split}.jsonl", records)
    return load_with_data(root, *GENERATING, *PUBLISHED)


@pytest.mark.parametrize("name", OPENINGS)
def test_every_task_with_openings_has_one_form(tasks: dict[str, ConfigurableTask], name: str) -> None:
    config = tasks[name].config
    assert (config.output_type, config.doc_to_target) == ("generate_until", "")
    assert (config.training_split, config.test_split, config.num_fewshot) == ("train", "test", None)
    assert config.generation_kwargs == {"max_gen_toks": 30, "until": [], "do_sample": False}
    check_reward(config.metadata["reward"])
    assert tasks[name].process_results({}, ["some four words here"]) == {"words": 4.0}


@pytest.mark.parametrize("name", OPENINGS)
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


def test_the_opening_begins_the_models_text(tasks: dict[str, ConfigurableTask]) -> None:
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


def test_records_are_of_other_people_and_ask_for_json(tasks: dict[str, ConfigurableTask]) -> None:
    data = tasks["records"].dataset
    texts = {split: [document["text"] for document in data[split]] for split in ("train", "test")}
    assert [len(set(texts[split])) for split in texts] == [80, 160]
    for part in (records.NAMES, records.CITIES):
        assert not set(part["train"]) & set(part["test"])
        for split, other in (("train", "test"), ("test", "train")):
            assert all(any(word in text for word in part[split]) for text in texts[split])
            assert not any(word in text for word in part[other] for text in texts[split])
    assert records.records("test", seed=0) != records.records("test", seed=1)
    (sample,) = draw_samples(load_task("records"), 1)
    prompt, answer = sample.pairs[0]
    assert "JSON object with the keys name, age and city" in prompt and not answer.strip()
    check_reward(tasks["records"].config.metadata["reward"])


def test_openings_of_published_data(tasks: dict[str, ConfigurableTask]) -> None:
    imdb, toxicity = tasks["imdb"].dataset, tasks["toxicity"].dataset
    assert imdb["train"][0] == {
        "id": "train-0",
        "opening": "This is review number 0 and it goes on for longer than",
    }
    assert len(imdb["train"]) == 9 and len(imdb["test"]) == 5
    assert toxicity["test"]["opening"] == ["A rude word, 8", "A rude word, 18", "A rude word, 28"]
    assert len(toxicity["train"]) == 12


@pytest.mark.parametrize("name", WRITTEN)
def test_tasks_with_free_answers(tasks: dict[str, ConfigurableTask], name: str) -> None:
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
def test_tasks_with_choices(tasks: dict[str, ConfigurableTask], name: str, choices: list[str]) -> None:
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


def test_the_tag_and_the_readmes_list_the_tasks() -> None:
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
