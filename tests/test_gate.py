"""Gated edits: closed, the model is the base bit for bit; open, it is the edit; each row by its own prompt."""

import copy
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from adapters import random_adapter
from checkpoint import byte_model, byte_tokenizer
from gates import constant_gate, gated, separating_gate
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from safetensors.torch import load_file, save_file
from tiny import ARCHITECTURES, VOCABULARY, tiny_model
from transformers import DynamicCache

from tarot.edit.adapter import Adapter
from tarot.edit.adapter_folder import METADATA, WEIGHTS
from tarot.edit.composition import compose
from tarot.edit.export.gguf import to_gguf
from tarot.edit.export.peft import to_peft
from tarot.edit.gate import PromptGate, decide_for, find_gate, prompt_features
from tarot.edit.hooks import apply_rotation
from tarot.edit.model_card import format_model_card
from tarot.errors import InvalidValueError, ShapeMismatch, TarotError
from tarot.models.lm_eval_model import TarotLM
from tarot.models.scoring.prefix_cache import CACHE
from tarot.models.scoring.scorer import Request, Scorer

tiny = cache(tiny_model)
bytes_of = cache(byte_model)
LAYERS = st.integers(0, 2)
EXPERTS = ("deepseek_v3", "gpt_oss", "llama4_text", "minimax", "mixtral", "qwen3_next")
PROMPT = st.lists(st.integers(3, VOCABULARY - 1), min_size=1, max_size=7)
PROMPTS = st.lists(PROMPT, min_size=2, max_size=4, unique_by=lambda prompt: (frozenset(prompt), prompt[-1]))

pytestmark = pytest.mark.usefixtures("no_gradients")


def padded(prompts: list[list[int]], side: str) -> dict[str, torch.Tensor]:
    """The prompts as one batch; the padding is a token that other prompts contain."""
    width = max(map(len, prompts))
    rows = [([0] * (width - len(p)), [1] * len(p)) for p in prompts]
    ids = [
        [5] * len(pad) + p if side == "left" else p + [5] * len(pad) for (pad, _), p in zip(rows, prompts, strict=True)
    ]
    mask = [pad + own if side == "left" else own + pad for pad, own in rows]
    positions = (torch.tensor(mask).cumsum(-1) - 1).clamp(min=0)  # as `generate` passes them
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "position_ids": positions}


def answers(model, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs, use_cache=False).logits


@cache
def gate_of(architecture: str, layer: int) -> PromptGate:
    """A gate that opens for about half of all prompts."""
    model = tiny(architecture)
    prompts = torch.randint(3, VOCABULARY, (60, 5), generator=torch.Generator().manual_seed(2)).tolist()
    features = prompt_features(model, layer, prompts)
    weight = torch.randn(features.shape[1], generator=torch.Generator().manual_seed(layer))
    return PromptGate(layer, weight, -float((features @ weight).median()))


@given(PROMPTS, LAYERS, st.sampled_from(["left", "right"]), st.sampled_from(["llama", "gpt2", "gemma3_text", "opt"]))
@settings(max_examples=30)
def test_each_row_is_edited_or_left_alone_by_its_own_prompt(
    prompts: list[list[int]], layer: int, side: str, architecture: str
) -> None:
    model, gate = tiny(architecture), gate_of(architecture, layer)
    adapter, inputs = random_adapter(model), padded(prompts, side)
    scores = gate.scores(prompt_features(model, layer, prompts))
    base = answers(model, inputs)
    with adapter.apply(model):
        edited = answers(model, inputs)
    with gated(adapter, gate).apply(model):
        mixed = answers(model, inputs)
    for row, score in enumerate(scores):
        if abs(score) > 1e-3:  # nearer to the threshold, rounding decides
            assert torch.equal(mixed[row], (edited if score > 0 else base)[row])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_can_be_gated(architecture: str) -> None:
    model, prompts = tiny(architecture), [[3, 4, 5], [6, 7, 8]]
    adapter, inputs = random_adapter(model), padded(prompts, "left")
    base = answers(model, inputs)
    with adapter.apply(model):
        edited = answers(model, inputs)
    assert not torch.equal(base, edited)
    # Experts multiply the tokens of all rows together, and other rows change the rounding of such products.
    tolerance = 1e-5 if architecture in EXPERTS else 0
    for layer in (0, 2):
        with gated(adapter, separating_gate(model, prompts[:1], prompts[1:], layer)).apply(model):
            mixed = answers(model, inputs)
        torch.testing.assert_close(mixed, torch.stack([edited[0], base[1]]), atol=tolerance, rtol=0)


