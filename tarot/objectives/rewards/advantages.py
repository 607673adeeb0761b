"""Advantages of sampled texts, and the multiplier that holds a constraint.

    A = return of the draw - mean return of the same prompt's other draws

The mean over draws of A times the gradient of the log-probability of the draw's text is an unbiased estimate of the
gradient of the expected return: the score-function estimator. The sum over a text's tokens is not divided by its
length, which would favour short good and long bad texts.

Sources: Ahmadian et al., RLOO, arXiv 2402.14740 (advantage, KL in the return); Shao et al., GRPO, arXiv 2402.03300
(returns of a prompt's draws in units of their deviation); Liu et al., arXiv 2503.20783 (no division by the length);
Tessler et al., arXiv 1805.11074 (multiplier).
"""

from jaxtyping import Float
from torch import Tensor


def leave_one_out(returns: Float[Tensor, "prompt draw"]) -> Float[Tensor, "prompt draw"]:
    """Return each draw's return minus the mean of the prompt's other draws; each prompt's sum is zero.

    Example:
        >>> import torch
        >>> leave_one_out(torch.tensor([[1.0, 0.0, 0.5]])).tolist()
        [[0.75, -0.75, 0.0]]
    """
    n_draws = returns.shape[1]
    return (returns - returns.mean(1, keepdim=True)) * n_draws / (n_draws - 1)


def spread(rewards: Float[Tensor, "prompt draw"]) -> float:
    """Return the standard deviation of rewards around the mean of their prompt; 0 if no two draws of a prompt differ.

    Example:
        >>> import torch
        >>> spread(torch.tensor([[0.0, 1.0], [5.0, 5.0]]))
        0.5
    """
    n_prompts, n_draws = rewards.shape
    deviations = rewards - rewards.mean(1, keepdim=True)
    return float((deviations.square().sum() / (n_prompts * (n_draws - 1))).sqrt())


def next_multiplier(multiplier: float, shortfall: float, rate: float) -> float:
    """Return the multiplier of a constraint after one step of dual ascent; never negative.

    Args:
        multiplier: the present one.
        shortfall: how far the constrained value is below what is required; negative if it is above.
        rate: what a shortfall of 1 adds.

    Example:
        >>> next_multiplier(1.0, shortfall=0.5, rate=2.0), next_multiplier(1.0, shortfall=-3.0, rate=2.0)
        (2.0, 0.0)
    """
    return max(0.0, multiplier + rate * shortfall)
