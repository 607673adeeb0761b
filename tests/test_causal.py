"""The causality check passes every causal architecture and refuses every model that looks ahead."""

from typing import Any

import pytest
import torch
from tiny import ARCHITECTURES, tiny_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    ElectraConfig,
    ElectraForCausalLM,
    LlamaForCausalLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    XLMConfig,
    XLMWithLMHeadModel,
)

from tarot.errors import TarotError
from tarot.models.causal import check_causal

_SIZES: dict[str, Any] = dict(
    vocab_size=61, hidden_size=24, intermediate_size=28, num_hidden_layers=2, num_attention_heads=2
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_causal_architectures_pass(architecture: str) -> None:
    check_causal(tiny_model(architecture))


def prefix_model() -> PreTrainedModel:
    """A llama whose first layer sees one token ahead, which no setting states."""
    model = tiny_model("llama")
    assert isinstance(model, LlamaForCausalLM)
    model.model.layers[0].register_forward_pre_hook(lambda _, args: (args[0] + args[0].roll(-1, dims=1), *args[1:]))
    return model


def block_model(size: int) -> PreTrainedModel:
    """Return a model whose tokens see the next one of their own block."""
    model = tiny_model("llama")

    def look(_: object, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        sees = torch.arange(1, args[0].shape[1] + 1) % size != 0
        return (args[0] + args[0].roll(-1, dims=1) * sees[:, None], *args[1:])

    model.model.layers[0].register_forward_pre_hook(look)
    return model


def encoder_decoder() -> PreTrainedModel:
    return T5ForConditionalGeneration(T5Config(vocab_size=61, d_model=24, d_kv=8, d_ff=28, num_layers=1, num_heads=2))


def with_setting(architecture: str, name: str, value: object) -> PreTrainedModel:
    model = tiny_model(architecture)
    setattr(model.config, name, value)
    return model


@pytest.mark.parametrize(
    "build",
    [
        lambda: BertLMHeadModel(BertConfig(**_SIZES)),
        lambda: RobertaForCausalLM(RobertaConfig(**_SIZES)),
        lambda: ElectraForCausalLM(ElectraConfig(embedding_size=24, **_SIZES)),
        lambda: XLMWithLMHeadModel(XLMConfig(vocab_size=61, emb_dim=24, n_layers=2, n_heads=2)),
        lambda: with_setting("gemma3_text", "use_bidirectional_attention", True),
        lambda: with_setting("llama", "is_causal", False),
        encoder_decoder,
        prefix_model,
    ],
    ids=["bert", "roberta", "electra", "xlm", "bidirectional gemma", "is_causal", "t5", "prefix"],
)
def test_models_that_look_ahead_are_refused(build: Any) -> None:
    with pytest.raises(TarotError, match="causal"):
        check_causal(build().eval())


@pytest.mark.parametrize("size", range(2, 13))
def test_a_model_that_looks_ahead_within_blocks_is_refused(size: int) -> None:
    with pytest.raises(TarotError, match="a later token changes"):
        check_causal(block_model(size))


def test_an_encoder_used_as_a_decoder_passes() -> None:
    check_causal(BertLMHeadModel(BertConfig(is_decoder=True, **_SIZES)))


def test_the_check_leaves_every_modules_mode_as_it_was() -> None:
    model = tiny_model("llama").train()
    model.lm_head.eval()
    before = [module.training for module in model.modules()]
    check_causal(model)
    assert [module.training for module in model.modules()] == before


def test_a_model_is_run_once() -> None:
    model, other = tiny_model("llama"), tiny_model("llama")
    runs: list[object] = []
    for each in (model, other):
        each.register_forward_pre_hook(lambda module, _: runs.append(module))
    for each in (model, model, other, model):
        check_causal(each)
    assert runs == [model, other]


def test_a_setting_changed_after_the_check_counts() -> None:
    model = tiny_model("llama")
    check_causal(model)
    model.config.is_causal = False
    with pytest.raises(TarotError, match="is_causal"):
        check_causal(model)


def test_a_setting_of_an_inner_text_model_counts() -> None:
    config = AutoConfig.for_model("gemma3", text_config={"use_bidirectional_attention": True, **_SIZES, "head_dim": 12})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(TarotError, match="use_bidirectional_attention"):
        check_causal(model)
