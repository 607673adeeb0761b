"""Prompts of the tasks with choices: one form, the same shots for every document, and the texts as written here."""

from collections import Counter

import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from task_files import GENERATING, METRICS, PAPER, PUBLISHED, SYNTHETIC, TASKS, load, load_with_data, write_paper_data

ALL = (*SYNTHETIC, *PAPER)


COLORS = ("white", "blue", "orange", "black", "red", "brown", "yellow", "green", "gray", "purple")


NAVIGATE = "Q: If you follow these instructions, do you return to the starting point?"


LISTED = " ?" + "".join(f"\n  choice: {name}" for name in COLORS) + "\nA:"


CLOSEST = "Q: What is the color most closely matching this"


PROMPTS = {  # description, six shots with their answers, the first document
    "synth_navigate": (
        "Follow the instructions and say whether they lead back to the starting point. Answer True or False.\n\n",
        [
            f"{NAVIGATE} Take 6 steps. Turn right. Turn left. Take 1 step. Take 1 step. Take 6 steps. "
            "Take 1 step.\nA: False",
            f"{NAVIGATE} Always face forward. Take 4 steps left. Take 2 steps forward. Take 4 steps right. "
            "Take 6 steps backward. Take 1 step backward. Take 3 steps forward. Take 9 steps forward. "
            "Take 7 steps backward.\nA: True",
            f"{NAVIGATE} Turn right. Take 1 step. Take 7 steps. Turn left.\nA: False",
            f"{NAVIGATE} Always face forward. Take 2 steps left. Take 4 steps backward. Take 4 steps forward. "
            "Take 5 steps left. Take 7 steps right.\nA: True",
            f"{NAVIGATE} Always face forward. Take 4 steps backward. Take 6 steps forward. Take 2 steps left. "
            "Take 5 steps left. Take 1 step backward. Take 7 steps right. Take 7 steps backward. "
            "Take 6 steps forward.\nA: True",
            f"{NAVIGATE} Take 5 steps. Turn left. Turn right. Turn around. Take 9 steps. Turn around. "
            "Turn left.\nA: False",
        ],
        f"{NAVIGATE} Always face forward. Take 2 steps backward. Take 7 steps right. Take 7 steps forward. "
        "Take 3 steps forward.\nA:",
    ),
    "synth_color": (
        "Say which of the listed colors is nearest to the given one. "
        "Answer with one of: white, blue, orange, black, red, brown, yellow, green, gray, purple.\n\n",
        [
            f"{CLOSEST} HCL representation: hcl(26.78, 53.23, 44.44){LISTED} brown",
            f"{CLOSEST} RGB representation: rgb(145, 183, 25){LISTED} green",
            f"{CLOSEST} HEX representation: #c6c77f{LISTED} yellow",
            f"{CLOSEST} HCL representation: hcl(302.78, 44.83, 50.63){LISTED} purple",
            f"{CLOSEST} HCL representation: hcl(39.45, 84.67, 46.46){LISTED} red",
            f"{CLOSEST} HSL representation: hsl(39.67, 87.56%, 40.98%){LISTED} orange",
        ],
        f"{CLOSEST} RGB representation: rgb(34, 26, 165){LISTED}",
    ),
    "synth_implicatives": (
        "Given a fact, answer the question with yes or no.\n\n",
        [
            "Fact: Ed missed the chance to vote. Q: Did Ed vote?\nA: no",
            "Fact: Tom didn't refrain from speaking. Q: Did Tom speak?\nA: yes",
            "Fact: Yesterday Ed refrained from voting. Q: Did Ed vote?\nA: no",
            "Fact: Ed didn't omit to finish the book. Q: Did Ed finish the book?\nA: yes",
            "Fact: Last week Kate didn't think twice about selling the boat. Q: Did Kate sell the boat?\nA: yes",
            "Fact: Yesterday Ed didn't find the courage to tell the truth. Q: Did Ed tell the truth?\nA: no",
        ],
        "Fact: In the end Bill didn't deign to buy the tickets. Q: Did Bill buy the tickets?\nA:",
    ),
    "tarot_ag_news": (
        "Say what the news article is about. Answer World, Sports, Business or Technology.\n\n",
        [
            f"Article: The train news of day {day}.\nTopic: {topic}"
            for day, topic in [
                (6, "Technology"),
                (2, "Sports"),
                (0, "World"),
                (4, "Business"),
                (7, "Technology"),
                (3, "Sports"),
            ]
        ],
        "Article: The test news of day 0.\nTopic:",
    ),
    "tarot_color": (
        "Say which of the listed colors is nearest to the given one. "
        "Answer with one of: white, blue, orange, black, red, brown, yellow, green, gray, purple.\n\n",
        [
            f"{CLOSEST} RGB representation: rgb(0, 0, {blue}) ?\nA: {name}"
            for blue, name in [(4, "black"), (0, "blue"), (1, "blue"), (5, "black"), (6, "black"), (2, "blue")]
        ],
        f"{CLOSEST} RGB representation: rgb(0, 0, 100) ?\nA:",
    ),
    "tarot_entailed_polarity": (
        "Given a fact, answer the following question with a yes or a no.\n\n",
        [
            f"Fact: Ed managed to leave {times} times. Q: Did Ed leave?\nA: {answer}"
            for times, answer in [(4, "no"), (0, "yes"), (1, "yes"), (5, "no"), (6, "no"), (2, "yes")]
        ],
        "Fact: Ed managed to leave 100 times. Q: Did Ed leave?\nA:",
    ),
    "tarot_navigate": (
        "Follow the instructions and say whether they lead back to the starting point. Answer True or False.\n\n",
        [
            f"{NAVIGATE} Take {steps} steps.\nA: {answer}"
            for steps, answer in [(4, "False"), (0, "True"), (1, "True"), (5, "False"), (6, "False"), (2, "True")]
        ],
        f"{NAVIGATE} Take 100 steps.\nA:",
    ),
    "tarot_winowhy": (
        "Please answer the following questions about which words certain pronouns refer to. "
        "Answer correct or incorrect.\n\n",
        [
            f"Ann saw {cats} cats. The 'she' refers to ann because cats.\nThe above reasoning is {answer}"
            for cats, answer in [
                (4, "incorrect"),
                (0, "correct"),
                (1, "correct"),
                (5, "incorrect"),
                (6, "incorrect"),
                (2, "correct"),
            ]
        ],
        "Ann saw 100 cats. The 'she' refers to ann because cats.\nThe above reasoning is",
    ),
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConfigurableTask]:
    root = write_paper_data(tmp_path_factory.mktemp("data"))
    return load("tarot_synthetic") | load_with_data(root, "tarot_paper")


