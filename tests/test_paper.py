"""The paper's surrogate in the basis of the trials' span, and the direction of its proposals."""

from statistics import mean

import pytest
import torch
from botorch.models.kernels import InfiniteWidthBNNKernel
from botorch.models.transforms import Normalize
from gpytorch.kernels import RBFKernel
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.study.published_search import Published
from tarot.search.algorithms.acquisition import fit_gaussian_process, make_gaussian_process
from tarot.search.algorithms.paper import TrialSpan
from tarot.search.algorithms.registry import SEARCHES
from tarot.search.loop import run_search


@settings(deadline=None, derandomize=True)
@given(n=st.integers(2, 6), d=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_the_trials_span_gives_the_same_process(n: int, d: int, seed: int) -> None:
    """Mean, variance and their gradients at any point are those in all coordinates, at the trials too."""
    generator = torch.Generator().manual_seed(seed)
    X, Y, x = (torch.rand(size, generator=generator, dtype=torch.float64) for size in ((n, d), (n, 1), (3, d)))
    posteriors = []
    for input_transform in (None, TrialSpan(X)):
        model = make_gaussian_process(X, Y, InfiniteWidthBNNKernel(depth=3), input_transform=input_transform).eval()
        points = torch.cat([x, X]).requires_grad_()
        posterior = model.posterior(points)
        moments = torch.cat([posterior.mean, posterior.variance])
        (gradients,) = torch.autograd.grad(moments.sum(), points)
        posteriors.append((moments.detach(), gradients[:3]))
    torch.testing.assert_close(posteriors[0], posteriors[1], rtol=1e-5, atol=1e-5)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(2, 6), st.integers(0, 99))
@settings(deadline=None, derandomize=True)
def test_a_batch_of_points_has_the_coordinates_of_each(batch: int, n: int, d: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    span = TrialSpan(torch.rand(2, d, generator=generator, dtype=torch.float64))
    X = torch.rand(batch, n, d, generator=generator, dtype=torch.float64)
    assert torch.allclose(span.transform(X), torch.stack([span.transform(points) for points in X]))


def test_hyperparameters_are_fitted_in_the_coordinates_of_the_transform() -> None:
    """Points of half the size have a length scale of half the size."""
    X = torch.rand(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    Y = X.sum(1, keepdim=True).sin()
    plain, transformed = (
        fit_gaussian_process(X, Y, RBFKernel(), max_steps=200, input_transform=transform)
        for transform in (None, Normalize(3, bounds=torch.tensor([[0.0] * 3, [2.0] * 3], dtype=torch.float64)))
    )
    lengths = [model.covar_module.lengthscale.item() for model in (plain, transformed)]
    assert lengths[0] == pytest.approx(2 * lengths[1], rel=0.05)


def test_proposes_uphill_and_the_published_code_downhill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SEARCHES, "published", Published)
    proposed = {}
    for search in ("paper", "published"):
        trials = run_search(lambda x: float(x[0]), 1, search=search, budget=9, seed=0).trials
        proposed[search] = mean(trial.x[0] for trial in trials[5:])
    assert proposed["published"] < 0.3 < 0.7 < proposed["paper"]
