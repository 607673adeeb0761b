"""Documents: digests that tell whether two documents of a task are the same, and the index of the right answer.

Two documents are the same if they ask the same question with the same choices. Letter case, Unicode form, invisible
characters, forms of quotation marks and dashes, HTML entities, white space, punctuation at the end of a word and the
order of the choices make no difference.
"""

import hashlib
import html
import json
import re
import string
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from lm_eval.api.task import Task

from tarot.errors import TarotError

Doc = dict[str, object]

# Unicode's Default_Ignorable_Code_Point, and control characters that are no white space.
_INVISIBLE = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_PLAIN_PUNCTUATION = {
    # Apostrophes, single quotation marks, primes and accents that stand alone.
    **dict.fromkeys([*b"`\xb4", 0x2B9, 0x2BB, 0x2BC, *range(0x2018, 0x201C), 0x2032, 0x2035, 0x2039, 0x203A], "'"),
    **dict.fromkeys([*range(0x201C, 0x2020), 0x2033, 0x2036, 0x00AB, 0x00BB, 0x301D, 0x301E, 0x301F], '"'),
    **dict.fromkeys([*range(0x2010, 0x2016), 0x2043, 0x2212], "-"),  # dashes, the hyphen bullet and the minus sign
    **dict.fromkeys([0x2044, 0x2215], "/"),  # fractions
    0x131: "i",  # Turkish capital letters without and with a dot: I and \u0130
}
_PUNCTUATION_AT_END = re.compile(r"[.,;:!?。、؟،؛।॥]+(?=\s|$)")
_SHOT_TEMPLATES = ("doc_to_text", "doc_to_choice", "doc_to_target", "gen_prefix")  # `fewshot_config` may replace them
# A line such as "A. blue", "(b) blue" or "1) blue": an answer listed in the question.
_LISTED_ANSWER = re.compile(r"^[^\S\n]*[(\[]?([A-Za-z]|\d{1,2})[)\].:][^\S\n]*(\S.*)$", re.MULTILINE)


@lru_cache(maxsize=2**14)  # the choices of all documents are often the same
def normalize_text(text: str) -> str:
    r"""Return a form of the text that is equal for texts which differ only as the module's docstring lists.

    Example:
        >>> normalize_text("Is it\u00a0RED?") == normalize_text("is it red")
        True
    """
    while (plain := _normalize_characters(text)) != text:  # one replacement can expose another: "&#8203;" is invisible
        text = plain
    return " ".join(_PUNCTUATION_AT_END.sub("", text).split())


def _normalize_characters(text: str) -> str:
    text = html.unescape(_INVISIBLE.sub("", text)).translate(_PLAIN_PUNCTUATION)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return text.casefold().replace("i\u0307", "i").replace("''", '"')


def document_key(task: Task, doc: Doc) -> str:
    """Identify a document by its content.

    Returns:
        `question_key`, a hyphen, and a digest of the exact text, choices and answer.

    Example:
        >>> from tarot.objectives.tasks.task_loading import load_task
        >>> task = load_task("synth_color")
        >>> len(document_key(task, task.eval_docs[0]))
        33
    """
    choices = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else None
    exact = [task.doc_to_text(doc), choices, task.doc_to_target(doc)]
    if prefix := task.doc_to_prefix(doc):
        exact.append(prefix)
    return f"{question_key(task, doc)}-{_digest(exact)}"


def question_key(task: Task, doc: Doc) -> str:
    """Return a digest of what a document asks, equal for two documents that are the same."""
    choices = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else []
    return _question_key(task, doc, task.doc_to_text(doc), choices, task.doc_to_target, task.doc_to_prefix(doc))


def shot_keys(task: Task, shot: Doc) -> frozenset[str]:
    """Return the question's key of a shot, by the task's own templates and by those of its `fewshot_config`.

    Raises:
        TarotError: Neither can render the shot.
    """
    config = task.fewshot_cfg
    keys: set[str] = set()
    reason: Exception | None = None
    try:
        keys.add(question_key(task, shot))
    except Exception as error:  # a shot listed in `fewshot_config` may lack fields that the task's templates use
        reason = error
    shot_templates = (config.doc_to_text, config.doc_to_choice, config.doc_to_target, config.gen_prefix)
    if keys and shot_templates == tuple(getattr(task.config, name) for name in _SHOT_TEMPLATES):
        return frozenset(keys)
    try:
        choices = task.doc_to_choice(shot, config.doc_to_choice) if config.doc_to_choice is not None else []
        text = task.doc_to_text(shot, config.doc_to_text)
        prefix = task.resolve_field(shot, config.gen_prefix)
        keys.add(
            _question_key(task, shot, text, choices, lambda doc: task.doc_to_target(doc, config.doc_to_target), prefix)
        )
    except Exception as error:  # a task's templates and functions can raise anything
        reason = error
    if not keys:
        raise TarotError(
            f"The templates of {task.config.task} cannot render its shots: {type(reason).__name__}: {reason}",
            hint="check fewshot_config",
        ) from reason
    return frozenset(keys)


