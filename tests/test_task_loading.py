"""Task loading: unknown names, broken files and data that cannot be read."""

from pathlib import Path

import pytest
from checkpoint import write_tasks

from tarot.errors import TarotError, UnknownName
from tarot.objectives.tasks.task_loading import load_task, load_tasks, make_task_manager


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def test_unknown_names_and_groups_are_errors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'synth_color'\?"):
        load_task("synth_colour")
    with pytest.raises(
        TarotError,
        match="'tarot_synthetic' is a group of tasks, not a task; choose one of synth_color, synth_implicatives",
    ):
        load_task("tarot_synthetic")
    with pytest.raises(TarotError, match="'nowhere'"):
        load_task("synth_color", "nowhere")
    monkeypatch.setenv("TAROT_DATA", "nowhere")
    with pytest.raises(TarotError, match="TAROT_DATA"):
        load_tasks(["tarot_navigate"])


@pytest.mark.parametrize(
    "text, keyword",
    [
        ("task: [own", "line 1"),
        ("- task", "Expected YAML dict"),
        ("task: own\ninclude: absent.yaml", "absent.yaml"),
        ("task: \xff", "position 6"),
    ],
)
def test_a_broken_file_is_not_reported_as_an_unknown_task(text: str, keyword: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(TarotError, match=r"own\.yaml") as caught:
        load_task("own", tmp_path)
    assert keyword in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_index_of_tasks_is_made_again_when_a_file_changes(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    index = make_task_manager(["own_choice"], folder)
    assert make_task_manager(["own_choice"], folder) is index
    file = folder / "choice.yaml"
    file.write_text(file.read_text().replace("own_choice", "another_choice"))
    assert "own_choice" not in make_task_manager(["another_choice"], folder).all_tasks
    (folder / "third.yaml").write_text(file.read_text().replace("another_choice", "third_choice"))
    assert load_task("third_choice", folder).config.task == "third_choice"
