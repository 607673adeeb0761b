"""Text scores: their summary, and the file that keeps them for each trial."""

from pathlib import Path

import pytest

from tarot.errors import TarotError
from tarot.objectives.rewards.text_scores import TextScoreLog, TextScores


def test_an_interrupted_search_scores_a_trial_again(tmp_path: Path) -> None:
    first, again = TextScores(0.5, -1.25, 0.5, 0.1), TextScores(0.25, -2.0, 1.0, 0.0, refused=True)
    log = TextScoreLog(tmp_path)
    log.add(0, first)
    log.add(1, again)
    resumed = TextScoreLog(tmp_path)
    resumed.add(1, again)  # scored, but not yet logged as a trial
    assert TextScoreLog.read(tmp_path) == {0: first, 1: again}


@pytest.mark.parametrize("content", ["{", "[]", '{"x": {}}', '{"0": {"reward": 1}}', '{"0": 1}'])
def test_a_damaged_file_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / TextScoreLog.file).write_text(content)
    with pytest.raises(TarotError, match=r"outcomes\.json are damaged"):
        TextScoreLog.read(tmp_path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TarotError, match="No such file or directory"):
        TextScoreLog.read(tmp_path)
