"""The folder of a search: which folders are free, and which process may write."""

from pathlib import Path

import pytest

from tarot._files.lock import hold_lock
from tarot.edit.adapter_folder import METADATA
from tarot.errors import TarotError
from tarot.objectives.objective import Evaluation
from tarot.objectives.rewards.text_scores import TextScoreLog, TextScores
from tarot.search.folder import LOCK, TRIALS, check_free, open_logs, read_curve, read_trials
from tarot.search.trials import Trial

IDENTITY = Trial(0, (0.5,), -1.0, "identity", 0.0, 0.0)


@pytest.mark.parametrize("resume", [False, True])
def test_missing_and_empty_folders_are_free(tmp_path: Path, resume: bool) -> None:
    check_free(tmp_path / "new", resume=resume)
    (tmp_path / LOCK).touch()
    check_free(tmp_path, resume=resume)
    assert not (tmp_path / "new").exists()


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TarotError, match="folder"):
        check_free(tmp_path / "file", resume=False)


@pytest.mark.parametrize(
    ("names", "resume", "keyword"),
    [
        (["notes.txt"], False, "files in it"),
        (["notes.txt"], True, "files in it"),
        ([TRIALS, METADATA], False, "--resume"),
        # Such an adapter was composed, pruned or imported: it has no search to resume.
        ([METADATA], True, METADATA),
    ],
)
def test_folders_with_files_are_not_free(tmp_path: Path, names: list[str], resume: bool, keyword: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(TarotError, match=keyword):
        check_free(tmp_path, resume=resume)


def test_trials_can_be_resumed(tmp_path: Path) -> None:
    (tmp_path / TRIALS).touch()
    check_free(tmp_path, resume=True)


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    with (
        hold_lock(tmp_path / LOCK),
        pytest.raises(TarotError, match="nother process"),
        open_logs(tmp_path, {}, resume=True, with_texts=False),
    ):
        pass


def test_logs_without_a_folder_keep_nothing() -> None:
    with open_logs(None, {}, resume=False, with_texts=True) as logs:
        assert (logs.logged_trials, logs.trials, logs.texts) == ((), None, None)
        assert logs.keep_texts(Evaluation(0.25, None, 0.125)) == (0.25, 0.125)


def test_text_scores_are_kept_beside_the_trial_they_belong_to(tmp_path: Path) -> None:
    texts = TextScores(0.5, -2.0, 1.0, 0.0)
    with open_logs(tmp_path / "new", {}, resume=False, with_texts=True) as logs:
        assert logs.trials and logs.texts
        logs.trials.append(IDENTITY)
        assert logs.keep_texts(Evaluation(texts.score, texts)) == (0.5, 0.0)
        assert logs.texts.entries == {1: texts}
    assert (tmp_path / "new" / TextScoreLog.file).exists()


def test_a_curve_repeats_a_trial_as_often_as_it_counts(tmp_path: Path) -> None:
    with open_logs(tmp_path, {}, resume=False, with_texts=False) as logs:
        assert logs.trials
        logs.trials.append(IDENTITY)
    assert read_trials(tmp_path) == [IDENTITY]
    assert read_curve(tmp_path, "random") == [-1.0]
    assert read_curve(tmp_path, "adam") == [-1.0, -1.0, -1.0]
