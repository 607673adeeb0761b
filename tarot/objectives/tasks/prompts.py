"""Prompts: a document with its shots and possible answers, rendered as lm-evaluation-harness itself renders it."""

from collections.abc import Callable

from lm_eval.api.task import Task

from tarot.errors import TarotError
from tarot.models.lm_eval_model import TarotLM
from tarot.objectives.tasks.documents import Doc, right_choice

# Renders a list of {role, content} messages to text, as `HFLM.apply_chat_template` does.
ChatTemplate = Callable[..., str]


def get_chat_template(lm: TarotLM, enabled: bool) -> ChatTemplate | None:
    """Return the function that renders messages for a model, or None for plain prompts.

    Args:
        lm: the model.
        enabled: whether a chat template is wanted.

    Returns:
        None if the tokenizer has no chat template or none is wanted.

    Example:
        >>> get_chat_template(TarotLM(model, tokenizer=tokenizer), enabled=False) is None
        True
    """
    has_template = getattr(lm.tokenizer, "chat_template", None) is not None
    return lm.apply_chat_template if enabled and has_template else None


def render_pairs(
    task: Task, id: str, doc: Doc, num_fewshot: int, chat_template: ChatTemplate | None
) -> tuple[tuple[tuple[str, str], ...], int]:
    """Render a document as (context, continuation) texts, one pair for each answer.

    Returns:
        The pairs, and the index of the right one. A task that generates has one pair, with the reference answer.

    Raises:
        TarotError: The prompt or the right answer is empty, or the task has another output type.
    """
    chat = chat_template is not None
    context = task.fewshot_context(
        doc,
        num_fewshot,
        apply_chat_template=chat,
        fewshot_as_multiturn=True,
        chat_template=chat_template,
        gen_prefix=task.doc_to_prefix(doc),
    )
    contexts = context if isinstance(context, list) else [context]
    if not all(text.strip() for text in contexts):
        raise TarotError(f"The prompt of {id} of {task.config.task} is empty.", hint="check doc_to_text")
    output_type = task.OUTPUT_TYPE
    if output_type in ("multiple_choice", "loglikelihood"):
        requests = task.construct_requests(doc, context, apply_chat_template=chat, chat_template=chat_template)
        instances = requests if isinstance(requests, list) else [requests]
        # The metric `acc_mutual_info` adds requests for the choices without a context; skip those.
        n_choices = len(task.doc_to_choice(doc)) if output_type == "multiple_choice" else 1
        pairs = tuple(instance.args[:2] for instance in instances[:n_choices])
        gold = right_choice(task, id, doc) if output_type == "multiple_choice" else 0
    elif output_type == "generate_until":
        target = task.doc_to_target(doc)
        if task.config.doc_to_choice is not None:
            target = task.doc_to_choice(doc)[right_choice(task, id, doc)]
        answer = str(target[0] if isinstance(target, list) else target)
        pairs, gold = ((contexts[0], ("" if chat else task.config.target_delimiter) + answer),), 0
    else:
        raise TarotError(
            "a task of output type multiple_choice, loglikelihood or generate_until",
            f"{output_type} in {task.config.task}",
        )
    # A generation task with an empty doc_to_target has no reference answers: a reward scores its texts.
    if not pairs[gold][1].strip() and task.config.doc_to_target != "":
        raise TarotError(f"The right answer of {id} of {task.config.task} is empty.", hint="check doc_to_target")
    return pairs, gold
