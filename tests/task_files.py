"""The task files under test: how lm-eval imports them, and small data for those whose data are not ours."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

TASKS = Path(__file__).parents[1] / "tasks"
SYNTHETIC = ("synth_color", "synth_implicatives", "synth_navigate")
PAPER = ("tarot_ag_news", "tarot_color", "tarot_entailed_polarity", "tarot_navigate", "tarot_winowhy")
OPENINGS = ("imdb", "openings", "toxicity")
GENERATING = (*OPENINGS, "records")
WRITTEN = ("arithmetic", "modified_arithmetic", "object_counting", "operators")
PUBLISHED = (
    *("tarot_arithmetic", "tarot_causal_judgment", "tarot_elementary_math_qa", "tarot_modified_arithmetic"),
    *("tarot_object_counting", "tarot_operators", "tarot_snli"),
)
METRICS = {"acc", "f1", "greedy_acc", "greedy_f1", "gold_prob"}
RECORD = {"idx": 0, "inputs": "Take 1 step.\nA:", "targets": ["False"]}
INSTRUCTIONS = {
    "entailed_polarity": "Given a fact, answer the following question with a yes or a no.\n",
    "winowhy": "Please answer the following questions about which words certain pronouns refer to.\n\n",
}
TEXTS = {
    "navigate": (
        "Q: If you follow these instructions, do you return to the starting point? Take {} steps.\nA:",
        "True",
        "False",
    ),
    "color": (
        "Q: What is the color most closely matching this RGB representation: rgb(0, 0, {}) ?\nA:",
        "blue",
        "black",
    ),
    "entailed_polarity": ("Fact: Ed managed to leave {} times. Q: Did Ed leave?\nA:", "yes", "no"),
    "winowhy": (
        "Ann saw {} cats. The 'she' refers to ann because cats.\nThe above reasoning is",
        "correct",
        "incorrect",
    ),
}


def import_task_module(name: str) -> ModuleType:
    """Import a file of `tasks/` by its path, as lm-eval does."""
    spec = importlib.util.spec_from_file_location(f"tasks.{name}", TASKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(*names: str) -> dict[str, ConfigurableTask]:
    """Load tasks of `tasks/` with lm-eval alone."""
    return TaskManager(include_path=str(TASKS), include_defaults=False).load(list(names))["tasks"]


def load_with_data(root: Path, *names: str) -> dict[str, ConfigurableTask]:
    """Load tasks whose data are in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAROT_DATA", str(root))
        return load(*names)


def write_records(path: Path, records: Sequence[object]) -> None:
    """Write one JSON record a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_paper_data(root: Path) -> Path:
    """Write small data of `tarot_paper`, sorted by label, which is the worst case for shots."""
    for name, (text, *answers) in TEXTS.items():
        for split, start in (("train", 0), ("validation", 100)):
            records = [
                {
                    "idx": 7,
                    "inputs": INSTRUCTIONS.get(name, "") + text.format(start + row),
                    "targets": [answers[row // 4]],
                    "multiple_choice_targets": answers,
                    "multiple_choice_scores": [1 - row // 4, row // 4],
                }
                for row in range(8)
            ]
            write_records(root / "bigbench" / name / f"{split}.jsonl", records)
    for split in ("train", "test"):
        records = [{"text": f"The {split} news of day {row}. ", "label": row // 2} for row in range(8)]
        write_records(root / "ag_news" / f"{split}.jsonl", records)
    return root