def question_part(key: str) -> str:
    """Return the part of a document's key that equals its `question_key`."""
    return key.partition("-")[0]


def _question_key(task: Task, doc: Doc, text: Any, choices: Any, target: Any, prefix: str | None) -> str:
    texts = [normalize_text(str(choice)) for choice in choices]
    # With multiple inputs (Winogrande) the text is an index: the choices are contexts that share a continuation.
    question, listed = _split_listed_answers(text, doc, texts) if isinstance(text, str) else ("", [])
    parts = [question, sorted(listed), sorted(texts), normalize_text(prefix or "")]
    if task.multiple_input or task.OUTPUT_TYPE in ("loglikelihood", "loglikelihood_rolling"):
        parts.append(normalize_text(str(target(doc))))  # what is scored is part of the question
    return _digest(parts)


def _split_listed_answers(text: str, doc: Doc, choices: list[str]) -> tuple[str, list[str]]:
    """Split a question into its text and the answers listed in it: a duplicate may list them in another order."""
    question = normalize_text(text)
    for answers in _lists_of_texts(doc.values()):
        listed = [normalize_text(answer) for answer in answers]
        if len(listed) == len(choices) and (remainder := _remove_answers(question, listed)) is not None:
            return remainder, listed
    lines = list(_LISTED_ANSWER.finditer(text))
    labels = "".join(line[1] for line in lines).lower()
    in_order = labels in [order[: len(lines)] for order in (string.ascii_lowercase, "123456789", "0123456789")]
    if len(lines) > 1 and len(choices) in (0, len(lines)) and in_order:
        return normalize_text(_LISTED_ANSWER.sub("", text)), [normalize_text(line[2]) for line in lines]
    remainder = _remove_answers(question, choices)
    return (question, []) if remainder is None else (remainder, choices)


def _remove_answers(text: str, answers: list[str]) -> str | None:
    """Remove the last occurrence of each answer; None unless the text has all of at least two answers."""
    if len(answers) < 2 or not all(answer and answer in text for answer in answers):
        return None
    for answer in sorted(answers, key=len, reverse=True):  # longest first: one answer may contain another
        matches = list(re.finditer(rf"(?<!\w){re.escape(answer)}(?!\w)", text))
        if not matches:
            return None
        text = f"{text[: matches[-1].start()]}\0{text[matches[-1].end() :]}"
    return text


def _lists_of_texts(values: Iterable[object]) -> Iterator[list[str]]:
    for value in values:
        if isinstance(value, dict):
            yield from _lists_of_texts(value.values())
        elif isinstance(value, list) and all(isinstance(each, str) for each in value):
            yield value


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def right_choice(task: Task, id: str, doc: Doc) -> int:
    """Return the index of the right answer among a document's choices.

    Raises:
        TarotError: There is no right answer or more than one, or a choice is empty.

    Example:
        >>> from tarot.objectives.tasks.task_loading import load_task
        >>> task = load_task("synth_color")
        >>> doc = task.eval_docs[0]
        >>> right_choice(task, "test/0", doc) == doc["gold"]
        True
    """
    place = f"{id} of {task.config.task}"
    choices = task.doc_to_choice(doc)
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if not isinstance(choices, list) or not choices or not all(str(choice).strip() for choice in choices):
        raise TarotError("a list of non-empty choices", f"{choices!r} in {place}", "check doc_to_choice")
    if isinstance(target, list) and len(target) > 1:
        several = f"{target!r} in {place}"
        raise TarotError("one right answer among the choices", several, "tarot evaluate has the task's own metrics")
    first = target[0] if isinstance(target, list) and target else target
    if isinstance(first, str) and first in choices:
        index = choices.index(first)
    elif isinstance(first, int) and 0 <= first < len(choices):
        index = int(first)  # may be a bool
    else:
        raise TarotError(f"a gold answer among {choices}", f"{target!r} in {place}", "check doc_to_target")
    if choices.count(choices[index]) > 1:
        raise TarotError(
            f"The right answer occurs twice among the choices {choices!r} in {place}.", hint="check the data"
        )
    return index


def evaluated_split(task: Task) -> str:
    """Return the name of the split that a task evaluates."""
    return str(task.config.test_split if task.has_test_docs() else task.config.validation_split)


def check_answers(task: Task) -> None:
    """Raise TarotError unless each evaluated document has one right answer among its choices, if it has choices."""
    if task.config.doc_to_choice is None:
        return
    split = evaluated_split(task)
    for row, doc in enumerate(task.eval_docs):
        right_choice(task, f"{split}/{row}", doc)
