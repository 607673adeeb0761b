"""The paper's surrogate in the basis of the trials' span, and the direction of its proposals."""

from statistics import mean

import pytest
import torch
from botorch.models.kernels import InfiniteWidthBNNKernel
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.study.published_search import Published
from tarot.search import SEARCHES, run_search
from tarot.search.acquisition import make_gaussian_process
from tarot.search.paper import TrialSpan


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


def test_proposes_uphill_and_the_published_code_downhill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SEARCHES, "published", Published)
    proposed = {}
    for search in ("paper", "published"):
        trials = run_search(lambda x: float(x[0]), 1, search=search, budget=9, seed=0).trials
        proposed[search] = mean(trial.x[0] for trial in trials[5:])
    assert proposed["published"] < 0.3 < 0.7 < proposed["paper"]
