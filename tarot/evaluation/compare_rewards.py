"""What a model writes on a task's documents, judged by a reward: the harness' texts, and what they are worth.

Reward, fluency and variety go into lm-eval's results side by side. A task may name the reward that it is for, under
`reward` in its metadata; a user's own function is called only where the user asks for it by name, never because a task
or an adapter does.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import stdev
from typing import Any

from tarot.edit.adapter import Adapter
from tarot.errors import TarotError, describe_missing_numbers
from tarot.evaluation.as_tuned import config_of
from tarot.evaluation.command import not_repeated, repeat_command
from tarot.evaluation.evaluate import check_tasks, evaluate
from tarot.evaluation.lm_eval_results import logged_documents, question_text
from tarot.evaluation.reward_results import RewardComparison
from tarot.evaluation.statistics.means import difference
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.missing_numbers import HINT, check_some_number, is_number
from tarot.objectives.fluency import make_fluency
from tarot.objectives.generated import check_generates, score_texts
from tarot.objectives.rewards import check_reward, is_reward, make_reward, refuse_unrequested
from tarot.objectives.task_loading import load_task
from tarot.objectives.text_generation import fork_torch_seed
from tarot.objectives.text_scores import ScoredTexts, TextScores
from tarot.search.pareto import pareto


def reward_for(results: Mapping[str, Any], task: str, asked: str | None) -> str | None:
    """The reward that the user asks for, else the one that a generating task names, else None.

    Raises:
        UnknownName: no such reward.
        TarotError: the task names a function, or the user a reward for a task that does not generate.
    """
    config = results["configs"][task]
    metadata = config.get("metadata")
    of_task = metadata.get("reward") if isinstance(metadata, Mapping) else None
    if not (asked or of_task):
        return None
    named = asked or str(of_task)
    if config["output_type"] != "generate_until":
        kind = config["output_type"]
        raise TarotError(f"a task that generates, to judge by {named}", f"{kind} in {task}", "try openings")
    if asked is None:
        refuse_unrequested(named, f"the task {task}")
    check_reward(named)
    return named


def score_logged_texts(loaded: LoadedModel, results: Mapping[str, Any], task: str, reward: str) -> ScoredTexts:
    """The texts in lm-eval's results, judged, with fluency under `loaded` as it is: unedited."""
    documents = logged_documents(results, task)
    prompts = [document["arguments"][0][0] for document in documents]
    texts = [document["filtered_resps"][0] for document in documents]
    fluency = make_fluency(TarotLM(loaded.model, tokenizer=loaded.tokenizer))
    return score_texts(prompts, texts, make_reward(reward, fluency), fluency)


def unscored_rows(scored_texts: ScoredTexts) -> list[int]:
    """Rows of the texts whose reward or fluency is NaN or infinite."""
    return [
        row
        for row, pair in enumerate(zip(scored_texts.rewards, scored_texts.fluencies, strict=True))
        if not is_number(pair)
    ]


def add_rewards(loaded: LoadedModel, results: dict[str, Any], asked: str | None = None) -> None:
    """Put reward, fluency and variety into lm-eval's results: for each task that has a reward, and each document of it.

    Args:
        loaded: the model, unedited, whatever the results are of.
        results: what `tarot.evaluation.evaluate.evaluate` returned; added to in place.
        asked: the reward that the user asks for; None for the tasks' own.

    Raises:
        TarotError: no text of a task has a number as reward and fluency.
    """
    for task in results["samples"]:
        if (reward := reward_for(results, task, asked)) is None:
            continue
        found = score_logged_texts(loaded, results, task, reward)
        documents = logged_documents(results, task)
        broken = unscored_rows(found)
        check_some_number({task: broken} if broken else {}, {task: len(documents)})
        if lost := {documents[row]["doc_id"] for row in broken}:
            known = results.setdefault("without_number", {})
            known[task] = sorted({*known.get(task, ()), *lost})
        metrics = {name: value for name, value in asdict(found.summary).items() if name != "refused"}
        for name, value in metrics.items():
            results["results"][task][f"{name},none"] = value
        for name, values in (("reward", found.rewards), ("fluency", found.fluencies)):
            error = (
                stdev(values) / math.sqrt(len(values)) if len(values) > 1 and not broken else "N/A"
            )  # as lm-eval says it
            results["results"][task][f"{name}_stderr,none"] = error
            for document, value in zip(logged_documents(results, task), values, strict=True):
                document[name] = value
        config = results["configs"][task]
        config["metadata"] = {**(config.get("metadata") or {}), "reward": reward}


