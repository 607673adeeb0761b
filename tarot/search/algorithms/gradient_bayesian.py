"""Bayesian optimisation that follows the gradient: a Gaussian process over scores and slopes, in a trust region.

    x <- argmax m(x)  where  |S^-1 (x - best)| <= radius sqrt(d),    S = diag(mean(g^2)^(-1/4))

m is the posterior mean and g are the gradients so far. S stretches coordinates with small gradients; in coordinates
that S has scaled, the first step is as long in every coordinate, as in Adam. The process sees each trial twice: its
score, and the score that its gradient predicts a tenth of the radius uphill. Its kernel depends on distances alone, so
it is fitted in the span of trials and gradients, which has fewer coordinates than twice the trials.

The radius grows where a step gains what the gradient predicts, and shrinks where it does not, as in a classical trust
region (Conn, Gould and Toint, Trust-Region Methods, 2000). Nothing is random.

Sources: Wu et al., Bayesian Optimization with Gradients, arXiv 1703.04389; Eriksson et al., Scalable Global
Optimization via Local Bayesian Optimization, arXiv 1910.01739.
"""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tarot.search.algorithms.base import GRADIENT_COST, Point, Proposal, Search
from tarot.search.algorithms.points import identity
from tarot.search.trials import Trial

# Of the cube's half side, as a root mean square over coordinates: about Adam's first step.
RADIUS, LEAST_RADIUS = 0.06, 0.005
GROW, SHRINK = 1.5, 2.0
GOOD, POOR = 0.5, 0.1  # gain of a step as a share of what the gradient predicts: 0.5 at the top of a parabola
UPHILL = 0.1  # radii between a trial and the point that stands for its gradient
LENGTHS, NOISES = (1.0, 2.0, 4.0, 8.0, 16.0), (1e-4, 1e-3, 1e-2)  # length-scales in radii, variances as a share
STEPS, RATE = 60, 0.1  # to maximise the posterior mean; in radii

Points = Float[Tensor, "n k"]
Scores = Float[Tensor, "n"]


class GradientBayesianOptimisation(Search):
    """Propose the identity, then the highest posterior mean within a trust region around the best trial.

    A failed identity ends the search.
    """

    follows_gradient: ClassVar[bool] = True
    trial_cost: ClassVar[int] = GRADIENT_COST

    def propose(self, history: Sequence[Trial], pending: Sequence[Point] = ()) -> Proposal:
        """Return the next point, computed from all scores and gradients so far."""
        if not history:
            return Proposal(identity(self.d), "identity")
        trials = [trial for trial in history if trial.gradient]
        x, gradients, scores = (
            torch.tensor(values, dtype=torch.float64)
            for values in zip(*((trial.x, trial.gradient, trial.score) for trial in trials), strict=True)
        )
        size = gradients.square().mean(0).sqrt()
        stretch = (size + 0.01 * size.mean()).clamp_min(1e-12) ** -0.5
        stretch /= stretch.square().mean().sqrt()
        # The half side of the cube is 1/2.
        reach = trust_radius(history) * math.sqrt(self.d) / 2
        centre = x[scores.argmax()]
        points, slopes = (x - centre) / stretch / reach, gradients * stretch * reach
        basis = _span(torch.cat([points, slopes]))
        points, slopes = points @ basis.T, slopes @ basis.T
        steepness = slopes.norm(dim=1)
        ahead = points + UPHILL * slopes / steepness.clamp_min(1e-12)[:, None]
        process = fit_process(torch.cat([points, ahead]), torch.cat([scores, scores + UPHILL * steepness]))
        z = maximise_in_ball(process.mean_at, len(basis))
        return Proposal((centre + reach * stretch * (z @ basis)).clamp(0, 1), "gradient")


