"""Samples: labelled documents with rendered prompts, drawn for a search or taken from the evaluation split.

lm-eval's own task object renders each prompt, with shots and chat template, so that a search and an evaluation see the
same text.
"""

import logging
import random
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED

from tarot.arguments import require_whole_number
from tarot.errors import TarotError
from tarot.objectives.tasks.documents import Doc, check_answers, document_key, evaluated_split
from tarot.objectives.tasks.prompts import ChatTemplate, render_pairs
from tarot.objectives.tasks.shots import ShotPool, resolve_num_fewshot
from tarot.objectives.tasks.tuning_split import TuningDocuments, TuningRow, find_tuning_documents

logger = logging.getLogger("tarot")

MIXED_SHOTS = (0, 2, 4, 6)  # numbers of shots under "mix", as in the paper (arXiv 2410.04277)


@dataclass(frozen=True)
class Sample:
    """A prompt with its possible answers.

    Attributes:
        id: split and row of the document, such as `train/12`.
        key: digest of the document's content (`document_key`), whatever its split and row.
        pairs: (context, continuation) texts, one for each answer. Most tasks have one context with several
            continuations; tasks such as Winogrande hold the answer in the context.
        gold: index of the right answer. Its text is blank where a reward scores what the model writes.
        num_fewshot: number of shots in the prompt.

    Example:
        >>> Sample("train/0", "a1b2", (("Sky?", " blue"), ("Sky?", " red")), gold=0, num_fewshot=0).pairs[0]
        ('Sky?', ' blue')
    """

    id: str
    key: str
    pairs: tuple[tuple[str, str], ...]
    gold: int
    num_fewshot: int


def draw_samples(
    task: Task,
    n: int,
    *,
    num_fewshot: int | str = 0,
    seed: int = 0,
    chat_template: ChatTemplate | None = None,
    documents: TuningDocuments | None = None,
    shown: set[frozenset[str]] | None = None,
) -> list[Sample]:
    """Draw the samples of a search, without replacement, and render their prompts.

    Documents that are also evaluated and documents that repeat others are left out. Documents that serve as shots are
    not samples. A task that sets `num_fewshot: 0` gets prompts without shots.

    Args:
        task: an lm-eval task of output type multiple_choice, loglikelihood or generate_until.
        n: number of samples.
        num_fewshot: number of shots in each prompt, or "mix": 0, 2, 4 or 6, drawn for each sample.
        seed: random seed for the documents, their shots and the mix.
        chat_template: renders messages; None for plain text.
        documents: the task's documents that may be samples; None finds them.
        shown: receives the question keys of each shot in the prompts.

    Raises:
        TarotError: The task has no split to tune on or too few documents, a prompt is empty, or a sample or an
            evaluated document has no right answer among its choices.

    Example:
        >>> from tarot.objectives.tasks.task_loading import load_task
        >>> len(draw_samples(load_task("synth_color"), 20))
        20
    """
    require_whole_number("num_samples", n, least=1)
    num_fewshot = resolve_num_fewshot(task, num_fewshot)
    most_shots = max(MIXED_SHOTS) if num_fewshot == "mix" else require_whole_number("num_fewshot", num_fewshot)
    documents = documents or find_tuning_documents(task)
    check_answers(task)
    pool = ShotPool(task, tuning=True) if most_shots else None
    # Under the sampler `first_n` the pool's first documents are the shots of every prompt.
    reserved = pool.first_keys(most_shots) if pool else frozenset()
    candidates = [row for row in documents.rows if row[2] not in reserved]
    left_out = documents.left_out
    if len(candidates) < n or (pool and len(pool.docs) < most_shots):
        raise TarotError(
            f"at least {n} samples and {most_shots} shots in the {documents.split!r} split of {task.config.task}",
            f"{documents.size} documents{f' ({left_out})' if left_out else ''}",
            "use fewer samples or shots",
        )
    if left_out:
        logger.warning("left out of the samples of %s: %s", task.config.task, left_out)
    rng = random.Random(seed)
    drawn: list[TuningRow] = rng.sample(candidates, n)
    samples = []
    with ExitStack() as stack:
        if pool:
            task.set_fewshot_seed(seed)
            stack.callback(pool.show({key for _, _, key in drawn}, shown))
        for row, doc, _ in drawn:
            shots = rng.choice(MIXED_SHOTS) if num_fewshot == "mix" else most_shots
            samples.append(_render_sample(task, f"{documents.split}/{row}", doc, shots, chat_template))
    return samples


def render_evaluation_documents(
    task: Task,
    *,
    num_fewshot: int = 0,
    limit: int | None = None,
    chat_template: ChatTemplate | None = None,
    shown: set[frozenset[str]] | None = None,
) -> list[Sample]:
    """Render the documents that a task evaluates, as an evaluation with the same number of shots renders them.

    Args:
        task: an lm-eval task of output type multiple_choice, loglikelihood or generate_until.
        num_fewshot: number of shots in each prompt.
        limit: render only the first documents; None for all.
        chat_template: renders messages; None for plain text.
        shown: receives the question keys of each shot in the prompts.

    Raises:
        TarotError: A prompt is empty, or a document has no right answer among its choices.

    Example:
        >>> from tarot.objectives.tasks.task_loading import load_task
        >>> len(render_evaluation_documents(load_task("synth_color"), limit=3))
        3
    """
    shots = require_whole_number("num_fewshot", resolve_num_fewshot(task, num_fewshot))
    task.set_fewshot_seed(DEFAULT_OTHER_SEED)
    split = evaluated_split(task)
    docs = islice(task.eval_docs, limit)
    with ExitStack() as stack:
        if shots:
            stack.callback(ShotPool(task).show(shown=shown))
        return [_render_sample(task, f"{split}/{row}", doc, shots, chat_template) for row, doc in enumerate(docs)]


def _render_sample(task: Task, id: str, doc: Doc, num_fewshot: int, chat_template: ChatTemplate | None) -> Sample:
    pairs, gold = render_pairs(task, id, doc, num_fewshot, chat_template)
    return Sample(id, document_key(task, doc), pairs, gold, num_fewshot)
