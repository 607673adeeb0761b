"""The samples and documents of an adapter, prompted as they were when it was tuned."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tarot.analysis.heads import attributed, prune_heads
from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.evaluation.as_tuned import config_of
from tarot.evaluation.evaluate import check_tasks, evaluate
from tarot.evaluation.lm_eval_results import check_scorable, logged_documents, read_answers
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.answers import AnswerObjective
from tarot.objectives.generated import GenerationObjective
from tarot.objectives.prompts import get_chat_template
from tarot.objectives.rewards import check_reward, is_reward, refuse_unrequested
from tarot.objectives.samples import Sample, render_evaluation_documents
from tarot.objectives.task_loading import load_task
from tarot.search.problem import Problem, check_samples


def make_objective(
    loaded: LoadedModel,
    adapter: Adapter,
    *,
    reward: str | None = None,
    include_path: str | Path | None = None,
    batch_size: int | None = None,
) -> AnswerObjective | GenerationObjective:
    """The objective that the adapter was tuned with, or a reward, on the samples that it was tuned on.

    Raises:
        TarotError: an adapter without a recipe, one that does not fit the model, other data than it was tuned on, a
            reward of texts for a task that does not generate, or one that runs code and that was not asked for.
    """
    config = config_of(adapter)
    if reward is None:
        refuse_unrequested(config.objective, "an adapter")
    adapter.find_sites(loaded.model)  # or it does not fit
    problem = Problem.of(loaded, replace(config, objective=reward or config.objective), include_path, batch_size)
    known: list[dict[str, str]] = adapter.provenance.get("samples_drawn", [])  # type: ignore[assignment]  # JSON
    if [sample.key for sample in problem.samples] != [sample["key"] for sample in known]:
        raise TarotError(
            f"the samples of {config.task} that the adapter was tuned on", "others", "use the data it was tuned with"
        )
    return problem.objective


def check_tuned(
    adapter: Adapter,
    *,
    reward: str | None = None,
    include_path: str | Path | None = None,
    limit: int | None = None,
) -> None:
    """Raise what `documents` and `make_objective` would raise that can be known without a model.

    Raises:
        TarotError: an adapter without a recipe, a limit below 1, a reward that does not exist or that code or a model
            would judge without the user's consent, or a task whose prompts cannot be rendered.
    """
    config = config_of(adapter)
    if reward is None:
        refuse_unrequested(config.objective, "an adapter")
    objective = reward or config.objective
    if is_reward(objective):
        check_reward(objective)
    check_samples(replace(config, objective=objective), include_path)
    shots = config.num_fewshot if isinstance(config.num_fewshot, int) else 0
    for task in check_tasks([config.task], include_path=include_path, num_fewshot=shots, limit=limit):
        if not is_reward(objective):
            check_scorable(task)


def documents(
    loaded: LoadedModel, adapter: Adapter, *, include_path: str | Path | None = None, limit: int | None = None
) -> list[Sample]:
    """The documents that the adapter's task evaluates, with as many shots as it was tuned on (none for `mix`).

    Raises:
        TarotError: an adapter without a recipe, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise TarotError("a limit of at least 1 document", str(limit), "leave it out for all")
    config = config_of(adapter)
    shots = config.num_fewshot if isinstance(config.num_fewshot, int) else 0
    template = get_chat_template(TarotLM(loaded.model, tokenizer=loaded.tokenizer), config.apply_chat_template)
    return render_evaluation_documents(
        load_task(config.task, include_path), num_fewshot=shots, limit=limit, chat_template=template
    )


def greedy_answers(
    loaded: LoadedModel,
    adapter: Adapter,
    edit: Adapter | None,
    *,
    include_path: str | Path | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
) -> tuple[int, ...]:
    """Greedy answers to the same documents, of an edit or unedited, as `tarot compare` reads them.

    Errors as for `tarot.evaluate` and `tarot.evaluation.lm_eval_results.read_answers`.
    """
    config = config_of(adapter)
    task = load_task(config.task, include_path)
    shots = config.num_fewshot if isinstance(config.num_fewshot, int) else 0
    results = evaluate(
        loaded.model,
        loaded.tokenizer,
        [config.task],
        adapter=edit,
        include_path=include_path,
        num_fewshot=shots,
        limit=limit,
        apply_chat_template=config.apply_chat_template,
        batch_size=batch_size,
    )
    return read_answers(task, logged_documents(results, config.task))[1].greedy


def prune_adapter(
    loaded: LoadedModel,
    adapter: Adapter,
    keep: float = 0.9,
    *,
    reward: str | None = None,
    include_path: str | Path | None = None,
    batch_size: int | None = None,
    on_score: Callable[[int, int], None] = lambda evaluations, heads: None,
) -> Adapter:
    """The adapter with the fewest heads turned that keep a share of its gain on its own samples.

    What was found stands in the provenance under "pruned". Arguments and errors as for `prune_heads` and `make_objective`.
    """
    score = make_objective(loaded, adapter, reward=reward, include_path=include_path, batch_size=batch_size)
    # A reward has no gradient but an estimate; the norm of the angles is a cheaper guess.
    importance = attributed(score.value_and_grad, adapter.angles) if isinstance(score, AnswerObjective) else None
    found = prune_heads(score, adapter.angles, keep, importance, on_score)
    record = {
        "from": adapter.fingerprint,
        "before": adapter.provenance.get("pruned"),
        "keep": keep,
        "heads": len(found.heads),
        "of": found.of,
        "evaluations": found.evaluations,
        "scores": {"identity": found.identity, "whole": found.whole, "pruned": found.score},
    }
    origin = {name: value for name, value in adapter.provenance.items() if name != "best_trial"}  # no trial's angles
    scores = {"identity": found.identity, "best": found.score}
    return replace(adapter, angles=found.angles, provenance={**origin, "scores": scores, "pruned": record})