def test_folder_holds_exactly_these_tasks_and_groups(tasks: dict[str, ConfigurableTask]) -> None:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    assert sorted(ALL) == sorted(tasks)
    assert manager.all_subtasks == sorted((*ALL, *GENERATING, *PUBLISHED))
    assert manager.all_groups == ["tarot_paper", "tarot_synthetic"]
    for folder in ("paper", "synthetic"):
        readme = (TASKS / folder / "README.md").read_text()
        for heading in ("### Paper", "### Citation", "#### Groups", "#### Tags", "#### Tasks", "### Checklist"):
            assert f"\n{heading}\n" in readme
        for name in (*manager.all_groups, *ALL):
            assert (f"`{name}`" in readme) or ("tarot" if folder == "synthetic" else "synth") in name


@pytest.mark.parametrize("name", ALL)
def test_every_task_has_one_form(tasks: dict[str, ConfigurableTask], name: str) -> None:
    task = tasks[name]
    evaluated = "validation" if name.startswith("tarot_") and name != "tarot_ag_news" else "test"
    assert task.config.output_type == "multiple_choice"
    assert task.config.num_fewshot is None  # 0 could not be overridden
    assert (task.config.training_split, task.config.fewshot_split) == ("train", "train")
    assert (task.config.test_split or task.config.validation_split) == evaluated
    assert task.config.target_delimiter == " "
    assert set(task.aggregation()) == set(task.higher_is_better()) == METRICS
    assert task.config.description.endswith("\n\n") and task.config.description.strip()
    for document in (*task.training_docs(), *task.eval_docs):
        choices = task.doc_to_choice(document)
        assert all(choice == choice.strip() for choice in choices)
        assert 0 <= task.doc_to_target(document) < len(choices)
    assert all(choice in task.config.description for choice in choices if choice not in ("yes", "no"))
    everything = [*task.training_docs(), *task.eval_docs]
    assert len({document["id"] for document in everything}) == len(everything)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shots", [0, 1, 6])
def test_every_document_has_the_same_shots(tasks: dict[str, ConfigurableTask], name: str, shots: int) -> None:
    task = tasks[name]
    training = list(task.training_docs())[:shots]
    shown = "".join(f"{d['text']} {d['choices'][d['gold']]}\n\n" for d in training)
    for document in list(task.eval_docs)[:5]:
        assert task.fewshot_context(document, shots) == task.config.description + shown + document["text"]
    counts = Counter(document["gold"] for document in training)
    choices = min(len({document["gold"] for document in task.training_docs()}), shots)
    assert len(counts) == choices and max(counts.values(), default=0) - min(counts.values(), default=0) <= 1


def test_the_description_is_the_system_message_of_a_chat(tasks: dict[str, ConfigurableTask]) -> None:
    def template(messages: list[dict], add_generation_prompt: bool) -> str:
        assert add_generation_prompt
        return "".join(f"<{message['role']}>{message['content']}" for message in messages)

    task = tasks["tarot_entailed_polarity"]
    chat = dict(apply_chat_template=True, fewshot_as_multiturn=True, chat_template=template)
    assert task.fewshot_context(task.eval_docs[0], 1, **chat) == (
        "<system>Given a fact, answer the following question with a yes or a no.\n\n"
        "<user>Fact: Ed managed to leave 4 times. Q: Did Ed leave?\nA:<assistant>no"
        "<user>Fact: Ed managed to leave 100 times. Q: Did Ed leave?\nA:"
    )


@pytest.mark.parametrize("name", ALL)
def test_prompts_read_as_written_here(tasks: dict[str, ConfigurableTask], name: str) -> None:
    description, shots, question = PROMPTS[name]
    document = tasks[name].eval_docs[0]
    assert tasks[name].fewshot_context(document, 0) == description + question
    assert tasks[name].fewshot_context(document, 6) == description + "\n\n".join([*shots, question])
