"""Models whose rotary embeddings depend on the length of a pass: scores equal those of one pass for each text."""

import math
from collections.abc import Callable
from copy import deepcopy
from functools import cache

import pytest
import torch
from checkpoint import byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from test_scorer import plain
from tiny import VOCABULARY, tiny_model, tokens
from transformers import PreTrainedModel

from tarot.analysis.attention import attention_weights
from tarot.analysis.divergence import measure_divergence
from tarot.analysis.next_tokens import next_log_probabilities
from tarot.edit.adapter import Adapter, Edit
from tarot.edit.gate import prompt_features
from tarot.edit.hooks import apply_rotation
from tarot.edit.rope import constant_rope_length, initial_rope, pass_group
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.models.generation.text_stream import TextStream
from tarot.models.lm_eval_model import TarotLM
from tarot.models.scoring.scorer import Request, Scorer

SWITCH = 12
SHORT, LONG = [1.0] * 4, [4.0, 8.0, 16.0, 32.0]
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": SHORT,
    "long_factor": LONG,
    "original_max_position_embeddings": SWITCH,
    "factor": 4.0,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 16.0}
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}


def longrope(architecture: str, factors: int = 4, **config: object) -> PreTrainedModel:
    rope = LONGROPE | {"short_factor": SHORT[:factors], "long_factor": LONG[:factors]}
    return tiny_model(architecture, rope_parameters=rope, **config)


def per_layer_type(rope: dict[str, object], other: dict[str, object] = DEFAULT, **config: object) -> PreTrainedModel:
    parameters = {"full_attention": rope, "sliding_attention": other}
    return tiny_model("gemma3_text", rope_parameters=parameters, **config)


def extend_context(model: PreTrainedModel) -> PreTrainedModel:
    """Extend the context of a model with few tokens, since dynamic scaling applies beyond it only."""
    model.model.rotary_emb.config = deepcopy(model.config)
    model.config.max_position_embeddings = 64
    return model


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: longrope("llama"),
    "phi3": lambda: longrope("phi3", 3, original_max_position_embeddings=SWITCH),
    "layer types": lambda: per_layer_type(LONGROPE),
    "two layer types": lambda: per_layer_type(LONGROPE, LONGROPE | {"original_max_position_embeddings": SWITCH + 3}),
    "dynamic": lambda: extend_context(tiny_model("llama", rope_parameters=DYNAMIC, max_position_embeddings=SWITCH)),
    "dynamic layer types": lambda: extend_context(per_layer_type(DYNAMIC, max_position_embeddings=SWITCH)),
    "temperature by position": lambda: tiny_model(
        "llama4_text", attn_temperature_tuning=True, floor_scale=3, attn_scale=0.5, no_rope_layers=[0, 1, 0]
    ),
}
tiny = cache(lambda name: MODELS[name]())
TOKENS = st.integers(3, VOCABULARY - 1)


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    """Requests around the switch: a shared text, contexts of many lengths, answers that are prefixes of others."""
    shared = draw(st.integers(1, SWITCH + 4)) * (7,)
    made = []
    for own in draw(st.lists(st.lists(TOKENS, max_size=8).map(tuple), min_size=1, max_size=4)):
        answer = draw(st.lists(TOKENS, min_size=1, max_size=5).map(tuple))
        made += [Request(shared + own, answer[: draw(st.integers(1, len(answer)))]), Request(shared + own, answer)]
    return made


def score_alone(model: PreTrainedModel, request: Request) -> float:
    with initial_rope(model):
        return plain(model, request).log_probability


@pytest.fixture(autouse=True)
def _cheap_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tarot.models.scoring.scorer.PASS_COST_TOKENS", {"cpu": 0})