def reward_of(adapter: Adapter, asked: str | None) -> str:
    """The reward that the user asks for, else the one that the adapter was tuned for.

    Raises:
        UnknownName: no such reward.
        TarotError: it was tuned for none, or for one that runs code.
    """
    tuned_for = config_of(adapter).objective
    if asked is None:
        refuse_unrequested(tuned_for, "an adapter")
    if not is_reward(name := asked or tuned_for):
        raise TarotError("an adapter tuned for a reward", f"one tuned for {name}", "give --reward")
    check_reward(name)
    return name


def check_compare_rewards(
    adapter: Adapter, asked: str | None, *, include_path: str | Path | None = None, limit: int | None = None
) -> None:
    """Raise what `compare_rewards` would raise that can be known without a model; arguments as there."""
    config, name = config_of(adapter), reward_of(adapter, asked)
    shots = config.num_fewshot if isinstance(config.num_fewshot, int) else 0
    for task in check_tasks([config.task], adapter, include_path=include_path, num_fewshot=shots, limit=limit):
        check_generates(task, name)


def compare_rewards(
    loaded: LoadedModel,
    adapter: Adapter,
    *,
    reward: str | None = None,
    include_path: str | Path | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    outcomes: Mapping[int, TextScores] | None = None,
) -> RewardComparison:
    """Have base and edited model write on the documents that the adapter's task evaluates, and judge both alike.

    Args:
        loaded: model and tokenizer; unchanged afterwards.
        adapter: what was tuned for a reward.
        reward: the one to judge by; None for the one that it was tuned for.
        include_path: folder of further task files.
        limit: only the first documents.
        batch_size: most prompts of one pass; None leaves it to us.
        outcomes: of the search's trials.

    Raises:
        TarotError: the adapter was not tuned for a reward, or for one that runs code and that was not asked for; or it
            is another model's, or its task does not generate.
    """
    config, name = config_of(adapter), reward_of(adapter, reward)
    adapter.find_sites(loaded.model)  # or it does not fit, which is to be said before the base model writes
    check_generates(task := load_task(config.task, include_path), name)

    def written(edit: Adapter | None) -> dict[str, Any]:
        with fork_torch_seed(config.seed):
            return evaluate(
                loaded.model,
                loaded.tokenizer,
                [config.task],
                adapter=edit,
                include_path=include_path,
                num_fewshot=config.num_fewshot if isinstance(config.num_fewshot, int) else 0,
                limit=limit,
                apply_chat_template=config.apply_chat_template,
                batch_size=batch_size,
            )

    both = [written(edit) for edit in (None, adapter)]
    base, edited = (score_logged_texts(loaded, results, config.task, name) for results in both)
    for side, texts in (("unedited", base), ("edited", edited)):
        if broken := unscored_rows(texts):
            wanted = f"finite rewards and fluencies of the {side} model's texts for {config.task}"
            raise TarotError(wanted, describe_missing_numbers(broken, len(texts.texts)), HINT)
    return RewardComparison(
        model=loaded.reference,
        task=config.task,
        reward=name,
        seed=config.seed,
        adapter=adapter.fingerprint,
        prompts=tuple(question_text(task, document["doc"]) for document in logged_documents(both[0], config.task)),
        base=base,
        edited=edited,
        gain=difference(base.rewards, edited.rewards),
        fluency_gain=difference(base.fluencies, edited.fluencies),
        outcomes=dict(outcomes or {}),
        front=tuple(pareto(outcomes or {})),
        command=repeat_command(loaded, adapter, None, limit=limit, include_path=include_path, reward=reward),
        not_repeated=not_repeated(adapter),
    )
