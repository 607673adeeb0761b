"""Everything that decides what a search tries."""

from dataclasses import dataclass
from typing import Any

from tarot.edit.rotation import ROTATIONS
from tarot.edit.sites import check_site_kind
from tarot.errors import TarotError, UnknownName
from tarot.objectives.answers import check_answer_score
from tarot.objectives.rewards import is_reward
from tarot.objectives.samples import (
    check_sample_counts,
)
from tarot.search import check_batch
from tarot.search.space import check_bound, check_space

# By measurement (RESULTS.md): a surrogate needs few coordinates, each of them promising; gradients take all there are.
DEFAULT_SPACES = {"bo": "head-gradient"}


@dataclass(frozen=True)
class TaRotConfig:
    """Everything that decides what a search tries; the budget only says how long it goes on.

    `bound` is in radians. `layers` is a fraction of the layers from the first (`0.5`) or from the last (`-0.5`), or
    a list of layer indices. `objective` is a measure of labelled answers, or a reward of
    generated texts. `search` is the objective's own where it is left out, `space` the search's. `trials_per_step`
    points are proposed before the score of any is known. `fluency_floor` says how far the texts' fluency may fall below
    the unedited model's: `0.3`, in nats a token, or `10%`.
    """

    task: str
    num_fewshot: int | str = 0
    num_samples: int = 20
    space: str = ""
    search: str = ""
    objective: str = "log_probability"
    sites: str = "heads"
    layers: float | tuple[int, ...] = 1.0
    bound: float = 0.785
    rotation: str = "rotary"
    seed: int = 0
    apply_chat_template: bool = True
    trials_per_step: int = 1
    fluency_floor: str | None = None

    def __post_init__(self) -> None:
        # A reward has no gradient but an estimate, too dear to follow.
        object.__setattr__(self, "search", self.search or ("bo" if is_reward(self.objective) else "adam"))
        object.__setattr__(self, "space", self.space or DEFAULT_SPACES.get(self.search, "full"))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


def check_config(config: TaRotConfig) -> None:
    """Raise TarotError for names and numbers that there are not; but a reward's, which may name code."""
    if not is_reward(config.objective):
        check_answer_score(config.objective)
    check_batch(config.search, config.trials_per_step)
    check_space(config.space)
    check_site_kind(config.sites)
    check_sample_counts(config.num_samples, config.num_fewshot)
    check_seed(config.seed)
    if config.rotation not in ROTATIONS:
        raise UnknownName("rotation", config.rotation, ROTATIONS)
    check_bound(config.bound)


def check_seed(seed: int) -> None:
    """Raise TarotError for a seed that torch does not take."""
    if abs(seed) >= 2**63:
        raise TarotError("a seed of at most 63 bits", str(seed))
