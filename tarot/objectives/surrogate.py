"""The clipped surrogate of a policy gradient, its advantages, and the multiplier that holds a constraint.

    surrogate = mean over draws of  sum over tokens of  min(ratio * A, clip(ratio, 1 - c, 1 + c) * A)
    ratio     = p(token | angles) / p(token | angles that drew the text)
    A         = return of the draw - mean return of the same prompt's other draws

At the angles that drew the texts every ratio is 1, and the gradient is the score-function estimator of the gradient of
the expected return. Further steps on the same draws stay near these angles because a ratio beyond the clip has no
gradient. The sum over tokens is not divided by the length, which would favour short good and long bad texts.

Sources: Schulman et al., PPO, arXiv 1707.06347 (clip); Ahmadian et al., RLOO, arXiv 2402.14740 (advantage, KL in the
return); Shao et al., GRPO, arXiv 2402.03300 (returns of a prompt's draws in units of their deviation); Liu et al.,
arXiv 2503.20783 (no division by the length); Tessler et al., arXiv 1805.11074 (multiplier).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def leave_one_out(returns: Float[Tensor, "prompt draw"]) -> Float[Tensor, "prompt draw"]:
    """Return each draw's return minus the mean of the prompt's other draws; each prompt's sum is zero.

    Example:
        >>> leave_one_out(torch.tensor([[1.0, 0.0, 0.5]])).tolist()
        [[0.75, -0.75, 0.0]]
    """
    n_draws = returns.shape[1]
    return (returns - returns.mean(1, keepdim=True)) * n_draws / (n_draws - 1)


def spread(rewards: Float[Tensor, "prompt draw"]) -> float:
    """Return the standard deviation of rewards around the mean of their prompt; 0 if no two draws of a prompt differ.

    Example:
        >>> spread(torch.tensor([[0.0, 1.0], [5.0, 5.0]]))
        0.5
    """
    n_prompts, n_draws = rewards.shape
    deviations = rewards - rewards.mean(1, keepdim=True)
    return float((deviations.square().sum() / (n_prompts * (n_draws - 1))).sqrt())


def clipped_surrogate(
    log_probabilities: Sequence[Float[Tensor, " token"]],
    drawn_with: Sequence[Float[Tensor, " token"]],
    advantages: Float[Tensor, " draw"],
    clip: float,
) -> Float[Tensor, ""]:
    """Return the sum of the clipped surrogate over draws, to be maximised.

    Args:
        log_probabilities: of each draw's tokens, in nats; differentiable.
        drawn_with: the same under the angles that drew the text.
        advantages: of each draw.
        clip: how far a ratio may leave 1.

    Example:
        >>> twice = [torch.tensor([0.7])], [torch.tensor([0.0])]
        >>> clipped_surrogate(*twice, torch.tensor([1.0]), clip=0.2)
        tensor(1.2000)
    """
    terms = []
    for now, before, advantage in zip(log_probabilities, drawn_with, advantages, strict=True):
        ratio = (now - before).exp()
        terms.append(torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).sum())
    return torch.stack(terms).sum()


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
