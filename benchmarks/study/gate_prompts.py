"""Prompts that try a gate: paraphrases of the study's tasks, and questions that look like a task and are none of it."""

from collections.abc import Callable
from typing import NamedTuple

from tarot.objectives.tasks.prompts import ChatTemplate


class Wording(NamedTuple):
    """Another wording of a task.

    Attributes:
        system: what the system message says; "" for none.
        user: what the user writes; braces stand for the parts of a document.
        split: texts between which the parts of a document stand in the task's own prompt.
    """

    system: str
    user: str
    split: tuple[str, ...]


_FACT, _STEPS, _REASON = ("Fact: ", " Q: ", "\nA:"), ("starting point? ", "\nA:"), ("\n\n", "\nThe above")
_COLOR, _NEWS = ("representation: ", " ?"), ("Article: ", "\nTopic:")
PARAPHRASES: dict[str, tuple[Wording, ...]] = {
    "entailed_polarity": (
        Wording("", "Here is something true: {}\nBased on it, tell me: {} Reply yes or no.", _FACT),
        Wording("You are a careful reader. Reply with yes or no only.", "{} {}", _FACT),
        Wording("", "Sentence: {}\nQuestion about the sentence: {}\nYour answer (yes/no):", _FACT),
    ),
    "navigate": (
        Wording("", "I walk as follows. {} Am I back where I began? Say True or False.", _STEPS),
        Wording("Decide whether a route ends where it starts. Reply True or False.", "Route: {}\nVerdict:", _STEPS),
        Wording("", "Steps: {}\nDoes one end up at the same place? True or False?", _STEPS),
    ),
    "winowhy": (
        Wording("", "Is this explanation of a pronoun right? Reply correct or incorrect.\n{}", _REASON),
        Wording("You check explanations. Reply correct or incorrect.", "Text: {}\nVerdict:", _REASON),
        Wording("", "{}\nTell me whether the reason that is given makes sense (correct or incorrect).", _REASON),
    ),
    "color": (
        Wording("", "Name the color {} in one word.", _COLOR),
        Wording("You know all color codes.", "Which common color is nearest to {}?", _COLOR),
        Wording("", "I see {} in a style sheet. Is it white, blue, orange, black, red, brown or green?", _COLOR),
    ),
    "ag_news": (
        Wording("", "{}\nIs this news about the world, sports, business or technology?", _NEWS),
        Wording("You sort news into World, Sports, Business and Technology.", "{}", _NEWS),
        Wording("", "Headline and lead: {}\nSection (World, Sports, Business, Technology):", _NEWS),
    ),
}
QUESTIONS = (
    ("The Great Wall of China is more than 20,000 kilometers long.", "Is the Great Wall of China visible from space?"),
    ("Honey does not spoil if it is sealed.", "Can honey go bad in a sealed jar?"),
    ("The Amazon is the largest rainforest.", "Is the Amazon a desert?"),
    ("A dozen is twelve.", "Are ten eggs a dozen?"),
    ("The library opens at nine.", "Is the library open at eight?"),
    ("Whales are mammals.", "Do whales lay eggs?"),
    ("Gold is heavier than iron.", "Does gold float?"),
    ("The ticket costs ten euros and Tom has eight.", "Can Tom buy the ticket?"),
    ("Lisa is older than Ben.", "Is Ben older than Lisa?"),
    ("All squares are rectangles.", "Is every rectangle a square?"),
    ("Water freezes at zero degrees.", "Is water liquid at minus ten degrees?"),
    ("The meeting was moved to Friday.", "Is the meeting on Thursday?"),
    ("Iceland is an island.", "Does Iceland border Norway?"),
    ("The museum is closed on Mondays.", "Is the museum open on Sunday?"),
    ("Penguins live in the southern hemisphere.", "Do penguins live at the North Pole?"),
    ("The battery lasts ten hours.", "Will it last for a flight of six hours?"),
    ("Anna is allergic to nuts.", "Should Anna eat peanut butter?"),
    ("The bridge was finished in 1932.", "Was the bridge there in 1940?"),
    ("A triangle has three sides.", "Does a triangle have four corners?"),
    ("The recipe needs two eggs and there is one.", "Are there enough eggs?"),
)
"""Facts with a question that the fact answers, or nearly so."""

LOOK_ALIKES: dict[str, Callable[[str, str], tuple[str, str]]] = {
    "yes/no question": lambda fact, question: ("", f"{question} Answer yes or no."),
    "passage and question": lambda fact, question: ("", f"Passage: {fact}\nQuestion: {question}\nAnswer yes or no:"),
    "yes/no, with instruction": lambda fact, question: ("Answer the question with yes or no.", f"Q: {question}\nA:"),
    "true/false, with instruction": lambda fact, question: (
        "Say whether the statement is true. Answer True or False.",
        f"Q: Is this statement true? {fact}\nA:",
    ),
    "template of entailed_polarity": lambda fact, question: (
        "Given a fact, answer the following question with a yes or a no.",
        f"Fact: {fact} Q: {question}\nA:",
    ),
}
"""Other questions in several forms; the last is the very template of a task, filled with other questions."""


def render(system: str, user: str, template: ChatTemplate | None) -> str:
    """Render a prompt as tasks do."""
    if template is None:
        return f"{system}\n\n{user}" if system else user
    messages = [{"role": "system", "content": system}] if system else []
    return template([*messages, {"role": "user", "content": user}])


def paraphrase(wording: Wording, prompt: str, template: ChatTemplate | None) -> str:
    """Return a task's plain prompt in another wording."""
    parts, rest = [], prompt.split(wording.split[0], 1)[1]
    for text in wording.split[1:]:
        part, rest = rest.split(text, 1)
        parts.append(part)
    return render(wording.system, wording.user.format(*parts), template)


def other_prompts(make: Callable[[str, str], tuple[str, str]], template: ChatTemplate | None) -> list[str]:
    """Return the questions in one form."""
    return [render(*make(fact, question), template) for fact, question in QUESTIONS]
