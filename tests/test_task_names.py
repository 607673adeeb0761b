"""Task names: the same that lm-eval finds, without importing it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.tasks.manager import TaskManager

from tarot.errors import TarotError, UnknownName
from tarot.objectives.tasks.task_names import check_task_names, lm_eval_names, task_names_in, tasks_folder


def test_every_name_of_lm_eval_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = lm_eval_names()
    assert set(TaskManager().all_tasks) <= names
    assert not {"own", "matching"} & names  # words of comments behind a name
    assert lm_eval_names() == names  # from the cache folder


@pytest.mark.parametrize("content", ["", "[]", "{", '{"of": 1}', '{"of": ["0"], "names": ["nosuch"]}', "\0"])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("tarot.objectives.tasks.task_names._scan_names", lambda folder: {"hellaswag"})
    (tmp_path / "tarot").mkdir()
    (tmp_path / "tarot" / "lm-eval-tasks.json").write_text(content)
    assert lm_eval_names() == {"hellaswag"}


YAML = {
    "plain.yaml": "task: plain\ntag: [one_tag, other_tag]\n",
    "group.yaml": "group: all\ntask:\n  - plain\n  - group: inner\n    task: [plain]\n",
    "quoted.yaml": '"task": "quo-ted"\nprocess: !function nowhere.f\n',
    "flow.yaml": "{task: flow, tag: flow_tag}\n",
    "deep/inherits.yaml": "include: ../base\n",
    "base": "task: inherited\ntag: base_tag\n",
    "__pycache__/hidden.yaml": "task: hidden\n",
}


def test_a_folder_has_the_names_that_lm_eval_finds(tmp_path: Path) -> None:
    for name, content in YAML.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert task_names_in(tmp_path) == set(TaskManager(include_path=str(tmp_path), include_defaults=False).all_tasks)
    assert task_names_in(tasks_folder()) == set(
        TaskManager(include_path=str(tasks_folder()), include_defaults=False).all_tasks
    )


@given(st.binary(max_size=40))
def test_the_error_for_a_missing_name_names_a_broken_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "broken.yaml").write_bytes(content + b"\n]")
    with pytest.raises(TarotError, match=r"broken\.yaml"):
        check_task_names(["no_such_task"], folder)
    check_task_names(["synth_color", "hellaswag"], folder)


@pytest.mark.parametrize("folder", ["nowhere", "", "file"])
def test_the_error_quotes_a_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(TarotError, match=f"'{folder}'"):
        check_task_names(["synth_color"], folder)


@pytest.mark.parametrize(
    ("name", "nearest"), [("synth_colr", "synth_color"), ("hellaswg", "hellaswag"), ("own_tas", "own_task")]
)
def test_the_error_suggests_the_nearest_name(tmp_path: Path, name: str, nearest: str) -> None:
    (tmp_path / "own.yaml").write_text("task: own_task\n")
    with pytest.raises(UnknownName, match=f"got '{name}'; did you mean '{nearest}'"):
        check_task_names([name], tmp_path)


def test_the_error_for_a_name_like_no_other_names_the_option_for_own_tasks() -> None:
    with pytest.raises(UnknownName, match=r"known: .*--include-path"):
        check_task_names(["qqqqqq"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("tune", "--task"),
        ("evaluate", "--tasks"),
        ("bench", "--task"),
        ("effects", "--adapter", "nowhere", "--tasks"),
    ],
)
def test_a_misspelt_task_fails_before_slow_imports(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    line = ["tarot", *arguments, "synth_colr", "--model", "nowhere", "--output", str(tmp_path / "output")]
    code = (
        f"import sys; sys.argv = {line!r}\nfrom tarot.cli.main import main\ntry: main()\n"
        "except SystemExit as stop: print(stop.code, {'torch', 'lm_eval', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 set()\n"
    assert done.stderr == "error: expected a known task, got 'synth_colr'; did you mean 'synth_color'?\n"
    assert not list(tmp_path.iterdir())


def test_a_pipe_among_task_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text("task: plain\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "includes.yaml").write_text("include: pipe\n")
    with pytest.raises(TarotError, match="not a regular file"):
        check_task_names(["no_such_task"], tmp_path)
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(TarotError, match=r"pipe\.yaml"):
        check_task_names(["plain"], tmp_path)
