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


class ChatRenderer:
    """A tokenizer's chat template, applied to messages of a role and a content each.

    A template without a system role gets the system text at the beginning of the first user message. White space may
    change: many templates strip each message.

    Args:
        tokenizer: has the template.
        arguments: further variables of the template.
    """

    def __init__(self, tokenizer: Any, arguments: Mapping[str, Any]) -> None:
        self.tokenizer = tokenizer
        self.arguments = arguments
        self.system_moved = False  # whether some rendering moved the system text
        self._problems: dict[tuple[object, ...], str] = {}  # of an arrangement of roles; "" for none

    def __call__(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The prompt; without `add_generation_prompt` it ends in the last message, which is to be continued.

        Raises:
            TarotError: the template raises, or leaves out or reorders the text of a message.
        """
        problem = ""
        for arrangement in _arrangements(messages):
            problem = self._problem(arrangement, add_generation_prompt)
            if not problem:
                text, problem = self._rendered(arrangement, add_generation_prompt)
            if problem:
                continue
            if len(arrangement) < len(messages) and not self.system_moved:
                self.system_moved = True
                logger.warning("the chat template has no system role: the description is in the first user message")
            return text
        raise TarotError("a chat template that keeps the text of every message", f"one that {problem}", "try --no-chat")

    def _problem(self, messages: Sequence[Message], generate: bool) -> str:
        """What the template does wrong with messages of these roles, whatever they say.

        An answer of one letter can be found in any prompt. Words that are nowhere else tell what was left out.
        """
        roles = (*(message["role"] for message in messages), generate)
        if roles not in self._problems:
            probe = [{**message, "content": f"Words{i}ofthismessage"} for i, message in enumerate(messages)]
            self._problems[roles] = self._rendered(probe, generate)[1]
        return self._problems[roles]

    def _rendered(self, messages: Sequence[Message], generate: bool) -> tuple[str, str]:
        """The prompt, and what is wrong with it ("" if nothing is)."""
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
        return text, _lost(messages, text)


def _arrangements(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The messages as they are; and, where there is a system text, with it in the first user message."""
    yield list(messages)
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    others = [message for message in messages if message["role"] != "system"]
    if len(others) < len(messages) and others and others[0]["role"] == "user":
        break_ = "" if system[-1:].isspace() else "\n\n"
        yield [{**others[0], "content": f"{system}{break_}{others[0]['content']}"}, *others[1:]]


def _lost(messages: Sequence[Message], text: str) -> str:
    """Which message a prompt leaves out, in words; "" if it has all, in their order.

    Some templates put the system text into the last user message, so it may be anywhere.
    """
    rest = seen = "".join(text.split())
    for message in messages:
        content = "".join(message["content"].split())
        if message["role"] == "system":
            found = content in seen
        else:
            found = content in rest
            rest = rest[rest.find(content) + len(content) :]
        if not found:
            return f"leaves out or moves the {message['role']} message {message['content'].strip()[:60]!r}"
    return ""
