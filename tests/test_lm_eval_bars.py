"""lm-eval's bars become steps inside the context, and are as before outside."""

import pytest
from lm_eval.api import task
from lm_eval.models import huggingface

import tarot
from tarot.models import lm_eval_model
from tarot.models.lm_eval_bars import STEPS, bars_as_steps
from tarot.models.loaded_model import LoadedModel

MODULES = (task, huggingface, lm_eval_model)


@pytest.mark.parametrize(("name", "last"), [("synth_color", "scoring answers"), ("openings", "generating texts")])
def test_every_bar_is_a_step(loaded: LoadedModel, capsys: pytest.CaptureFixture[str], name: str, last: str) -> None:
    steps: list[tuple[str, int, int]] = []
    before = [module.tqdm for module in MODULES]
    with bars_as_steps(lambda *step: steps.append(step)):
        tarot.evaluate(loaded.model, loaded.tokenizer, name, limit=2)
    assert [module.tqdm for module in MODULES] == before
    assert {step for step, _, _ in steps} <= set(STEPS.values()) and steps[-1][0] == last
    assert all(0 <= done <= total for _, done, total in steps) and steps[-1][1] == steps[-1][2]
    assert "%" not in capsys.readouterr().err


def test_an_error_puts_the_bars_back() -> None:
    before = [module.tqdm for module in MODULES]
    with pytest.raises(ZeroDivisionError), bars_as_steps(lambda *step: None):
        raise ZeroDivisionError
    assert [module.tqdm for module in MODULES] == before