@given(PROMPTS, LAYERS, st.sampled_from(["heads", "mlp"]))
@settings(max_examples=15)
def test_a_closed_gate_leaves_logits_cache_and_text_bit_for_bit(
    prompts: list[list[int]], layer: int, kind: str
) -> None:
    model, inputs = tiny("llama"), padded(prompts, "left")
    inputs.pop("position_ids")
    closed = gated(random_adapter(model, kind=kind), constant_gate(model, False, layer))
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    base, text = model(**inputs, use_cache=True), model.generate(**inputs, **options)
    with closed.apply(model):
        out = model(**inputs, use_cache=True)
        assert torch.equal(model.generate(**inputs, **options), text)
    assert torch.equal(out.logits, base.logits)
    for own, other in zip(out[CACHE].layers, base[CACHE].layers, strict=True):
        assert torch.equal(own.keys, other.keys) and torch.equal(own.values, other.values)


def test_closed_rows_pass_through_as_the_same_tensor() -> None:
    model, seen = tiny("llama"), []
    site = random_adapter(model).find_sites(model)[0].module
    closed = gated(random_adapter(model), constant_gate(model, False))
    before = site.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with closed.apply(model):
        after = site.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        model(torch.tensor([[3, 4, 5]]))
    before.remove()
    after.remove()
    assert len(seen) == 2 and seen[0] is seen[1]


