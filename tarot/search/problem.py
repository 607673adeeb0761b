"""A tuning problem: the labelled samples of a task, and the objective over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lm_eval.api.task import Task

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.rotation import ROTATIONS
from tarot.edit.sites import angle_mask, find_sites
from tarot.errors import TarotError
from tarot.models.chat import SYSTEM_MOVED
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.offline import quiet_loggers
from tarot.objectives.answers import AnswerObjective
from tarot.objectives.black_box import BlackBoxObjective, ModelFunction, Serve, resolve_function
from tarot.objectives.generated import check_generates, make_generation_objective
from tarot.objectives.kind import ObjectiveKind
from tarot.objectives.objective import Objective
from tarot.objectives.policy import make_policy_objective
from tarot.objectives.retained import check_retain
from tarot.objectives.rewards.fluency import FluencyFloor
from tarot.objectives.tasks.prompts import ChatTemplate, get_chat_template
from tarot.objectives.tasks.samples import Sample, draw_samples
from tarot.objectives.tasks.shots import resolve_num_fewshot
from tarot.objectives.tasks.task_loading import load_task
from tarot.objectives.tasks.tuning_split import TuningDocuments, find_tuning_documents
from tarot.search.algorithms.policy_gradient import PolicySteps
from tarot.search.config import POLICY_GRADIENT, TaRotConfig
from tarot.search.space import Space, make_space


@dataclass(frozen=True)
class Problem:
    """A configuration put to a model: the samples, and the objective over them.

    Attributes:
        config: the configuration, without shots if the task allows none.
        samples: the labelled training samples; those that only score a policy gradient come last.
        objective: what the search maximises.
        template: renders prompts as chats; None leaves them plain.
        prompt_notes: how prompts and samples differ from the task's own, for the provenance.
        policy: what a policy gradient follows; None for other searches.
    """

    config: TaRotConfig
    samples: list[Sample]
    objective: Objective
    template: ChatTemplate | None
    prompt_notes: Mapping[str, Any]
    policy: PolicySteps | None = None

    @classmethod
    def from_config(
        cls,
        loaded: LoadedModel,
        config: TaRotConfig,
        include_path: str | Path | None = None,
        batch_size: int | None = None,
        function: ModelFunction | None = None,
        serve: Serve | None = None,
    ) -> "Problem":
        """Draw the samples of a configuration and make its objective; the same on every machine.

        Args:
            loaded: the model to edit, and its tokenizer.
            config: what to search.
            include_path: folder of further task files.
            batch_size: sequences per forward pass; None chooses.
            function: what the objective `model` measures.
            serve: turns model and adapter into what the function is given.

        Raises:
            UnknownName: no task has this name.
            TarotError: the task has too few samples, or they cannot be scored.

        Example:
            >>> config = tarot.TaRotConfig("synth_color", num_samples=8)
            >>> problem = Problem.from_config(loaded, config)
            >>> len(problem.samples), problem.make_space().name
            (8, 'full')
        """
        sites = find_sites(loaded.model, config.sites, config.layers)
        lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
        task = load_task(config.task, include_path)
        config = replace(config, num_fewshot=resolve_num_fewshot(task, config.num_fewshot))
        template = get_chat_template(lm, config.apply_chat_template)
        rotation = ROTATIONS[config.rotation]
        if config.kind is ObjectiveKind.FUNCTION:
            black_box = BlackBoxObjective(
                loaded.model,
                loaded.tokenizer,
                resolve_function(config.objective, function),
                edit=Edit.from_sites(loaded.model, config.sites, sites, rotation),
                sites=sites,
                rotation=rotation,
                serve=serve,
            )
            return cls(config, [], black_box, template, {})
        documents = find_tuning_documents(task)
        samples = draw_tuning_samples(config, task, template, documents)
        prompt_notes: dict[str, Any] = {
            "rows_left_out": {"evaluated": documents.evaluated, "repeated": documents.repeated},
            **({"description": SYSTEM_MOVED} if lm.chat_renderer.system_moved else {}),
        }
        common: dict[str, Any] = {"sites": sites, "rotation": rotation, "batch_size": batch_size}
        if config.kind is ObjectiveKind.ANSWERS:
            answers = AnswerObjective(loaded.model, samples, lm.encode, answer_score=config.objective, **common)
            return cls(config, samples, answers, template, prompt_notes)
        floor = FluencyFloor.parse(config.fluency_floor)
        followed = samples[: config.num_samples]
        checked = samples[config.num_samples :] or followed
        texts = make_generation_objective(lm, task, checked, config.objective, floor=floor, seed=config.seed, **common)
        steps = None
        if config.search == POLICY_GRADIENT:
            policy = make_policy_objective(lm, task, followed, texts.reward, **common)
            steps = PolicySteps(policy, texts, floor, config.seed)
        return cls(config, samples, texts, template, prompt_notes, steps)

    def make_space(self) -> Space:
        """Return the search space of the configuration."""
        mask = angle_mask(self.objective.sites, self.objective.rotation.n_angles)
        return make_space(self.config.space, mask, self.config.bound)


def check_samples(config: TaRotConfig, include_path: str | Path | None = None) -> None:
    """Raise what `tune` would raise for the task and its documents, before a model is loaded.

    Prompts are rendered without a chat template, which comes with the model. The names in `retain` are loaded: leave
    those of an adapter out, which are not the user's.

    Raises:
        UnknownName: no task has this name.
        TarotError: the task has too few samples, or does not fit the objective; or what to retain cannot be read.
    """
    task = load_task(config.task, include_path)
    check_retain(config.retain, config.task, include_path)
    if config.kind is ObjectiveKind.FUNCTION:
        return
    if config.kind is ObjectiveKind.REWARD:
        check_generates(task, config.objective)
    with quiet_loggers("tarot"):  # tune logs the same notes again
        draw_tuning_samples(config, task)


def draw_tuning_samples(
    config: TaRotConfig,
    task: Task,
    template: ChatTemplate | None = None,
    documents: TuningDocuments | None = None,
) -> list[Sample]:
    """Draw the labelled samples of a search; arguments and errors are those of `draw_samples`."""
    return draw_samples(
        task,
        config.n_drawn,
        num_fewshot=config.num_fewshot,
        seed=config.seed,
        chat_template=template,
        documents=documents,
    )


def check_same_samples(adapter: Adapter, samples: Sequence[Sample]) -> None:
    """Raise TarotError unless these are the samples that an adapter records."""
    recorded: Any = adapter.provenance.get("samples_drawn", [])
    if [sample.key for sample in samples] != [each["key"] for each in recorded]:
        task = adapter.provenance.get("task")
        raise TarotError(f"The samples of {task} differ from those that the adapter was tuned on.", hint="use its data")
