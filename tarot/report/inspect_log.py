"""Comparisons as logs of Inspect (`inspect_ai`): one log an arm, one sample a document.

`inspect view --log-dir FOLDER` then shows every prompt with its choices, their log-probabilities, what was written, and
the score. The library writes the files itself, so its own tools read them.
"""

import importlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tarot._files.atomic import replace_file
from tarot.errors import describe_missing_numbers, import_package
from tarot.evaluation.results.comparison import OUTSIDE, Arm, Comparison
from tarot.evaluation.results.metrics import METRICS
from tarot.evaluation.results.reward_comparison import RewardComparison

SCORERS = {"greedy": ("greedy_acc", "greedy_f1"), "likeliest": ("acc", "f1")}
"""The scores of a sample, and the metrics over all samples that belong to each."""


def write_inspect_logs(
    folder: Path, comparison: Comparison, answers: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Path]:
    """Write a log for each arm of a comparison.

    Args:
        folder: new or existing folder; logs of the same comparison are replaced.
        comparison: what `tarot.compare` returned.
        answers: the documents of each arm as lm-eval logs them, by the arm's name, which `tarot.compare` collects.

    Returns:
        The files, in the order of the arms.

    Raises:
        TarotError: Inspect is not installed, or a file cannot be written.
    """
    log = _log()
    files = []
    for arm in comparison.arms:
        documents = answers.get(arm.name, ())
        samples = [_sample(log, comparison, arm, row, documents) for row in range(len(comparison.gold))]
        scores = [_total(log, comparison, arm, scorer) for scorer in SCORERS]
        settings = {"arm": arm.name, "shots": comparison.shots, "labels": arm.labels}
        if arm.without_number:
            settings["without_number"] = describe_missing_numbers(arm.without_number, len(comparison.gold))
        files.append(_write(log, folder, comparison, arm.name, settings, samples, scores, arm.seconds))
    return files


def write_reward_logs(
    folder: Path, comparison: RewardComparison, answers: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Path]:
    """Write a log for base and edited model of a comparison by a reward; otherwise as `write_inspect_logs`."""
    log = _log()
    files = []
    for arm, texts in (("base", comparison.base), ("edited", comparison.edited)):
        samples = []
        for row, (question, text) in enumerate(zip(comparison.prompts, texts.texts, strict=True)):
            prompt = _prompt(answers.get(arm, ()), row, question)
            score = _score()(value=texts.rewards[row], answer=text, metadata={"fluency": texts.fluencies[row]})
            scores, metadata = {"reward": score}, {"document": question}
            samples.append(_make_sample(log, comparison.model, row, prompt, "", text, scores, metadata))
        mean = log.EvalMetric(name="mean", value=texts.summary.reward)
        totals = [log.EvalScore(name="reward", scorer="reward", metrics={"mean": mean})]
        settings = {"arm": arm, "reward": comparison.reward}
        files.append(_write(log, folder, comparison, arm, settings, samples, totals, 0.0))
    return files


def _log() -> Any:
    return import_package("inspect_ai.log", "A log of Inspect", "inspect")


def _score() -> Any:
    return importlib.import_module("inspect_ai.scorer").Score


def _sample(log: Any, comparison: Comparison, arm: Arm, row: int, documents: Sequence[Mapping[str, Any]]) -> Any:
    """Return the sample of a document: its prompt, choices, log-probabilities, text and scores."""
    gold, texts = comparison.gold[row], comparison.choices[row] if comparison.choices else ()
    document = documents[row] if documents else None
    prompt = _prompt(documents, row, comparison.texts[row])
    numbers = _log_probabilities(document, texts) if document else {}
    table = "\n".join(f"- `{text}`: {value:.4f}" for text, value in numbers.items())
    explanation = f"Log-probability of each choice:\n\n{table}" if numbers else None
    score = _score()
    scores = {
        name: score(
            value="C" if answer == gold else "I",
            answer=comparison.answer_text(row, answer, arm),
            explanation=explanation,
        )
        for name, answer in (("greedy", arm.greedy[row]), ("likeliest", arm.predicted[row]))
    }
    written = arm.written[row] if arm.greedy[row] == OUTSIDE and arm.written else ""
    text = written or comparison.answer_text(row, arm.greedy[row], arm)
    metadata = {
        "key": comparison.keys[row],
        "document": comparison.texts[row],
        "gold_probability": arm.gold_probability[row],
        "log_probabilities": numbers,
    }
    target = comparison.answer_text(row, gold)
    return _make_sample(log, comparison.model, row, prompt, target, text, scores, metadata, list(texts) or None)


