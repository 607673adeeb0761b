"""Frozen layers are skipped from the second scoring on, and the scores are the same bit for bit."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import ARCHITECTURES, LAYERS, VOCABULARY, tiny_model
from torch import Tensor

from tarot.edit.hooks import apply_rotation
from tarot.edit.sites import decoder_layers, find_sites
from tarot.models.scoring.scorer import Request, Scorer

PREFIX = tuple(range(3, 43))  # long enough to be shared
REQUESTS = [Request((*PREFIX, 5, n), (7, n)) for n in range(3, 9)] + [Request((3, 4), (5,)), Request((8, 9, 10), (2,))]


def score(scorer: Scorer) -> list[tuple[float, bool]]:
    return [tuple(each) for each in scorer.scores()]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_those_of_all_layers(architecture: str) -> None:
    model = tiny_model(architecture)
    sites = find_sites(model, layers=[LAYERS - 1])
    scorer = Scorer(model, REQUESTS, n_frozen_layers=LAYERS - 1)
    for seed in range(3):
        angles = torch.randn(1, sites[0].n_heads, sites[0].d_head // 2, generator=torch.Generator().manual_seed(seed))
        with apply_rotation(model, angles, sites):
            assert score(scorer) == score(Scorer(model, REQUESTS))


@settings(deadline=None, derandomize=True, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 2), min_size=1, max_size=5), st.lists(st.integers(0, VOCABULARY - 1), min_size=1)
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, LAYERS - 1),
)
def test_any_requests_score_alike_with_and_without_the_cache(
    parts: list[tuple[list[int], list[int]]], n_frozen_layers: int
) -> None:
    model = tiny_model("llama")
    requests = [Request(PREFIX[: 40 - len(head)] + tuple(head), tuple(tail[:4])) for head, tail in parts]
    scorer = Scorer(model, requests, n_frozen_layers=n_frozen_layers)
    first = score(scorer)
    assert first == score(scorer) == score(Scorer(model, requests))


def test_a_prefix_is_not_confused_with_a_batch_of_equal_row_numbers() -> None:
    model = tiny_model("llama")
    requests = [Request((1, 60), (2,)), *(Request((1, 0, n), (3,)) for n in range(50))]
    scorer = Scorer(model, requests, n_frozen_layers=1)
    assert score(scorer) == score(scorer) == score(Scorer(model, requests))


def count_runs(model: torch.nn.Module) -> list[int]:
    """Return how often each layer has run, which keeps counting."""
    counts = [0] * LAYERS
    for i, layer in enumerate(decoder_layers(model)):

        def count(module: object, args: object, i: int = i) -> None:
            counts[i] += 1

        layer.self_attn.register_forward_pre_hook(count)
    return counts


def test_frozen_layers_run_for_the_first_scoring_only() -> None:
    model = tiny_model("llama")
    counts = count_runs(model)
    scorer = Scorer(model, REQUESTS, n_frozen_layers=2)
    scorer.scores()
    once = list(counts)
    scorer.scores()
    assert once[0] and counts == [once[0], once[1], 2 * once[2]]


def test_a_change_below_is_seen_only_without_frozen_layers() -> None:
    """The cache is really used: breaking the promise that frozen layers do not change gives stale scores."""
    model = tiny_model("llama")
    cached, full = Scorer(model, REQUESTS, n_frozen_layers=2), Scorer(model, REQUESTS)
    before = score(cached)
    with torch.no_grad():
        decoder_layers(model)[0].mlp.down_proj.weight.mul_(3)
    assert score(cached) == before != score(full)


@pytest.mark.parametrize("cached", [False, True])
def test_a_pass_that_fails_leaves_the_model_as_it_was(cached: bool) -> None:
    """A failure above the frozen layers, such as a lack of memory, keeps nothing of the pass."""
    model = tiny_model("llama")
    layers = decoder_layers(model)
    scorer = Scorer(model, REQUESTS[:6], n_frozen_layers=2)
    if cached:
        scorer.scores()
    handle = layers[2].register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="on purpose"):
        scorer.scores()
    handle.remove()
    assert all("forward" not in vars(layer) and not layer._forward_hooks for layer in layers)
    assert score(scorer) == score(Scorer(model, REQUESTS[:6]))


def fail(*_: object) -> None:
    raise ValueError("on purpose")


def test_gradients_are_those_of_all_layers() -> None:
    model = tiny_model("llama")
    sites = find_sites(model, layers=[2])
    cached = Scorer(model, REQUESTS, n_frozen_layers=2)
    cached.scores()

    def gradient(scorer: Scorer) -> Tensor:
        angles = torch.full((1, sites[0].n_heads, sites[0].d_head // 2), 0.3, requires_grad=True)
        with apply_rotation(model, angles, sites):
            return torch.autograd.grad(scorer.log_probabilities()[0].sum(), angles)[0]

    assert torch.equal(gradient(cached), gradient(Scorer(model, REQUESTS)))