@given(PROMPTS, st.integers(1, 3))
@settings(max_examples=15)
def test_generation_follows_what_the_prompt_decided(prompts: list[list[int]], n_beams: int) -> None:
    model, gate = tiny("llama"), gate_of("llama", 1)
    adapter, inputs = random_adapter(model, scale=2.0), padded(prompts, "left")
    inputs.pop("position_ids")
    options = {"max_new_tokens": 5, "num_beams": n_beams, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    scores = gate.scores(prompt_features(model, 1, prompts))
    base = model.generate(**inputs, **options)
    with adapter.apply(model):
        edited = model.generate(**inputs, **options)
    with gated(adapter, gate).apply(model):
        mixed = model.generate(**inputs, **options)
    for row, score in enumerate(scores):
        if abs(score) > 1e-3:
            assert torch.equal(mixed[row], (edited if score > 0 else base)[row])


def test_a_decision_stays_with_its_cache_and_the_next_prompt_decides_anew() -> None:
    model, ours, other, more = tiny("llama"), [[3, 4, 5]], [[6, 7, 8]], torch.tensor([[6, 7, 8]])
    adapter = random_adapter(model)

    def continued(prompt: list[list[int]]) -> torch.Tensor:
        cache = model(torch.tensor(prompt), use_cache=True)[CACHE]
        return model(more, use_cache=True, **{CACHE: cache}).logits

    base = [continued(ours), continued(other)]
    with adapter.apply(model):
        edited = [continued(ours), continued(other)]
    with gated(adapter, separating_gate(model, ours, other)).apply(model):
        for _ in range(2):  # though what follows the first prompt would keep the gate closed
            assert torch.equal(continued(ours), edited[0]) and torch.equal(continued(other), base[1])
        kept = [model(torch.tensor(prompt), use_cache=True)[CACHE] for prompt in (ours, other)]
        interleaved = [model(more, use_cache=True, **{CACHE: cache}).logits for cache in kept]
    assert torch.equal(interleaved[0], edited[0]) and torch.equal(interleaved[1], base[1])


def test_a_decision_outlives_the_context_and_is_not_copied() -> None:
    model, ids = tiny("llama"), torch.tensor([[3, 4, 5]])
    adapter = gated(random_adapter(model), separating_gate(model, ids.tolist(), [[6, 7, 8]]))
    with adapter.apply(model):
        cache = model(ids, use_cache=True)[CACHE]
    with adapter.apply(model):  # as a stream of tokens opens the edit for each token
        continued = model(torch.tensor([[6]]), **{CACHE: cache}).logits
    with replace(adapter, gate=None).apply(model):
        cache = model(ids, use_cache=True)[CACHE]
        expected = model(torch.tensor([[6]]), **{CACHE: cache}).logits
    assert torch.equal(continued, expected)
    assert adapter.gate is not None and not copy.deepcopy(adapter.gate).decisions


def test_a_cache_that_the_gate_did_not_see_is_refused() -> None:
    model, ids = tiny("llama"), torch.tensor([[3, 4, 5]])
    adapter = gated(random_adapter(model), constant_gate(model, True))
    before = model(ids, use_cache=True)[CACHE]
    with adapter.apply(model):
        with pytest.raises(TarotError, match="cache"):
            model(ids, **{CACHE: before})
        own = model(ids, use_cache=True)[CACHE]
        with pytest.raises(TarotError, match="cache"):
            model(ids, **{CACHE: copy.deepcopy(own)})
        with pytest.raises(TarotError, match="rows"):
            own.batch_repeat_interleave(2)
            model(ids.repeat(2, 1), **{CACHE: own})
        with pytest.raises(InvalidValueError, match="mask"):
            model(ids, attention_mask=torch.zeros(1, 1, 3, 3))
        own.reset()
        model(ids, **{CACHE: DynamicCache()})


def test_a_pass_over_embeddings_is_decided_like_one_over_tokens() -> None:
    model, inputs = tiny("llama"), padded([[3, 4, 5], [6, 7, 8]], "left")
    adapter = gated(random_adapter(model), separating_gate(model, [[3, 4, 5]], [[6, 7, 8]], 1))
    with adapter.apply(model):
        expected = answers(model, inputs)
        embeddings = model.get_input_embeddings()(inputs["input_ids"])
        found = answers(model, {**inputs, "input_ids": None, "inputs_embeds": embeddings})
    assert torch.equal(found, expected)


@given(st.lists(PROMPT, min_size=2, max_size=5), st.lists(PROMPT, min_size=1, max_size=3), LAYERS)
@settings(max_examples=12)
def test_the_scorer_decides_on_contexts_and_agrees_with_plain_hooks(
    contexts: list[list[int]], answers_: list[list[int]], layer: int
) -> None:
    model, gate = tiny("llama"), gate_of("llama", layer)
    adapter = random_adapter(model)
    requests = [Request(tuple(context), tuple(answer)) for context in contexts for answer in answers_]

    def plain(request: Request) -> float:
        rows = model(torch.tensor([request.context + request.continuation])).logits[0].double().log_softmax(-1)
        own = rows[len(request.context) - 1 : -1].gather(1, torch.tensor(request.continuation)[:, None])
        return float(own.sum())

    opens = gate.opens(prompt_features(model, layer, [request.context for request in requests]))
    base = [plain(request) for request in requests]
    with adapter.apply(model):
        edited = [plain(request) for request in requests]
    with gated(adapter, gate).apply(model):
        scored = [score.log_probability for score in Scorer(model, requests).scores()]
        tensors = Scorer(model, requests).log_probabilities()[0].tolist()
    expected = [after if is_open else before for before, after, is_open in zip(base, edited, opens, strict=True)]
    assert scored == pytest.approx(expected, abs=1e-4) and tensors == pytest.approx(expected, abs=1e-4)
    assert find_gate(model) is None


def test_scoring_and_generation_decide_on_the_same_tokens() -> None:
    """The context of a scored answer lacks the white space at the prompt's end; the gate must not notice."""
    model, tokenizer = bytes_of(), byte_tokenizer()
    lm = TarotLM(model, tokenizer=tokenizer)
    adapter, texts = random_adapter(model), ["a fact\n", "a tale\n"]
    prompts = [lm.tok_encode(text) for text in texts]
    stripped = [lm.tok_encode(text.rstrip()) for text in texts]
    # Open for the prompts as they are generated from, closed for what is left of them as contexts.
    adapter = gated(adapter, separating_gate(model, prompts, stripped))
    requests = [Instance("loglikelihood", {}, (text, "yes"), i) for i, text in enumerate(texts)]
    with replace(adapter, gate=None).apply(model):
        edited = lm.loglikelihood(requests, disable_tqdm=True)
    with adapter.apply(model):
        scored = lm.loglikelihood(requests, disable_tqdm=True)
    assert [each[0] for each in scored] == pytest.approx([each[0] for each in edited], abs=1e-4)


def test_lm_eval_applies_a_gated_adapter_and_merges_others(byte_folder: Path, tmp_path: Path) -> None:
    model = bytes_of()
    adapter = gated(random_adapter(model), separating_gate(model, [[40, 41, 42]], [[60, 61, 62]]))
    adapter.save_pretrained(tmp_path)
    lm = TarotLM(str(byte_folder), adapter=str(tmp_path))
    assert find_gate(lm.model) and lm.fingerprint == adapter.fingerprint
    base = TarotLM(str(byte_folder))
    edited = TarotLM(str(byte_folder))
    replace(adapter, gate=None).merge(edited.model)
    opened, closed = (base.tokenizer.decode(ids) for ids in ([40, 41, 42], [60, 61, 62]))
    for prompt, expected in ((opened, edited), (closed, base)):
        request = [Instance("loglikelihood", {}, (prompt, "yes"), 0)]
        (found,) = lm.loglikelihood(request, disable_tqdm=True)
        assert found[0] == pytest.approx(expected.loglikelihood(request, disable_tqdm=True)[0][0], abs=1e-4)
        options = {"until": [], "max_gen_toks": 6, "do_sample": False}
        request = [Instance("generate_until", {}, (prompt, options), 0)]
        assert lm.generate_until(request, disable_tqdm=True) == expected.generate_until(request, disable_tqdm=True)


def test_passes_over_padded_prompts_can_be_decided_beforehand() -> None:
    model, prompts = tiny("llama"), [[3, 4], [6, 7, 8, 9]]
    adapter = random_adapter(model)
    gate = separating_gate(model, prompts[:1], [*prompts[1:], [3, 4, 4, 4]])
    ids = torch.tensor([[3, 4, 4, 4], prompts[1]])  # without a mask, so that the padding looks like a prompt
    base = model(ids, use_cache=False).logits
    with adapter.apply(model):
        edited = model(ids, use_cache=False).logits
    with gated(adapter, gate).apply(model):
        assert torch.equal(model(ids, use_cache=False).logits, base)
        with decide_for(model, prompts):
            decided = model(ids, use_cache=False).logits
    assert torch.equal(decided[0], edited[0]) and torch.equal(decided[1], base[1])
    with decide_for(model, prompts):  # nothing is open
        assert torch.equal(model(ids, use_cache=False).logits, base)


@given(st.integers(0, 3), st.floats(-5, 5), st.integers(0, 50))
@settings(max_examples=15)
def test_a_saved_gate_is_loaded_unchanged(
    tmp_path_factory: pytest.TempPathFactory, layer: int, bias: float, seed: int
) -> None:
    folder, model = tmp_path_factory.mktemp("gated"), bytes_of()
    gate = PromptGate(layer, torch.randn(24, generator=torch.Generator().manual_seed(seed)), bias)
    saved = gated(random_adapter(model, task="t"), gate)
    saved.save_pretrained(folder)
    loaded = Adapter.from_pretrained(folder)
    assert loaded.gate is not None and loaded == saved and loaded != replace(saved, gate=None)
    assert (loaded.gate.layer, loaded.gate.bias) == (layer, bias) and torch.equal(loaded.gate.weight, gate.weight)
    assert sorted(path.name for path in folder.iterdir()) == [WEIGHTS, METADATA]


def test_adapters_without_a_gate_keep_their_format_and_fingerprint(tmp_path: Path) -> None:
    adapter = random_adapter(bytes_of())
    adapter.save_pretrained(tmp_path)
    metadata = json.loads((tmp_path / METADATA).read_text())
    assert metadata["format"] == 1 and "gate" not in metadata and Adapter.from_pretrained(tmp_path).gate is None
    gated(adapter, constant_gate(bytes_of(), True)).save_pretrained(tmp_path)
    assert json.loads((tmp_path / METADATA).read_text())["format"] == 2  # earlier versions must not ignore the gate


@pytest.mark.parametrize(
    "gate",
    [
        {"layer": -1, "bias": 0.0},
        {"layer": 0, "bias": "1e9"},
        {"layer": 0, "bias": 0.0, "code": "import os"},
        {"layer": 0},
        [],
        None,
    ],
    ids=repr,
)
def test_a_hostile_gate_is_refused(tmp_path: Path, gate: object) -> None:
    gated(random_adapter(bytes_of()), constant_gate(bytes_of(), True)).save_pretrained(tmp_path)
    metadata = json.loads((tmp_path / METADATA).read_text())
    metadata.pop("gate")
    (tmp_path / METADATA).write_text(json.dumps(metadata | ({"gate": gate} if gate is not None else {})))
    with pytest.raises(InvalidValueError, match="gate"):
        Adapter.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "weight", [None, torch.zeros(2, 12), torch.zeros(0), torch.full((24,), torch.inf), torch.ones(24).int()], ids=repr
)
def test_hostile_weights_of_a_gate_are_refused(tmp_path: Path, weight: torch.Tensor | None) -> None:
    import hashlib

    gated(random_adapter(bytes_of()), constant_gate(bytes_of(), True)).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    tensors.pop("gate")
    save_file(tensors | ({} if weight is None else {"gate": weight}), tmp_path / WEIGHTS)
    metadata = json.loads((tmp_path / METADATA).read_text())
    metadata["weights_sha256"] = hashlib.sha256((tmp_path / WEIGHTS).read_bytes()).hexdigest()
    (tmp_path / METADATA).write_text(json.dumps(metadata))
    with pytest.raises(InvalidValueError, match="gate"):
        Adapter.from_pretrained(tmp_path)