def _prompt(documents: Sequence[Mapping[str, Any]], row: int, question: str) -> str:
    """Return the prompt that the model was given, or the question if no documents were logged."""
    return str(documents[row]["arguments"][0][0]) if documents else question


def _log_probabilities(document: Mapping[str, Any], texts: Sequence[str]) -> dict[str, float]:
    """Return the log-probability of each choice that has a finite one; empty for a generated text."""
    values = {}
    for text, scored in zip(texts, document["filtered_resps"], strict=False):
        if not isinstance(scored, str) and scored[0] is not None and math.isfinite(scored[0]):
            values[text] = float(scored[0])
    return values


def _make_sample(
    log: Any,
    model: str,
    row: int,
    prompt: str,
    target: str,
    text: str,
    scores: Mapping[str, Any],
    metadata: Mapping[str, Any],
    choices: list[str] | None = None,
) -> Any:
    chat, event = importlib.import_module("inspect_ai.model"), importlib.import_module("inspect_ai.event")
    user, output = chat.ChatMessageUser(content=prompt), chat.ModelOutput.from_content(model, text)
    config = chat.GenerateConfig()
    # The viewer's first tab shows events.
    answered = event.ModelEvent(model=model, input=[user], tools=[], tool_choice="none", config=config, output=output)
    events = [answered, *(event.ScoreEvent(score=score, target=target, scorer=name) for name, score in scores.items())]
    return log.EvalSample(
        id=row,
        epoch=1,
        input=prompt,
        choices=choices,
        target=target,
        messages=[user, output.message],
        output=output,
        events=events,
        scores=dict(scores),
        metadata=dict(metadata),
    )


def _total(log: Any, comparison: Comparison, arm: Arm, scorer: str) -> Any:
    metrics = {
        METRICS[name].title: log.EvalMetric(name=METRICS[name].title, value=comparison.score(name, arm=arm.name))
        for name in SCORERS[scorer]
    }
    return log.EvalScore(name=scorer, scorer=scorer, metrics=metrics)


def _write(
    log: Any,
    folder: Path,
    comparison: Comparison | RewardComparison,
    arm: str,
    settings: Mapping[str, Any],
    samples: Sequence[Any],
    scores: Iterable[Any],
    seconds: float,
) -> Path:
    now = datetime.now(UTC)
    task = f"{comparison.task} ({arm})"
    spec = log.EvalSpec(
        created=now.isoformat(),
        task=task,
        task_id=f"{comparison.adapter}-{arm}",
        task_args={**settings, "seed": comparison.seed, "adapter": comparison.adapter},
        dataset=log.EvalDataset(name=comparison.task, samples=len(samples), sample_ids=[each.id for each in samples]),
        model=comparison.model,
        config=log.EvalConfig(),
        metadata={"command": comparison.command, "seconds": seconds},
    )
    n = len(samples)
    results = log.EvalResults(total_samples=n, completed_samples=n, scores=list(scores))
    stats = log.EvalStats(started_at=now.isoformat(), completed_at=now.isoformat())
    whole = log.EvalLog(status="success", eval=spec, results=results, stats=stats, samples=list(samples))
    name = re.sub(r"[^\w.-]+", "-", f"{comparison.task}-seed{comparison.seed}-{comparison.adapter}-{arm}").strip("-")
    file = folder / f"{name}.eval"
    with replace_file(file) as part:
        log.write_eval_log(whole, str(part), format="eval")
    return file
