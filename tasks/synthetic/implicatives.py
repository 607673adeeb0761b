"""Facts under implicative verbs: "Ed didn't manage to leave." says that Ed did not leave.

A verb's signature is what it implies about its complement, first affirmed, then negated: `+` it happened, `-` it did
not, `.` nothing. Two-way verbs have two signs. One-way verbs have one and are only used where they imply something.

Source of the notion: Karttunen, "Simple and phrasal implicatives", *SEM 2012. The list of verbs and the sentences are
this project's own.
"""

from random import Random
from typing import NamedTuple


class Verb(NamedTuple):
    """Verb forms, affirmed and after "didn't"; `{do}` or `{doing}` is the complement, `{other}` the person doing it."""

    signature: str
    past: str
    base: str


VERBS = (
    Verb("+-", "managed to {do}", "manage to {do}"),
    Verb("+-", "remembered to {do}", "remember to {do}"),
    Verb("+-", "bothered to {do}", "bother to {do}"),
    Verb("+-", "dared to {do}", "dare to {do}"),
    Verb("+-", "deigned to {do}", "deign to {do}"),
    Verb("+-", "happened to {do}", "happen to {do}"),
    Verb("+-", "got to {do}", "get to {do}"),
    Verb("+-", "saw fit to {do}", "see fit to {do}"),
    Verb("+-", "took the time to {do}", "take the time to {do}"),
    Verb("+-", "took the trouble to {do}", "take the trouble to {do}"),
    Verb("+-", "found the courage to {do}", "find the courage to {do}"),
    Verb("+-", "succeeded in {doing}", "succeed in {doing}"),
    Verb("-+", "forgot to {do}", "forget to {do}"),
    Verb("-+", "failed to {do}", "fail to {do}"),
    Verb("-+", "neglected to {do}", "neglect to {do}"),
    Verb("-+", "omitted to {do}", "omit to {do}"),
    Verb("-+", "avoided {doing}", "avoid {doing}"),
    Verb("-+", "refrained from {doing}", "refrain from {doing}"),
    Verb("-+", "missed the chance to {do}", "miss the chance to {do}"),
    Verb("-+", "passed up the chance to {do}", "pass up the chance to {do}"),
    Verb("+.", "forced {other} to {do}", "force {other} to {do}"),
    Verb("+.", "compelled {other} to {do}", "compel {other} to {do}"),
    Verb("+.", "caused {other} to {do}", "cause {other} to {do}"),
    Verb("+.", "made {other} {do}", "make {other} {do}"),
    Verb("-.", "refused to {do}", "refuse to {do}"),
    Verb("-.", "declined to {do}", "decline to {do}"),
    Verb("-.", "prevented {other} from {doing}", "prevent {other} from {doing}"),
    Verb("-.", "kept {other} from {doing}", "keep {other} from {doing}"),
    Verb(".-", "tried to {do}", "try to {do}"),
    Verb(".-", "attempted to {do}", "attempt to {do}"),
    Verb(".-", "allowed {other} to {do}", "allow {other} to {do}"),
    Verb(".-", "permitted {other} to {do}", "permit {other} to {do}"),
    Verb(".+", "hesitated to {do}", "hesitate to {do}"),
    Verb(".+", "thought twice about {doing}", "think twice about {doing}"),
)
DEEDS = {  # the base form: the form in -ing
    "leave": "leaving",
    "speak": "speaking",
    "vote": "voting",
    "go home": "going home",
    "open the door": "opening the door",
    "lock the car": "locking the car",
    "call the doctor": "calling the doctor",
    "pay the bill": "paying the bill",
    "sign the letter": "signing the letter",
    "read the report": "reading the report",
    "water the plants": "watering the plants",
    "clean the house": "cleaning the house",
    "feed the dog": "feeding the dog",
    "answer the question": "answering the question",
    "buy the tickets": "buying the tickets",
    "finish the book": "finishing the book",
    "join the club": "joining the club",
    "sell the boat": "selling the boat",
    "tell the truth": "telling the truth",
    "wash the dishes": "washing the dishes",
}
NAMES = ("Ed", "Mary", "John", "Anna", "Bill", "Susan", "Tom", "Kate")
FRAMES = ("{}", "Yesterday {}", "In the end {}", "Last week {}")
ONE_WAY = 0.2  # fraction of facts with one-way verbs: few, since such a verb always has the same answer


class Implicatives:
    """Facts with `answer = signature[negated]`.

    Negation is a fair coin, independent of the answer, so that it does not give the answer away. Two-way verbs, four
    facts in five, occur with either answer.
    """

    choices = ("yes", "no")

    @staticmethod
    def draw(random: Random, answer: str) -> str:
        """Draw a fact and a question to which `answer` is right."""
        negated = random.random() < 0.5
        one_way = random.random() < ONE_WAY
        sign = {"yes": "+", "no": "-"}[answer]
        verb = random.choice([v for v in VERBS if v.signature[negated] == sign and ("." in v.signature) == one_way])
        subject, other = random.sample(NAMES, 2)
        do = random.choice(tuple(DEEDS))
        predicate = f"didn't {verb.base}" if negated else verb.past
        fact = random.choice(FRAMES).format(f"{subject} {predicate}").format(do=do, doing=DEEDS[do], other=other)
        return f"Fact: {fact}. Q: Did {other if '{other}' in predicate else subject} {do}?\nA:"