@pytest.mark.parametrize("name", MODELS)
@given(made=requests(), n_frozen_layers=st.integers(0, 2))
@settings(max_examples=8)
def test_other_requests_change_no_score(name: str, made: list[Request], n_frozen_layers: int) -> None:
    model = tiny(name)
    expected = pytest.approx([score_alone(model, request) for request in made], abs=1e-4)
    scorer = Scorer(model, made, n_frozen_layers=n_frozen_layers)
    for _ in range(2):  # the second scoring reuses what the frozen layers made
        assert [score.log_probability for score in scorer.scores()] == expected


@pytest.mark.parametrize("name", MODELS)
def test_the_embedding_depends_on_the_length(name: str) -> None:
    """The models of the test above really switch."""
    if name == "temperature by position":
        assert math.isinf(constant_rope_length(tiny(name)))
        return
    model, ids = tiny(name), tokens(1, SWITCH + 8)
    assert constant_rope_length(model) == SWITCH
    with torch.no_grad(), initial_rope(model):
        short, long = (model(input_ids=ids[:, :n], use_cache=False).logits[0, :4] for n in (SWITCH, SWITCH + 8))
    assert (short - long).abs().max() > 1e-3


def test_a_pass_equals_that_of_a_newly_loaded_model() -> None:
    model, fresh = tiny("dynamic"), MODELS["dynamic"]()
    ids = tokens(1, SWITCH + 8)
    with torch.no_grad():
        expected = fresh(input_ids=ids[:, :SWITCH], use_cache=False).logits
        fresh(input_ids=ids, use_cache=False)
        assert not torch.equal(fresh(input_ids=ids[:, :SWITCH], use_cache=False).logits, expected)
        model(input_ids=ids, use_cache=False)
        with initial_rope(model):
            assert torch.equal(model(input_ids=ids[:, :SWITCH], use_cache=False).logits, expected)


def next_tokens(model: PreTrainedModel, prompt: list[int]) -> object:
    return next_log_probabilities(model, [prompt]).tolist()


def divergence(model: PreTrainedModel, prompt: list[int]) -> object:
    sites = find_sites(model, layers=[0])
    edit = Edit.from_sites(model, "heads", sites, ROTARY)
    return measure_divergence(model, [Adapter(torch.full((1, 6, 4), 0.3), edit, {})], torch.tensor([prompt]))


def attention(model: PreTrainedModel, prompt: list[int]) -> object:
    return [layer.tolist() for layer in attention_weights(model, prompt)]


def stream(model: PreTrainedModel, prompt: list[int]) -> object:
    """The first of two streams has already written when the second one begins, as base and edited model do."""
    streams = [TextStream(model, byte_tokenizer(), prompt, max_new_tokens=20) for _ in range(2)]
    texts = []
    for each in streams:
        while not each.is_finished:
            each.advance()
        texts.append(each.tokens)
    return texts


def generation(model: PreTrainedModel, prompt: list[int]) -> object:
    lm = TarotLM(model, tokenizer=byte_tokenizer())
    options = {"until": [], "max_gen_toks": 8, "do_sample": False}
    return lm.generate_until([Instance("generate_until", {}, ("p" * len(prompt), options), 0)], disable_tqdm=True)


def dynamic_bytes() -> PreTrainedModel:
    """A model whose texts depend on its frequencies."""
    rope = DYNAMIC | {"factor": 64.0}
    model = tiny_model("llama", rope_parameters=rope, vocab_size=258, max_position_embeddings=SWITCH, eos_token_id=None)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.6)
    return extend_context(model)


@pytest.mark.parametrize("measure", [next_tokens, divergence, attention, stream, generation])
def test_an_earlier_longer_pass_changes_nothing(measure: Callable[[PreTrainedModel, list[int]], object]) -> None:
    model, prompt = dynamic_bytes(), tokens(1, SWITCH + 2)[0].tolist()
    expected = measure(model, prompt)
    with torch.no_grad():
        model(input_ids=tokens(1, 60), use_cache=False)
    assert measure(model, prompt) == expected


def test_two_streams_write_the_same() -> None:
    first, second = stream(dynamic_bytes(), tokens(1, SWITCH + 2)[0].tolist())
    assert first == second