def trust_radius(history: Sequence[Trial]) -> float:
    """Return the radius after these trials.

    Each step starts at the best trial before it. A step that gains more than half of what that trial's gradient
    predicts enlarges the radius; one that gains less than a tenth of it, or fails, shrinks it. Failed steps shrink it
    below the least radius too, because nothing else tells the next step from them.

    Example:
        >>> start = Trial(0, (0.5,), -1.0, "identity", 0.0, 0.0, gradient=(1.0,))
        >>> good, poor = (Trial(1, (0.6,), y, "gradient", 0.0, 0.0, gradient=(1.0,)) for y in (-0.9, -1.2))
        >>> trust_radius([start, good]) > trust_radius([start]) > trust_radius([start, poor])
        True
    """
    radius, best = RADIUS, history[0]
    for trial in history[1:]:
        predicted = sum(g * (a - b) for g, a, b in zip(best.gradient, trial.x, best.x, strict=True))
        if not trial.gradient:
            radius /= SHRINK
            continue
        gain = trial.score - best.score
        if gain > GOOD * abs(predicted):
            radius *= GROW
        elif gain < POOR * abs(predicted):
            radius = max(LEAST_RADIUS, radius / SHRINK)
        if gain > 0:
            best = trial
    return radius


def _span(rows: Float[Tensor, "m d"]) -> Float[Tensor, "k d"]:
    """Return an orthonormal basis of the rows' span."""
    rows = rows[rows.norm(dim=1) > 0]
    rows = rows / rows.norm(dim=1, keepdim=True)
    squares, vectors = torch.linalg.eigh(rows @ rows.T)
    kept = squares > 1e-8
    return (vectors[:, kept] / squares[kept].sqrt()).T @ rows


class Process(NamedTuple):
    """A Gaussian process with a Gaussian kernel, conditioned on scores.

    Attributes:
        points: where scores are known.
        weights: of the kernel at each point.
        mean: the prior mean.
        length: length-scale.
    """

    points: Points
    weights: Scores
    mean: Tensor
    length: float

    def mean_at(self, z: Float[Tensor, "m k"]) -> Float[Tensor, "m"]:
        """Return the posterior mean at points."""
        return self.mean + _kernel(z, self.points, self.length) @ self.weights


def fit_process(points: Points, scores: Scores) -> Process:
    """Return the process with the likeliest length-scale and noise of a grid; mean and variance have closed forms."""
    fits = [_fit(points, scores, length, noise) for length in LENGTHS for noise in NOISES]
    return max(fits, key=lambda fit: fit[0])[1]


def _fit(points: Points, scores: Scores, length: float, noise: float) -> tuple[float, Process]:
    """Return log likelihood, up to a constant, and process, at the likeliest mean and variance."""
    n = len(scores)
    factor = torch.linalg.cholesky(_kernel(points, points, length) + noise * torch.eye(n, dtype=scores.dtype))
    solved = torch.cholesky_solve(torch.stack([scores, torch.ones_like(scores)], dim=1), factor)
    mean = solved[:, 0].sum() / solved[:, 1].sum()
    weights = solved[:, 0] - mean * solved[:, 1]
    variance = float((scores - mean) @ weights) / n
    likelihood = -n / 2 * math.log(max(variance, 1e-300)) - float(factor.diagonal().log().sum())
    return likelihood, Process(points, weights, mean, length)


def _kernel(a: Float[Tensor, "n k"], b: Float[Tensor, "m k"], length: float) -> Float[Tensor, "n m"]:
    squares = a.square().sum(-1, keepdim=True) + b.square().sum(-1) - 2 * a @ b.T
    return (-squares.clamp_min(0) / (2 * length**2)).exp()


def maximise_in_ball(f: Callable[[Tensor], Tensor], k: int) -> Float[Tensor, "k"]:
    """Return the highest point found of a smooth function in the unit ball of k dimensions.

    Projected gradient ascent in steps of falling length, from the centre and from three points uphill of it.
    """
    starts = torch.zeros(4, k, dtype=torch.float64)
    starts[1:] = torch.tensor([0.3, 0.7, 1.0], dtype=torch.float64)[:, None] * _uphill(f, starts[1:])
    z = starts
    for step in range(STEPS):
        z = z + RATE * (1 - step / STEPS) * _uphill(f, z)
        z = z / z.norm(dim=1, keepdim=True).clamp_min(1)
    z = torch.cat([starts, z])
    return z[f(z).argmax()]


def _uphill(f: Callable[[Tensor], Tensor], z: Points) -> Points:
    """Return the direction of the gradient at each point, of length one."""
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(f(z.requires_grad_()).sum(), z)
    z.requires_grad_(False)
    return gradient / gradient.norm(dim=1, keepdim=True).clamp_min(1e-300)
