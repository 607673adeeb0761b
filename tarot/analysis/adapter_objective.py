"""The objective that an adapter was tuned with, on the samples that it was tuned on."""

from dataclasses import replace
from pathlib import Path

from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.evaluation.as_tuned import check_as_tuned, config_of
from tarot.evaluation.lm_eval_results import check_scorable
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.kind import ObjectiveKind, check_objective
from tarot.objectives.objective import Objective
from tarot.objectives.rewards.registry import refuse_unrequested
from tarot.search.config import TaRotConfig
from tarot.search.problem import Problem, check_same_samples, check_samples


def adapter_objective(
    loaded: LoadedModel,
    adapter: Adapter,
    *,
    reward: str | None = None,
    include_path: str | Path | None = None,
    batch_size: int | None = None,
) -> Objective:
    """Return the objective that the adapter was tuned with, or a reward, on the samples that it was tuned on.

    Raises:
        TarotError: the adapter has no recipe, does not fit the model, or was tuned on other data; the reward needs a
            task that generates; or the adapter, not the user, asks for a reward that runs code.

    Example:
        >>> objective = adapter_objective(tarot.load_model("wheel:smollm2-135m"), adapter)
        >>> objective(adapter.angles) < 0  # the mean log-probability of the right answers
        True
    """
    config = _requested_config(adapter, reward)
    adapter.find_sites(loaded.model)  # raises if the adapter does not fit the model
    problem = Problem.from_config(loaded, config, include_path, batch_size)
    check_same_samples(adapter, problem.samples)
    return problem.objective


def check_adapter_objective(
    adapter: Adapter,
    *,
    reward: str | None = None,
    include_path: str | Path | None = None,
    limit: int | float | None = None,
) -> None:
    """Check everything of `adapter_objective` and `tuned_documents` that needs no model.

    Raises:
        TarotError: the adapter has no recipe, `limit` is out of range, the reward does not exist or needs the user's
            consent, or the task's prompts cannot be rendered.
    """
    config = _requested_config(adapter, reward)
    check_objective(config.objective)
    check_samples(config, include_path)
    task = check_as_tuned(adapter, include_path=include_path, limit=limit)
    if config.kind is not ObjectiveKind.REWARD:
        check_scorable(task)


def _requested_config(adapter: Adapter, reward: str | None) -> TaRotConfig:
    """Return the adapter's configuration, with the reward as its objective; its search is one without gradients.

    What the search retained is left out: nothing is tuned, so the tasks and files that the adapter names are not read.
    """
    config = replace(config_of(adapter), retain=())
    if config.kind is ObjectiveKind.FUNCTION:
        hint = "tarot evaluate, try and effects take it"
        raise TarotError("an adapter with samples", "one tuned for a function of the model", hint)
    if reward is None:
        refuse_unrequested(config.objective, "an adapter")
        return config
    search = config.search if config.kind is ObjectiveKind.REWARD else "random"
    return replace(config, objective=reward, search=search, max_kl=None)
