"""The study of retention: what it declares, and how its records are summarised."""

import argparse
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.study import grid
from benchmarks.study.retention import ARMS, BASE, OTHERS, cells, parse_names, summarize, todo
from benchmarks.study.rounding import FORMATS, RoundedWeights, round_weight
from tarot.search.config import TaRotConfig


def test_every_arm_is_a_configuration_and_every_record_has_a_file_of_its_own() -> None:
    for settings, strength in ARMS.values():
        assert TaRotConfig("tarot_color", **settings).search == "adam" and 0 < strength <= 1
    names = [name for name, _, _ in todo(cells(grid.SEEDS, grid.SHOTS), list(ARMS))]
    n_cells = len(grid.MODELS) * len(grid.TASKS) * len(grid.SHOTS)
    assert len(set(names)) == len(names) == n_cells * (1 + len(grid.SEEDS) * len(ARMS))
    (chosen,) = cells((0,), (0,), ["qwen0.5b"], ["color"])
    assert [name for name, _, _ in todo([chosen], ["default"])] == [
        "qwen0.5b-color-0-base",
        "qwen0.5b-color-0-0-default",
    ]


def test_names_of_arms_models_and_tasks_are_checked() -> None:
    assert parse_names(ARMS)("default,named") == ["default", "named"]
    with pytest.raises(argparse.ArgumentTypeError, match="unknown name 'defualt'; choose from no limit, default"):
        parse_names(ARMS)("default,defualt")


def record(greedy: dict[str, list[int]], **values: Any) -> dict[str, Any]:
    tasks = {name: {"gold": [0, 1, 0, 1], "greedy": greedy.get(name, [0, 0, 0, 0])} for name in OTHERS}
    return {"task": "color", "kl": {"value": 0.02}, "perplexity_ratio": 1.01, "tasks": tasks, **values}


def test_summary_of_a_record() -> None:
    edited = record({"tarot_color": [0, 1, 0, 1], "synth_color": [0, 0, 0, -1]}, arm="default")
    summary = summarize(edited, record({}, arm=BASE))
    assert summary["gain"] == pytest.approx(2 / 3)
    assert summary["agreement"]["synth_color"] == 0.75
    assert "tarot_color" not in summary["agreement"]
    assert summary["changes"]["synth_navigate"] == 0
    assert (summary["kl"], summary["perplexity_ratio"]) == (0.02, 1.01)


@pytest.mark.parametrize("kind", FORMATS)
def test_weights_are_rounded_while_the_context_is_open(kind: str) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with RoundedWeights(model, kind).apply(model):
        changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed and all(name.endswith("proj.weight") for name in changed)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_bfloat16_rounds_as_torch_does() -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(round_weight(weight, FORMATS["bfloat16"]), weight.bfloat16().float())