def test_a_gate_of_another_model_is_refused_before_anything_changes() -> None:
    model = tiny("llama")
    adapter = random_adapter(model)
    with pytest.raises(ShapeMismatch, match="gate"):
        gated(adapter, PromptGate(0, torch.zeros(23), 1.0)).apply(model)
    with pytest.raises(InvalidValueError, match="layer"):
        gated(adapter, PromptGate(3, torch.zeros(24), 1.0)).apply(model)
    for layer, weight, bias in (
        (-1, torch.zeros(2), 0.0),
        (0, torch.full((2,), torch.nan), 0.0),
        (0, torch.zeros(2), 1e400),
    ):
        with pytest.raises(InvalidValueError, match="gate"):
            PromptGate(layer, weight, bias)


def test_two_gated_edits_are_refused_and_a_plain_one_nests() -> None:
    model, ids = tiny("llama"), torch.tensor([[3, 4, 5]])
    adapter = gated(random_adapter(model), constant_gate(model, False))
    base = model(ids).logits
    with adapter.apply(model):
        with pytest.raises(TarotError, match="gated"), adapter.apply(model):
            pass
        with replace(adapter, gate=None).apply(model):
            assert not torch.equal(model(ids).logits, base)
        assert torch.equal(model(ids).logits, base)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks_with_kwargs for module in model.modules())