def test_prefixes_are_shared_below_the_switch_only() -> None:
    def tokens_run(own: int, model: PreTrainedModel) -> int:
        return Scorer(model, [Request((*range(3, 11), *(20 + i,) * own), (5,)) for i in range(5)]).tokens

    model = tiny("llama")
    assert tokens_run(2, model) == 8 + 5 * 2
    assert tokens_run(8, model) == 5 * (8 + 8 + 1)
    assert tokens_run(8, tiny_model("llama")) == 8 + 5 * 8


def test_gradients_are_those_of_separate_passes() -> None:
    model = tiny("llama")
    made = [Request(tuple(range(3, 3 + n)), (5, 6)) for n in (8, SWITCH - 2, SWITCH - 1, SWITCH + 6)]
    sites = find_sites(model, layers=[2])

    def gradient(*scorers: Scorer) -> torch.Tensor:
        angles = torch.full((1, sites[0].n_heads, sites[0].d_head // 2), 0.3, requires_grad=True)
        with apply_rotation(model, angles, sites):
            return torch.autograd.grad(sum(each.log_probabilities()[0].sum() for each in scorers), angles)[0]

    separate = gradient(*(Scorer(model, [request]) for request in made))
    assert torch.allclose(gradient(Scorer(model, made)), separate, atol=1e-5)


def test_batches_of_prompts_are_not_padded_beyond_the_switch() -> None:
    model = tiny("llama")
    prompts = [list(range(3, 3 + n)) for n in (SWITCH - 2, SWITCH - 1, SWITCH + 1, SWITCH + 5)]
    together = next_log_probabilities(model, prompts)
    separate = torch.cat([next_log_probabilities(model, [prompt]) for prompt in prompts])
    assert torch.allclose(together, separate, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_gate_sees_a_prompt_whatever_it_sees_beside_and_before(name: str) -> None:
    model = tiny(name)
    prompts = [list(range(3, 3 + n)) for n in (SWITCH + 5, SWITCH - 2, SWITCH + 1, SWITCH - 1, SWITCH + 5)]
    with initial_rope(model), torch.no_grad():
        separate = torch.cat([prompt_features(model, 1, [prompt]) for prompt in prompts])
        model(input_ids=tokens(1, SWITCH + 8))  # dynamic frequencies stay those of the longest pass so far
        assert torch.allclose(prompt_features(model, 1, prompts), separate, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "constant"),
    [
        ({"rope_scaling": {"type": "su", "long_factor": [2.0]}, "original_max_position_embeddings": 9}, 9),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 99}, 99),
        ({"rope_parameters": {"rope_type": "longrope"}}, 0),
        ({"rope_parameters": {"rope_type": "yarn", "long_mscale": 1.2, "original_max_position_embeddings": 7}}, 7),
        ({"text_config": {"rope_parameters": {"full_attention": DYNAMIC}, "max_position_embeddings": 8}}, 8),
        ({"text_configs": [{"rope_parameters": LONGROPE}]}, SWITCH),
        ({"rope_parameters": {"rope_type": "llama3", "original_max_position_embeddings": 8}}, math.inf),
        ({"rope_parameters": None, "rope_theta": 1e4, "quantization_config": {"type": "dynamic"}}, math.inf),
    ],
)
def test_every_part_of_a_configuration_is_read(config: dict[str, object], constant: float) -> None:
    class Configuration:
        def to_dict(self) -> dict[str, object]:
            return config

    model = torch.nn.Module()
    model.config = Configuration()
    assert constant_rope_length(model) == constant


@given(st.integers(1, 99), st.integers(1, 99), st.integers(0, 99) | st.just(math.inf))
def test_a_group_holds_one_length_or_lengths_below_the_switch(one: int, other: int, constant: float) -> None:
    together = pass_group(one, constant) == pass_group(other, constant)
    assert together == (one == other or max(one, other) <= constant)
