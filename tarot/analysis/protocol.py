"""The samples and documents of an adapter, prompted as they were when it was tuned."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tarot.analysis.heads import attributed, prune
from tarot.edit.adapter import Adapter
from tarot.errors import TarotError
from tarot.evaluation.compare import answers, check_judged, recipe_of
from tarot.evaluation.evaluate import check_tasks, evaluate, logged
from tarot.models.lm_eval_model import TarotLM
from tarot.models.load import LoadedModel
from tarot.objectives.answers import Objective
from tarot.objectives.generated import GenerationObjective
from tarot.objectives.rewards import check_reward, is_reward, refuse_unrequested
from tarot.objectives.samples import Sample, chat_template, evaluated, load_task
from tarot.search.tune import Problem, check_samples


def objective_of(
    loaded: LoadedModel,
    adapter: Adapter,
    *,
    reward: str | None = None,
    include_path: str | Path | None = None,
    batch_size: int | None = None,
) -> Objective | GenerationObjective:
    """The objective that the adapter was tuned with, or a reward, on the samples that it was tuned on.

    Raises:
        TarotError: an adapter without a recipe, one that does not fit the model, other data than it was tuned on, a
            reward of texts for a task that does not generate, or one that runs code and that was not asked for.
    """
    recipe = recipe_of(adapter)
    if reward is None:
        refuse_unrequested(recipe.objective, "an adapter")
    adapter.sites(loaded.model)  # or it does not fit
    problem = Problem.of(loaded, replace(recipe, objective=reward or recipe.objective), include_path, batch_size)
    known: list[dict[str, str]] = adapter.provenance.get("samples_drawn", [])  # type: ignore[assignment]  # JSON
    if [sample.key for sample in problem.samples] != [sample["key"] for sample in known]:
        raise TarotError(
            f"the samples of {recipe.task} that the adapter was tuned on", "others", "use the data it was tuned with"
        )
    return problem.objective


def check_tuned(
    adapter: Adapter,
    *,
    reward: str | None = None,
    include_path: str | Path | None = None,
    limit: int | None = None,
) -> None:
    """Raise what `documents` and `objective_of` would raise that can be known without a model.

    Raises:
        TarotError: an adapter without a recipe, a limit below 1, a reward that does not exist or that code or a model
            would judge without the user's consent, or a task whose prompts cannot be rendered.
    """
    recipe = recipe_of(adapter)
    if reward is None:
        refuse_unrequested(recipe.objective, "an adapter")
    objective = reward or recipe.objective
    if is_reward(objective):
        check_reward(objective)
    check_samples(replace(recipe, objective=objective), include_path)
    shots = recipe.num_fewshot if isinstance(recipe.num_fewshot, int) else 0
    for task in check_tasks([recipe.task], include_path=include_path, num_fewshot=shots, limit=limit):
        if not is_reward(objective):
            check_judged(task)


def documents(
    loaded: LoadedModel, adapter: Adapter, *, include_path: str | Path | None = None, limit: int | None = None
) -> list[Sample]:
    """The documents that the adapter's task evaluates, with as many shots as it was tuned on (none for `mix`).

    Raises:
        TarotError: an adapter without a recipe, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise TarotError("a limit of at least 1 document", str(limit), "leave it out for all")
    recipe = recipe_of(adapter)
    shots = recipe.num_fewshot if isinstance(recipe.num_fewshot, int) else 0
    template = chat_template(TarotLM(loaded.model, tokenizer=loaded.tokenizer), recipe.chat)
    return evaluated(load_task(recipe.task, include_path), num_fewshot=shots, limit=limit, chat_template=template)


def answered(
    loaded: LoadedModel,
    adapter: Adapter,
    edit: Adapter | None,
    *,
    include_path: str | Path | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
) -> tuple[int, ...]:
    """Greedy answers to the same documents, of an edit or unedited, as `tarot compare` reads them.

    Errors as for `tarot.evaluate` and `tarot.evaluation.compare.answers`.
    """
    recipe = recipe_of(adapter)
    task = load_task(recipe.task, include_path)
    shots = recipe.num_fewshot if isinstance(recipe.num_fewshot, int) else 0
    results = evaluate(
        loaded,
        [recipe.task],
        adapter=edit,
        include_path=include_path,
        num_fewshot=shots,
        limit=limit,
        chat=recipe.chat,
        batch_size=batch_size,
    )
    return answers(task, logged(results, recipe.task))[1].greedy


def pruned(
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

    What was found stands in the provenance under "pruned". Arguments and errors as for `prune` and `objective_of`.
    """
    score = objective_of(loaded, adapter, reward=reward, include_path=include_path, batch_size=batch_size)
    # A reward has no gradient but an estimate; the norm of the angles is a cheaper guess.
    importance = attributed(score.slope, adapter.angles) if isinstance(score, Objective) else None
    found = prune(score, adapter.angles, keep, importance, on_score)
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
