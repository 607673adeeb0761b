"""Reading figures of a folder."""

import pytest

from tarot.errors import TarotError
from tarot.report.figures.pictures import read_pictures


def test_a_folder_without_figures_is_an_error(tmp_path):
    with pytest.raises(TarotError) as error:
        read_pictures(tmp_path)
    hint = "run tarot analysis or tarot effects first"
    assert str(error.value) == f"expected a folder with SVG files, got {tmp_path}; {hint}"
