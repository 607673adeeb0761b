"""Layers below the first edited one: passed over from the second scoring on, to the same scores, bit for bit."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import ARCHITECTURES, LAYERS, VOCABULARY, tiny_model
from torch import Tensor

from tarot.edit.hooks import apply_rotation
from tarot.edit.sites import decoder_layers, find_sites
from tarot.models.scoring.scorer import Request, Scorer

PREFIX = tuple(range(3, 43))  # long enough to be run once and lent
REQUESTS = [Request((*PREFIX, 5, n), (7, n)) for n in range(3, 9)] + [Request((3, 4), (5,)), Request((8, 9, 10), (2,))]


def scored(scorer: Scorer) -> list[tuple[float, bool]]:
    return [tuple(score) for score in scorer.scores()]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_are_those_of_the_whole_model(architecture: str):
    """With the edit in the last layer and everything below it still, for every architecture that is known."""
    model = tiny_model(architecture)
    sites = find_sites(model, layers=[LAYERS - 1])
    n_frozen_layers = Scorer(model, REQUESTS, n_frozen_layers=LAYERS - 1)
    for seed in range(3):
        angles = torch.randn(1, sites[0].n_heads, sites[0].d_head // 2, generator=torch.Generator().manual_seed(seed))
        with apply_rotation(model, angles, sites):
            assert scored(n_frozen_layers) == scored(Scorer(model, REQUESTS))


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
def test_whatever_is_asked(parts: list[tuple[list[int], list[int]]], n_frozen_layers: int):
    model = tiny_model("llama")
    requests = [Request(PREFIX[: 40 - len(head)] + tuple(head), tuple(tail[:4])) for head, tail in parts]
    scorer = Scorer(model, requests, n_frozen_layers=n_frozen_layers)
    first = scored(scorer)
    assert first == scored(scorer) == scored(Scorer(model, requests))


def test_a_prefix_is_not_taken_for_the_batch_whose_row_numbers_are_its_tokens():
    model = tiny_model("llama")
    requests = [Request((1, 60), (2,)), *(Request((1, 0, n), (3,)) for n in range(50))]
    scorer = Scorer(model, requests, n_frozen_layers=1)
    assert scored(scorer) == scored(scorer) == scored(Scorer(model, requests))


def runs_of(model: torch.nn.Module) -> list[int]:
    counts = [0] * LAYERS
    for i, layer in enumerate(decoder_layers(model)):

        def count(module: object, args: object, i: int = i) -> None:
            counts[i] += 1

        layer.self_attn.register_forward_pre_hook(count)
    return counts


def test_lower_layers_run_for_the_first_scoring_only():
    model = tiny_model("llama")
    counts = runs_of(model)
    scorer = Scorer(model, REQUESTS, n_frozen_layers=2)
    scorer.scores()
    once = list(counts)
    scorer.scores()
    assert once[0] and counts == [once[0], once[1], 2 * once[2]]


def test_a_layer_that_does_change_is_seen_only_by_a_scorer_that_was_not_told_it_would_not():
    """What `n_frozen_layers` promises, shown to matter: the same test with the promise broken has other scores."""
    model = tiny_model("llama")
    n_frozen_layers, whole = Scorer(model, REQUESTS, n_frozen_layers=2), Scorer(model, REQUESTS)
    before = scored(n_frozen_layers)
    with torch.no_grad():
        decoder_layers(model)[0].mlp.down_proj.weight.mul_(3)
    assert scored(n_frozen_layers) == before != scored(whole)


@pytest.mark.parametrize("scored_before", [False, True])
def test_the_model_is_left_as_it_was_also_by_a_pass_that_fails(scored_before: bool):
    """In the upper layers, where memory runs out: what the lower ones made is no use without what they lent."""
    model = tiny_model("llama")
    layers = decoder_layers(model)
    scorer = Scorer(model, REQUESTS[:6], n_frozen_layers=2)
    if scored_before:
        scorer.scores()
    handle = layers[2].register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="on purpose"):
        scorer.scores()
    handle.remove()
    assert all("forward" not in vars(layer) and not layer._forward_hooks for layer in layers)
    assert scored(scorer) == scored(Scorer(model, REQUESTS[:6]))


def fail(*_: object) -> None:
    raise ValueError("on purpose")


def test_gradients_above_are_those_of_the_whole_model():
    model = tiny_model("llama")
    sites = find_sites(model, layers=[2])
    n_frozen_layers = Scorer(model, REQUESTS, n_frozen_layers=2)
    n_frozen_layers.scores()

    def gradient(scorer: Scorer) -> Tensor:
        angles = torch.full((1, sites[0].n_heads, sites[0].d_head // 2), 0.3, requires_grad=True)
        with apply_rotation(model, angles, sites):
            return torch.autograd.grad(scorer.log_probabilities()[0].sum(), angles)[0]

    assert torch.equal(gradient(n_frozen_layers), gradient(Scorer(model, REQUESTS)))
