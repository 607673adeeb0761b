"""Render messages by a chat template, and check that no message loses its text."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tarot.errors import TarotError
from tarot.models.template_limit import check_constants, limited_template

logger = logging.getLogger("tarot")

Message = Mapping[str, str]
# Recorded in results and adapters: where the task's description is if the chat template has no system role.
SYSTEM_MOVED = "in the first user message"
# What a template does wrong: the index of the message it leaves out or moves, or a description; None for nothing.
Problem = int | str | None


class ChatRenderer:
    r"""Render messages, each of a role and a content, by a tokenizer's chat template.

    If the template has no system role, the system text goes to the beginning of the first user message. White space at
    both ends of a message may change, since many templates strip it.

    Attributes:
        system_moved: whether some rendering moved the system text.

    Example:
        >>> from tarot.models.chat import ChatRenderer
        >>> render = ChatRenderer(tokenizer, {})
        >>> "Did Ed leave?" in render([{"role": "user", "content": "Did Ed leave?"}])
        True
    """

    def __init__(self, tokenizer: Any, arguments: Mapping[str, Any]) -> None:
        self.tokenizer = tokenizer
        self.arguments = arguments
        self.system_moved = False
        self._problems: dict[tuple[object, ...], Problem] = {}  # by the messages' roles

    def __call__(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """Render messages; without `add_generation_prompt` the prompt ends in the last message, to be continued.

        Raises:
            TarotError: The template raises, or leaves out or reorders the text of a message.
        """
        description = ""
        for arrangement in _arrangements(messages):
            problem = self._problem_of_roles(arrangement, add_generation_prompt)
            if problem is None:
                text, problem = self._render(arrangement, add_generation_prompt)
            if problem is not None:
                description = _describe(problem, arrangement)
                continue
            if len(arrangement) < len(messages) and not self.system_moved:
                self.system_moved = True
                logger.warning("the chat template has no system role: the description is in the first user message")
            return text
        raise TarotError(
            "a chat template that keeps the text of every message", f"one that {description}", "try --no-chat"
        )

    def _problem_of_roles(self, messages: Sequence[Message], generate: bool) -> Problem:
        """Return the template's problem with messages of these roles, whatever their text.

        A one-letter answer occurs in any prompt by chance, so the check uses words that occur nowhere else.
        """
        roles = (*(message["role"] for message in messages), generate)
        if roles not in self._problems:
            probe = [{**message, "content": f"Words{i}ofthismessage"} for i, message in enumerate(messages)]
            self._problems[roles] = self._render(probe, generate)[1]
        return self._problems[roles]

    def _render(self, messages: Sequence[Message], generate: bool) -> tuple[str, Problem]:
        """Return the prompt and the template's problem with it."""
        try:
            check_constants(str(getattr(self.tokenizer, "chat_template", "")))
            with limited_template():
                text = self.tokenizer.apply_chat_template(
                    [dict(message) for message in messages],
                    tokenize=False,
                    add_generation_prompt=generate,
                    continue_final_message=not generate,
                    **self.arguments,
                )
        except Exception as error:  # a template is a program: it can raise anything
            return "", f"raises {type(error).__name__}: {str(error)[:200]}"
        return text, _find_lost(messages, text)


def _arrangements(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Yield the messages as they are and, if there is a system text, with it in the first user message."""
    yield list(messages)
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    others = [message for message in messages if message["role"] != "system"]
    if len(others) < len(messages) and others and others[0]["role"] == "user":
        separator = "" if system[-1:].isspace() else "\n\n"
        yield [{**others[0], "content": f"{system}{separator}{others[0]['content']}"}, *others[1:]]


def _find_lost(messages: Sequence[Message], text: str) -> int | None:
    """Return the index of the first message that a prompt leaves out; None if it has all, in their order.

    Some templates put the system text into the last user message, so it may be anywhere.
    """
    rest = text
    for index, message in enumerate(messages):
        content = message["content"].strip()
        if message["role"] == "system":
            is_kept = content in text
        else:
            is_kept = content in rest
            rest = rest[rest.find(content) + len(content) :]
        if not is_kept:
            return index
    return None


def _describe(problem: int | str, messages: Sequence[Message]) -> str:
    if isinstance(problem, str):
        return problem
    lost = messages[problem]
    return f"leaves out or moves the {lost['role']} message {lost['content'].strip()[:60]!r}"
