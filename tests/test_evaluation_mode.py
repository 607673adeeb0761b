"""A user's model is evaluated without dropout and gradients to its weights, and left exactly as it was."""

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint import byte_tokenizer, write_tasks
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_model
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

import tarot
from tarot.edit.patch import restoring
from tarot.errors import TarotError
from tarot.models.evaluation_mode import evaluation_mode, in_evaluation_mode
from tarot.models.offline import quiet_transformers

TASK = "own_choice"


def user_model() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model in the middle of a training run: dropout, gradients, a hook, no KV cache; a tokenizer without padding."""
    model = tiny_model("gpt2", vocab_size=258, n_positions=1024, resid_pdrop=0.5, attn_pdrop=0.5)
    model.config.use_cache = False
    model.transformer.h[0].register_forward_hook(lambda *_: None)
    model.train()
    model.transformer.h[1].eval()
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 3 > 0)
    tokenizer = byte_tokenizer(chat=False)
    tokenizer.pad_token = None
    return model, tokenizer


def state(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[object]:
    """Everything that an evaluation could leave changed, weights as their values."""
    modules = [
        (name, module.training, dict(module._forward_hooks), dict(module._forward_pre_hooks), sorted(vars(module)))
        for name, module in model.named_modules()
    ]
    weights = [
        (id(each), each.requires_grad, each.grad, each.detach().numpy().tobytes()) for each in model.parameters()
    ]
    settings = [model.config.to_dict(), model.generation_config.to_dict(), tokenizer.pad_token, tokenizer.padding_side]
    return [modules, weights, settings]


def tuned(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> object:
    config = tarot.TaRotConfig(TASK, num_samples=4)
    adapter = tarot.tune(model, tokenizer, config, budget=7, include_path=folder)
    return adapter.provenance["scores"], adapter.angles.tolist()


def evaluated(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> object:
    results = tarot.evaluate(model, tokenizer, [TASK, "own_generate"], include_path=folder, limit=2)
    return [document["filtered_resps"] for name in results["samples"] for document in results["samples"][name]]


def compared(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> object:
    adapter = tarot.tune(model, tokenizer, tarot.TaRotConfig(TASK, num_samples=4), budget=4, include_path=folder)
    result = tarot.compare(model, tokenizer, adapter, num_fewshot=0, limit=2, include_path=folder)
    return [(arm.name, arm.gold_probability) for arm in result.arms]


@pytest.mark.parametrize("run", [tuned, evaluated, compared])
def test_a_model_in_training_is_evaluated_and_left_as_it_was(run: Callable[..., object], tmp_path: Path) -> None:
    folder = write_tasks(tmp_path)
    model, tokenizer = user_model()
    before = state(model, tokenizer)
    result = run(model, tokenizer, folder)
    assert state(model, tokenizer) == before
    model.eval().requires_grad_(False)
    assert run(model, tokenizer, folder) == result


@given(st.lists(st.booleans(), min_size=4, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4), st.booleans())
def test_every_flag_is_restored_also_after_an_error(training: list[bool], grad: list[bool], fails: bool) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2))

    def flags() -> tuple[list[bool], list[bool]]:
        return [each.training for each in model.modules()], [each.requires_grad for each in model.parameters()]

    for module, flag in zip(model.modules(), training, strict=True):
        module.training = flag
    for parameter, flag in zip(model.parameters(), grad, strict=True):
        parameter.requires_grad_(flag)
    try:
        with evaluation_mode(model):
            assert flags() == ([False] * 4, [False] * 4)
            assert not fails, "on purpose"
    except AssertionError as error:
        assert "on purpose" in str(error)
    assert flags() == (training, grad)


class Interrupted(nn.Linear):
    """A model on which Ctrl-C arrives when its gradients are switched off, or on again."""

    def requires_grad_(self, requires_grad: bool = True) -> "Interrupted":
        raise KeyboardInterrupt


def test_an_interrupt_between_two_changes_leaves_none() -> None:
    model = Interrupted(2, 2)
    with pytest.raises(KeyboardInterrupt), evaluation_mode(model):
        pass
    assert model.training and model.weight.requires_grad


def test_a_restoration_that_is_interrupted_is_repeated() -> None:
    done: list[int] = []

    def restore() -> None:
        done.append(len(done))
        if len(done) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), restoring(restore):
        pass
    assert done == [0, 1]


def test_an_interrupt_leaves_no_setting_of_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    before = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    monkeypatch.setattr(logging, "set_verbosity_error", interrupted)
    with pytest.raises(KeyboardInterrupt), quiet_transformers():
        pass
    assert logging.is_progress_bar_enabled()
    if not before:
        logging.disable_progress_bar()


def test_the_model_may_be_given_by_name() -> None:
    @in_evaluation_mode
    def runs(model: nn.Module, tokenizer: object) -> bool:
        return model.training

    model = nn.Linear(2, 2)
    assert not runs(model, None) and not runs(model, tokenizer=None) and not runs(tokenizer=None, model=model)
    assert model.training


def test_what_is_not_a_model_is_refused_in_one_line() -> None:
    with pytest.raises(TarotError, match="model"):
        tarot.evaluate("wheel:smollm2-135m", byte_tokenizer(), TASK)
    with pytest.raises(TarotError, match="tokenizer"):
        tarot.evaluate(tiny_model("llama"), "tokenizer", TASK)


def test_a_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    model = tiny_model("llama", vocab_size=258)
    model.model.layers[0].register_forward_pre_hook(lambda _, args: (args[0] + args[0].roll(-1, dims=1), *args[1:]))
    with pytest.raises(TarotError, match="causal"):
        tarot.evaluate(model, byte_tokenizer(), TASK, include_path=write_tasks(tmp_path), limit=1)
