"""Prompts for which a gate stays closed: the bundled retained prompts, with and without a system message.

Most tasks describe themselves in a system message. Without others that have one, a gate would learn to open for any.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

from tarot.objectives.prompts import ChatTemplate
from tarot.objectives.retained import bundled_prompts

SYSTEM_MESSAGES = (
    "Answer the question.",
    "Answer in one word.",
    "You are a friendly assistant.",
    "Choose one of the options.",
    "Say whether the statement is true or false.",
    "Answer with yes or no.",
    "Read the text and do what the user asks.",
    "Give a short answer.",
    "Continue the text.",
    "You are an expert. Explain your answer.",
    "Answer with a number.",
    "Decide which label fits the text best. Answer with the label only.",
)


def closed_prompts(template: ChatTemplate | None) -> list[str]:
    """Return prompts of no task, rendered as tasks render theirs.

    Args:
        template: renders messages; None for plain text.

    Example:
        >>> len(closed_prompts(None)) > 200
        True
    """
    systems = cycle(SYSTEM_MESSAGES)

    def describe(messages: Sequence[Mapping[str, str]]) -> str:
        system = next(systems)
        if template is None:
            return f"{system}\n\n{messages[0]['content']}"
        return template([{"role": "system", "content": system}, *messages])

    return list(dict.fromkeys([*bundled_prompts(template), *bundled_prompts(describe)]))
