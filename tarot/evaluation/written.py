"""Texts of a model whose greedy answers are none of the choices, so that results can show them.

Scoring the choices says only that the model would write something else. Generating costs a pass over the prompt and one
for each token, so only these documents are generated, and only the first tokens.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from lm_eval.api.task import Task

from tarot.edit.adapter import Adapter
from tarot.evaluation.lm_eval_results import LoggedDocument, read_answers, shorten_answer
from tarot.evaluation.results.comparison import OUTSIDE
from tarot.models.lm_eval_bars import hidden_bars
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.text_generation import TextGenerator

WRITTEN_TOKENS = 10
"""Tokens that are generated: enough to see what kind of answer it is."""


def write_outside(
    loaded: LoadedModel,
    task: Task,
    documents: Sequence[LoggedDocument],
    edit: Adapter | None = None,
    batch_size: int | None = None,
) -> tuple[str, ...]:
    """Return the beginning of what greedy decoding writes for each document that it answers outside the choices.

    A task that generates has its texts already. No text is known if the choices are contexts of one continuation.

    Returns:
        A text for each document in printable characters, "" for a document that is answered by a choice or that has
        no number.

    Example:
        >>> from tarot.evaluation.lm_eval_results import logged_documents
        >>> from tarot.objectives.tasks.task_loading import load_task
        >>> task = load_task("synth_color")
        >>> documents = logged_documents(tarot.evaluate(model, tokenizer, "synth_color", limit=4), "synth_color")
        >>> len(write_outside(LoadedModel.from_objects(model, tokenizer), task, documents))
        4
    """
    _, arm = read_answers(task, documents)
    rows = [row for row, answer in enumerate(arm.greedy) if answer == OUTSIDE and row not in arm.without_number]
    if task.OUTPUT_TYPE == "generate_until":
        texts: Mapping[int, str] = {row: str(documents[row]["resps"][0][0]) for row in rows}
    elif task.multiple_input or not rows:
        texts = {}
    else:
        prompts = [documents[row]["arguments"][0][0] for row in rows]
        texts = dict(zip(rows, _generate(loaded, prompts, edit, batch_size), strict=True))
    return tuple(shorten_answer(texts.get(row, "")) for row in range(len(documents)))


def _generate(
    loaded: LoadedModel, prompts: Sequence[str], edit: Adapter | None, batch_size: int | None
) -> Sequence[str]:
    options = {"until": [], "max_gen_toks": WRITTEN_TOKENS, "do_sample": False}
    generator = TextGenerator(TarotLM(loaded.model, tokenizer=loaded.tokenizer), prompts, options, batch_size)
    with edit.apply(loaded.model) if edit else nullcontext(), hidden_bars():
        return generator.generate(seed=0, shows_bar=True)