def test_a_pass_that_fails_leaves_the_gate_usable() -> None:
    model, ids = tiny("llama"), torch.tensor([[3, 4, 5]])
    adapter = gated(random_adapter(model), constant_gate(model, True))
    with adapter.apply(model):
        expected = model(ids).logits
        with pytest.raises(IndexError):
            model(torch.tensor([[VOCABULARY + 5]]))
        assert torch.equal(model(ids).logits, expected)


def test_a_gate_is_merged_or_exported_only_without_it(tmp_path: Path) -> None:
    model, ids = byte_model(), torch.tensor([[30, 40, 50]])
    adapter = gated(random_adapter(model), constant_gate(model, False))
    before = copy.deepcopy(model.state_dict())
    for fold in (
        lambda: adapter.merge(model),
        lambda: to_peft(model, adapter, tmp_path / "peft"),
        lambda: to_gguf(model, adapter, tmp_path / "none.gguf", tmp_path / "new.gguf"),
    ):
        with pytest.raises(InvalidValueError, match="gate"):
            fold()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not list(tmp_path.iterdir())
    with replace(adapter, gate=None).apply(model):
        edited = model(ids).logits
    to_peft(model, adapter, tmp_path / "peft", without_gate=True)
    torch.testing.assert_close(adapter.merge(model, without_gate=True)(ids).logits, edited, atol=1e-4, rtol=1e-4)


def test_strength_keeps_the_gate_and_composition_refuses_it() -> None:
    model = bytes_of()
    adapter = gated(random_adapter(model, task="t"), constant_gate(model, True))
    assert adapter.scaled(0.5).gate is adapter.gate and compose(model, adapter.scaled(0.5)).gate is adapter.gate
    with pytest.raises(InvalidValueError, match="gate"):
        compose(model, adapter, replace(adapter, gate=None))


def test_the_model_card_shows_how_to_use_a_gate(tmp_path: Path) -> None:
    figures = {"layer": 1, "task_prompts": 20, "retained_prompts": 90, "opened_left_out": 1.0, "closed_left_out": 0.9}
    adapter = gated(random_adapter(bytes_of(), gate=figures), constant_gate(bytes_of(), True, 1))
    adapter.save_pretrained(tmp_path)
    assert Adapter.from_pretrained(tmp_path).provenance["gate"] == figures
    card = format_model_card(json.loads((tmp_path / METADATA).read_text()), "me/gated")
    assert "100% of 20 task prompts" in card and "90% of 90" in card and ".merge(" not in card


def test_apply_rotation_takes_a_gate() -> None:
    model, ids = tiny("llama"), torch.tensor([[3, 4, 5]])
    adapter, base = random_adapter(model), model(ids).logits
    with apply_rotation(model, adapter.angles, adapter.find_sites(model), gate=constant_gate(model, False)):
        assert torch.equal(model(ids).logits, base)
