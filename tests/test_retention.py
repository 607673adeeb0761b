"""The retention term: against a slow oracle over the whole vocabulary, and against finite differences."""

import math
from functools import cache

import pytest
import torch
from checkpoint import byte_model
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_model

from tarot.edit.hooks import apply_rotation
from tarot.edit.sites import find_sites
from tarot.errors import TarotError
from tarot.models.scoring.scorer import Request
from tarot.objectives.retention import RetentionTerm

model_of_bytes = cache(byte_model)
CONTEXTS = [
    Request((3, 4, 5), (6, 7)),
    Request((3, 4, 5, 9, 10), (6,)),
    Request((8,), tuple(range(20, 31))),
    Request((3, 4, 5), (6, 8, 40)),
]
N_VOCABULARY = 258


def draw_angles(seed: int, scale: float = 0.3) -> torch.Tensor:
    return scale * torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))


def sites():
    return find_sites(model_of_bytes(), "heads", 0.5)


def log_probabilities(context: Request) -> torch.Tensor:
    """Log-probabilities of a context's continuation in double precision, one pass a context."""
    logits = model_of_bytes()(torch.tensor([context.context + context.continuation])).logits[0]
    return logits[len(context.context) - 1 : -1].double().log_softmax(-1)


@torch.no_grad()
def oracle(angles: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Log-probabilities of each context without and with the edit."""
    base = [log_probabilities(context) for context in CONTEXTS]
    with apply_rotation(model_of_bytes(), angles, sites()):
        return [(p, log_probabilities(context)) for p, context in zip(base, CONTEXTS, strict=True)]


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p.exp() * (p - q)).sum(-1)


@given(st.integers(0, 1000), st.lists(st.floats(0.1, 5), min_size=4, max_size=4))
@settings(max_examples=15)
def test_agrees_with_the_oracle(seed: int, weights: list[float]) -> None:
    angles = draw_angles(seed)
    expected = torch.stack([kl(p, q).mean() for p, q in oracle(angles)])
    term = RetentionTerm(model_of_bytes(), CONTEXTS, weights=weights, top_k=N_VOCABULARY)
    with apply_rotation(model_of_bytes(), angles, sites()):
        assert torch.allclose(term.kl_of_contexts().double(), expected, atol=1e-5)
    shares = torch.tensor(weights, dtype=torch.float64)
    assert term.value_and_grad(angles, sites())[0] == pytest.approx(float(expected @ shares / shares.sum()), abs=1e-5)


@given(st.integers(0, 1000), st.sampled_from([1, 5, 40, 200]))
@settings(max_examples=15)
def test_buckets_give_a_lower_bound_with_a_known_error(seed: int, top_k: int) -> None:
    """The error is the mass of the rest times the divergence within the rest."""
    angles = draw_angles(seed)
    term = RetentionTerm(model_of_bytes(), CONTEXTS, top_k=top_k)
    with apply_rotation(model_of_bytes(), angles, sites()):
        measured = term.kl_of_contexts()
    for value, (p, q) in zip(measured, oracle(angles), strict=True):
        rest = torch.ones_like(p, dtype=torch.bool).scatter(1, p.topk(top_k).indices, False)
        log_p, log_q = (x.masked_fill(~rest, -torch.inf).logsumexp(-1, keepdim=True) for x in (p, q))
        within = ((p - log_p).exp() * (p - log_p - q + log_q)).where(rest, 0.0).sum(-1)
        error = (log_p[:, 0].exp() * within).mean()
        assert error >= 0
        assert float(value) + float(error) == pytest.approx(float(kl(p, q).mean()), abs=1e-5)


@pytest.mark.parametrize("top_k", [20, N_VOCABULARY])
def test_gradient_agrees_with_finite_differences(top_k: int) -> None:
    term, angles = RetentionTerm(model_of_bytes(), CONTEXTS, top_k=top_k), draw_angles(1)
    _, gradient = term.value_and_grad(angles, sites())
    for seed in range(3):
        step = draw_angles(10 + seed, 0.01)
        ends = [term.value_and_grad(angles + sign * step, sites())[0] for sign in (1, -1)]
        assert float((gradient * step).sum()) == pytest.approx((ends[0] - ends[1]) / 2, rel=0.02, abs=2e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2"])
def test_is_zero_at_the_identity(architecture: str) -> None:
    model = tiny_model(architecture)
    found = find_sites(model, "heads", [1])
    term = RetentionTerm(model, CONTEXTS, n_frozen_layers=1, top_k=7)
    assert term.kl() == 0.0
    value, gradient = term.value_and_grad(torch.zeros(1, found[0].n_heads, found[0].d_head // 2), found)
    assert value == 0.0
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("batch_size", [1, 2, None])
@pytest.mark.parametrize("n_frozen_layers", [0, 1])
def test_batches_and_frozen_layers_change_nothing(batch_size: int | None, n_frozen_layers: int) -> None:
    model = model_of_bytes()
    upper = find_sites(model, "heads", [1, 3])
    expected = RetentionTerm(model, CONTEXTS, batch_size=3).value_and_grad(draw_angles(2), upper)
    term = RetentionTerm(model, CONTEXTS, batch_size=batch_size, n_frozen_layers=n_frozen_layers)
    for _ in range(2):  # the second time the frozen layers are skipped
        value, gradient = term.value_and_grad(draw_angles(2), upper)
        assert value == pytest.approx(expected[0], abs=1e-6)
        assert torch.allclose(gradient, expected[1], atol=1e-5)


@pytest.mark.parametrize("shared", [(), tuple(range(3, 203))])
def test_gradients_of_weights_are_those_of_one_context_at_a_time(shared: tuple[int, ...]) -> None:
    """Also where passes share a prefix, and with it a part of the graph."""
    model = byte_model()
    weights = [parameter for name, parameter in model.named_parameters() if "v_proj" in name]
    model.requires_grad_(False)
    contexts = [Request((*shared, token), (token, 5)) for token in range(20, 24)]
    terms = [RetentionTerm(model, part, batch_size=2) for part in (contexts, *([context] for context in contexts))]
    generator = torch.Generator().manual_seed(0)
    for weight in weights:
        weight.requires_grad_().data += 0.3 * torch.randn(weight.shape, generator=generator)
    values, gradients = [], []
    for term in terms:
        model.zero_grad()
        values.append(term.backward())
        gradients.append(torch.cat([weight.grad.flatten() for weight in weights]))
    assert values[0] == pytest.approx(sum(values[1:]) / 4, rel=1e-5) and values[0] > 0
    torch.testing.assert_close(gradients[0], sum(gradients[1:]) / 4, rtol=1e-3, atol=1e-6)


def test_long_prefixes_are_shared() -> None:
    shared = tuple(range(3, 203))
    contexts = [Request((*shared, token), (token, 5)) for token in range(20, 24)]
    term = RetentionTerm(model_of_bytes(), contexts)
    assert term.tokens < 300
    one_by_one = [
        RetentionTerm(model_of_bytes(), [context]).value_and_grad(draw_angles(3), sites()) for context in contexts
    ]
    value, gradient = term.value_and_grad(draw_angles(3), sites())
    assert value == pytest.approx(sum(each for each, _ in one_by_one) / 4, rel=1e-5)
    assert torch.allclose(gradient, torch.stack([each for _, each in one_by_one]).mean(0), atol=1e-5)


def test_a_model_without_numbers_has_no_divergence() -> None:
    """NaN must not count as 0, which every limit allows."""
    model = byte_model()
    term = RetentionTerm(model, CONTEXTS)
    with torch.no_grad():
        next(model.parameters()).requires_grad_().fill_(torch.nan)
    assert math.isnan(term.kl())
    assert math.isnan(term.value_and_grad(draw_angles(0), find_sites(model, "heads"))[0])
    assert math.isnan(term.backward())


def test_mass_of_the_rest() -> None:
    assert RetentionTerm(model_of_bytes(), CONTEXTS, top_k=N_VOCABULARY).rest == 0.0
    masses = [RetentionTerm(model_of_bytes(), CONTEXTS, top_k=k).rest for k in (1, 10, 100)]
    assert 1 > masses[0] > masses[1] > masses[2] > 0


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 3.0, 0.0]])
def test_weights_must_fit(weights: list[float]) -> None:
    with pytest.raises(TarotError, match="weight"):
        RetentionTerm(model_of_bytes(), CONTEXTS, weights=weights)


def test_needs_contexts() -> None:
    with pytest.raises(TarotError, match="context"):
        RetentionTerm(model_of_bytes(), [])
