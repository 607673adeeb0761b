"""The default search: a Gaussian process with dimension-scaled priors and log expected improvement."""

from collections.abc import Sequence

from botorch.models import SingleTaskGP
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior

from tarot.search.improvement import Points, Scores, fit, gaussian_process, improve
from tarot.search.points import identity, sobol
from tarot.search.proposal import Proposal
from tarot.search.trial import Trial

DESIGN = 10


class BayesianOptimisation:
    """The identity, a scrambled Sobol design, then argmax LogEI.

    Priors: Hvarfner et al., Vanilla Bayesian Optimization Performs Great in High Dimensions, arXiv 2402.02229.
    """

    def __init__(self, d: int, seed: int) -> None:
        self.d = d
        self.seed = seed

    def propose(self, history: Sequence[Trial]) -> Proposal:
        """The next point; a uniform draw where the surrogate cannot be fitted."""
        if not history:
            return Proposal(identity(self.d), "identity")
        if len(history) <= DESIGN:
            return Proposal(sobol(self.d, self.seed, len(history) - 1), "sobol")
        return improve(
            history,
            self.seed,
            self._model,
            restarts=4,
            raw_samples=128,
            options={"sample_around_best": True, "maxiter": 50},
        )

    def _model(self, X: Points, Y: Scores) -> SingleTaskGP:
        model = gaussian_process(X, Y, get_covar_module_with_dim_scaled_prior(self.d))
        fit(model, max_steps=50)
        return model
