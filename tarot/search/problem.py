"""A tuning problem: labelled samples of a task, and the objective over them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from tarot.edit.rotation import ROTATIONS
from tarot.edit.sites import find_sites
from tarot.models.lm_eval_model import SYSTEM_MOVED, TarotLM, quiet
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.answers import AnswerObjective
from tarot.objectives.fluency import FluencyFloor
from tarot.objectives.generated import GenerationObjective, check_generates, make_generation_objective
from tarot.objectives.prompts import ChatTemplate, get_chat_template
from tarot.objectives.rewards import is_reward
from tarot.objectives.samples import Sample, draw_samples
from tarot.objectives.shots import resolve_num_fewshot
from tarot.objectives.task_loading import load_task
from tarot.objectives.text_scores import TextScores
from tarot.objectives.tuning_split import find_tuning_documents
from tarot.search.config import TaRotConfig

Angles = Float[Tensor, "layer head angle"]


class Scored(NamedTuple):
    """What angles score, nan where they are refused; and what the texts came to, where texts were judged."""

    score: float
    outcome: TextScores | None


@dataclass(frozen=True)
class Problem:
    """What a recipe asks of a model: the labelled samples, and the objective over them.

    Attributes:
        recipe: the recipe, without shots if the task allows none.
        template: renders prompts as chats; None leaves them plain.
        prompting: what the prompts and samples are not as the task alone would have them.
    """

    config: TaRotConfig

    samples: list[Sample]
    objective: AnswerObjective | GenerationObjective
    template: ChatTemplate | None
    prompting: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        config: TaRotConfig,
        include_path: str | Path | None = None,
        batch_size: int | None = None,
    ) -> "Problem":
        """The same on every machine.

        Raises:
            UnknownName: a task, objective or kind of site that there is not.
            TarotError: samples that cannot be had honestly, or cannot be scored.
        """
        sites = find_sites(loaded.model, config.sites, config.layers)
        lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
        task = load_task(config.task, include_path)
        config = replace(config, num_fewshot=resolve_num_fewshot(task, config.num_fewshot))
        template = get_chat_template(lm, config.apply_chat_template)
        samples = draw_samples(
            task, config.num_samples, num_fewshot=config.num_fewshot, seed=config.seed, chat_template=template
        )
        documents = find_tuning_documents(task)
        prompting: dict[str, Any] = {
            "rows_left_out": {"evaluated": documents.evaluated, "repeated": documents.repeated},
            **({"description": SYSTEM_MOVED} if lm.chat_renderer.system_moved else {}),
        }
        common: dict[str, Any] = {"sites": sites, "rotation": ROTATIONS[config.rotation], "batch_size": batch_size}
        if is_reward(config.objective):
            floor = FluencyFloor.parse(config.fluency_floor)
            objective = make_generation_objective(
                lm, task, samples, config.objective, floor=floor, seed=config.seed, **common
            )
            return cls(config, samples, objective, template, prompting)
        labelled = AnswerObjective(loaded.model, samples, lm.encode, answer_score=config.objective, **common)
        return cls(config, samples, labelled, template, prompting)

    def scored(self, angles: Angles) -> Scored:
        """What these angles (radians) score."""
        if isinstance(self.objective, AnswerObjective):
            return Scored(self.objective(angles), None)
        outcome = self.objective.evaluate(angles)
        return Scored(outcome.score, outcome)


def check_samples(config: TaRotConfig, include_path: str | Path | None = None) -> None:
    """Raise what `tune` would raise for the task and its documents; a command calls it before it loads a model.

    Prompts are rendered without a chat template, which only the model brings.
    """
    task = load_task(config.task, include_path)
    if is_reward(config.objective):
        check_generates(task, config.objective)
    with quiet("tarot"):  # the search says it again
        draw_samples(task, config.num_samples, num_fewshot=config.num_fewshot, seed=config.seed)
