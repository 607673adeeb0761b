"""Write the retained prompts that are made from parts: `python -m benchmarks.study.made_prompts`.

A hundred prompts written by hand hold an edit where they are, and little beyond: see the study's README. Each of these
puts together an instruction with the answers that it allows, a body, a list of the answers or none, and a last line.
Body and answers are drawn independently, so most ask for something odd. That does not matter: what counts is that the
model goes on as before. No body has the form of a task of the study, so its tasks measure what is not retained.

The prompts are in the package (`tarot/objectives/retained_prompts.json`); this program is not.
"""

import json
import random
import re
from pathlib import Path

import tarot.objectives

FILE = Path(tarot.objectives.__file__).with_name("retained_prompts.json")
NUMBER = 400

WORDS: dict[str, list[str]] = {
    "name": [
        "Anna",
        "Ben",
        "Carla",
        "David",
        "Ella",
        "Frank",
        "Grace",
        "Henry",
        "Ines",
        "Jack",
        "Kate",
        "Leo",
        "Mia",
        "Noah",
        "Olga",
        "Peter",
        "Rosa",
        "Tina",
        "Umar",
        "Vera",
        "Will",
        "Yara",
    ],
    "place": [
        "the kitchen",
        "the garden",
        "a station",
        "the library",
        "an office",
        "the beach",
        "a market",
        "the school",
        "a hotel",
        "the forest",
        "a museum",
        "the harbour",
    ],
    "thing": [
        "bag",
        "book",
        "key",
        "umbrella",
        "letter",
        "coin",
        "lamp",
        "loaf",
        "clock",
        "chair",
        "bottle",
        "ladder",
        "guitar",
        "map",
    ],
    "animal": ["dog", "cat", "horse", "whale", "eagle", "frog", "spider", "cow", "bee", "shark", "owl", "snake"],
    "food": ["apple", "pear", "plum", "lemon", "rice", "bread", "cheese", "soup", "honey", "salad"],
    "day": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "month": [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
    "shape": ["circle", "square", "triangle", "hexagon", "cube", "sphere"],
    "job": ["baker", "doctor", "pilot", "farmer", "teacher", "plumber", "lawyer", "painter"],
    "word": [
        "river",
        "stone",
        "happy",
        "quickly",
        "dance",
        "yellowish",
        "umbrella",
        "seven",
        "under",
        "beautiful",
        "silver",
        "ran",
        "mice",
        "they",
        "open",
    ],
    "review": [
        "The soup was cold and nobody apologised.",
        "I would stay here again any time.",
        "The battery lasts two days.",
        "It broke after a week.",
        "Friendly staff, small rooms.",
        "The plot makes no sense at all.",
        "Best concert of the year!",
        "The shoes fit well but look cheap.",
    ],
    "line": [
        "Please send me the file by noon.",
        "Where did you put the spoons?",
        "What a goal!",
        "The train leaves at six.",
        "I has never seen him.",
        "They was late again.",
        "She sings well.",
        "Give me that, now!",
        "Could you open the window, please?",
        "Il pleut depuis hier.",
        "Das Brot ist noch warm.",
        "We will meet tomorrow.",
        "He had already eaten.",
    ],
    "product": [
        "a kettle for 25 euros",
        "a used car for 900 euros",
        "a pen for 80 euros",
        "a flat for two, near the park",
        "a ticket for the last train",
    ],
    "symptom": [
        "a sore throat",
        "a broken phone",
        "no water in the tap",
        "a strange noise in the engine",
        "a red light on the printer",
    ],
}
BODIES = [
    "Is {n} + {m} equal to {k} ?",
    "Which number is larger, {n} or {m} ?",
    "What comes next: {n}, {m}, {n}, {m} ?",
    "Is {n} an even number?",
    "A {animal} and a {animal} stand in {place}. Which one is heavier?",
    "Today is {day}. {name} leaves in {s} days. Which day is that?",
    "{name} was born in {month}, {name} in {month}. Whose birthday comes first in the year?",
    "Code: x = {n}; y = {m}; print(x > y)",
    "How many letters has the word {word}?",
    "Word: {word}\nWhat kind of word is it?",
    "Word: {food}\nWhich word belongs to the same group?",
    "What has more corners, a {shape} or a {shape} ?",
    "{review}",
    "Sentence: {line}",
    "{line}\nIs this a question, a statement or an order?",
    "Is the grammar of this sentence right? {line}",
    "{name} is taller than {name}. {name} is taller than both. Who is the tallest?",
    "{name} paid {n} euros for a {thing} and {m} euros for a {thing}. What did both cost together?",
    "For sale: {product}. Is the price fair?",
    "A customer has {symptom}. Who can help?",
    "Who works more at night, a {job} or a {job} ?",
    "Can you eat a {thing} ?",
    "Does a {animal} lay eggs?",
    "Is a {food} sweet?",
    "{name} put a {thing} on the {thing} in {place}. What is on top?",
    "Temperature: {n} degrees in the morning, {m} at noon. Did it get warmer?",
    "Message: {name}, the {thing} is ready. Please collect it in {place} by {day}.\nWhat should be collected?",
    "Ticket {n}{m}: {symptom} in {place}. How urgent is it?",
    "Is {month} in summer?",
    "List: {food}, {animal}, {thing}. Which one is alive?",
]
NUMBERS = {"n": (2, 99), "m": (2, 99), "k": (2, 99), "s": (2, 9)}
ANSWERS = [
    *("yes no", "Yes No", "true false", "True False", "right wrong", "valid invalid", "A B", "A B C D"),
    *("positive negative", "agree disagree", "same different", "left right", "good bad neutral"),
    *("question statement order", "1 2 3", "low medium high", "noun verb adjective other", "urgent normal"),
    *("possible impossible", "joy anger fear", "first second", "spam ham", "English French German"),
]
ANSWER_WORDS = ("animal", "food", "day", "shape", "job", "name", "month")
INSTRUCTIONS = [
    "Answer {}.",
    "Answer with one of: {}.",
    "Reply with {} only.",
    "Choose {}.",
    "Read the text and decide. Possible answers: {}.",
    "Say {}.",
    "Give the right label: {}.",
    "Options: {}",
    "Decide whether the answer is {}.",
    "One word, please: {}?",
]
LAST_LINES = ["A:", "Answer:", "Label:", "The answer is", "Decision:", "Reply:", "Category:", ""]
BEGINNINGS = ["", "", "Q: ", "Question: ", "Text: ", "Input: "]
BULLETS = ["  choice: ", "- ", "* ", "  option: "]


def fill(body: str, rng: random.Random) -> str:
    """Replace each name in braces by a word or number."""

    def word(match: re.Match[str]) -> str:
        name = match[1]
        return str(rng.randint(*NUMBERS[name])) if name in NUMBERS else rng.choice(WORDS[name])

    return re.sub(r"\{(\w+)\}", word, body)


def make(rng: random.Random) -> str:
    """Put one prompt together."""
    if rng.random() < 0.7:
        answers = rng.choice(ANSWERS).split()
    else:
        answers = rng.sample(rng.choice([WORDS[name] for name in ANSWER_WORDS]), rng.randint(2, 6))
    answers = rng.sample(answers, len(answers))
    instruction = rng.choice(INSTRUCTIONS).format(rng.choice([" or ", ", ", " / "]).join(answers))
    body = rng.choice(BEGINNINGS) + fill(rng.choice(BODIES), rng)
    if rng.random() < 0.35:
        bullet = rng.choice(BULLETS)
        body += "".join(f"\n{bullet}{answer}" for answer in answers)
    last = rng.choice(LAST_LINES)
    orders = [f"{instruction}\n\n{body}\n{last}", f"{body}\n{instruction}\n{last}", f"{instruction} {body}\n{last}"]
    return rng.choice([*orders, f"{body}\n\n{instruction}"]).rstrip()


def main() -> None:
    """Write the file, whose other prompts stay as they are."""
    rng = random.Random(0)
    prompts = json.loads(FILE.read_text(encoding="utf-8"))
    prompts["made"] = [make(rng) for _ in range(NUMBER)]
    FILE.write_text(json.dumps(prompts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
