"""Rewards: functions (prompts, continuations) -> floats that score generated texts; higher is better.

A reward's name states its direction, so that nobody has to remember a sign:

    sentiment:positive       valence of the text in [-1, 1], from a word list (VADER)
    sentiment:negative       the same, negated
    toxicity:low             -(fraction of profane words), in [-1, 0], from a word list (Obscenity)
    length:short, format:json, keywords:A,B, refusal:low, regex:PATTERN and more: see `text_rewards` in this folder
    fluency                  negative log perplexity under the unedited model: mean log p(token), in nats
    classifier:REF#LABEL     p(LABEL | text) of a text classifier, a folder or a hub id
    module:function          yours: function(prompts, continuations) -> one number for each continuation

    A*0.7+B*0.3              a weighted sum of rewards, such as sentiment:positive*0.7+length:short*0.3

Rewards score the continuation alone, except `fluency` and `module:function`, which may read the prompt.

Source of the valence: Hutto and Gilbert, VADER, ICWSM 2014.
"""

import importlib
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from operator import mul
from types import MappingProxyType

import torch

from tarot._files.strict_json import LARGEST_NUMBER
from tarot.errors import InvalidValueError, TarotError, UnknownName, require_package
from tarot.models.load import load_classifier
from tarot.objectives.black_box import import_function, is_black_box
from tarot.objectives.rewards.text_rewards import NAMES as TEXT_REWARDS
from tarot.objectives.rewards.text_rewards import highest_text_reward, is_text_reward, make_text_reward

# (prompts, continuations) -> score of each continuation, higher is better
Reward = Callable[[Sequence[str], Sequence[str]], Sequence[float]]

FLUENCY = "fluency"
# Rewards from word lists and the packages that hold the lists; the extra `rewards` installs all.
WORD_LISTS: Mapping[str, str] = MappingProxyType(
    {"sentiment:positive": "vaderSentiment", "sentiment:negative": "vaderSentiment", "toxicity:low": "pyobscenity"}
)
KNOWN = (*WORD_LISTS, *TEXT_REWARDS, FLUENCY, "classifier:REF#LABEL", "module:function")
CLASSIFIER_BATCH_SIZE = 32  # texts of one forward pass
_WEIGHT = r"\*([0-9]+(?:\.[0-9]+)?)"


def is_reward(name: str) -> bool:
    """Return whether an objective of this name scores generated texts.

    Example:
        >>> is_reward("sentiment:positive"), is_reward("log_probability")
        (True, False)
    """
    return not is_black_box(name) and (name == FLUENCY or ":" in name or len(split_sum(name)) > 1)


def split_sum(name: str) -> tuple[tuple[str, float], ...]:
    """Return the rewards and weights of a weighted sum; the name itself, with weight 1, if it is none.

    Each term of a sum ends with `*` and a positive weight. A name that begins with `regex:` is one pattern.

    Example:
        >>> split_sum("sentiment:positive*0.7+length:short*0.3")
        (('sentiment:positive', 0.7), ('length:short', 0.3))
    """
    if name.startswith("regex:") or not re.fullmatch(rf"(.+?{_WEIGHT}\+)*.+?{_WEIGHT}", name):
        return ((name, 1.0),)
    return tuple((term, float(weight)) for term, weight in re.findall(rf"(.+?){_WEIGHT}(?:\+|$)", name))


def highest_reward(name: str) -> float:
    """Return the highest score that a text can have; infinity where that is unknown, or no text has it.

    Example:
        >>> highest_reward("format:json"), highest_reward("toxicity:low"), highest_reward("sentiment:positive")
        (1.0, 0.0, inf)
    """

    def highest(term: str) -> float:
        return 0.0 if term == "toxicity:low" else highest_text_reward(term) if is_text_reward(term) else math.inf

    return sum(weight * highest(term) for term, weight in split_sum(name))


def needs_consent(name: str) -> bool:
    """Return whether a reward imports code (`module:function`), loads a model (`classifier:REF#LABEL`), or can hang.

    A regular expression can take forever. Only the user may choose these, on the command line or in Python: never a
    file.

    Example:
        >>> needs_consent("os:system"), needs_consent("toxicity:low")
        (True, False)
    """
    if not is_reward(name):
        return False
    return any(
        term != FLUENCY
        and term.partition(":")[0] not in ("sentiment", "toxicity")
        and (not is_text_reward(term) or term.startswith("regex:"))
        for term, _ in split_sum(name)
    )


def check_reward_name(name: str) -> None:
    """Check the spelling of a reward's name, without importing or loading anything.

    Raises:
        UnknownName: There is no such reward.
        TarotError: A classifier has no label.
    """
    terms = split_sum(name)
    if len(terms) > 1 or terms[0][0] != name:
        if any(not 0 < weight <= LARGEST_NUMBER for _, weight in terms):
            raise InvalidValueError("positive weights", repr(name), "a reward's name states its direction")
        for term, _ in terms:
            check_reward_name(term)
        return
    if name == FLUENCY or name in WORD_LISTS:
        return
    if is_text_reward(name):
        make_text_reward(name)
        return
    if name.startswith("classifier:"):
        reference, _, label = name.removeprefix("classifier:").rpartition("#")
        if not (reference and label):
            raise InvalidValueError("a classifier and its label, as classifier:REF#LABEL", repr(name))
    elif not (needs_consent(name) and re.fullmatch(r"[\w.]+:\w+", name)):
        raise UnknownName("reward", name, KNOWN)


def check_reward(name: str) -> None:
    """Check that a reward can be made, without loading a model.

    The module of a `module:function` is imported: call this only for a reward that the user requested.

    Raises:
        UnknownName: There is no such reward.
        TarotError: A classifier has no label, a package is not installed, or a function cannot be imported.
    """
    check_reward_name(name)
    for term, _ in split_sum(name):
        if term in WORD_LISTS:
            require_package(WORD_LISTS[term], f"The reward {term}", "rewards")
        elif term != FLUENCY and not is_text_reward(term) and not term.startswith("classifier:"):
            _function_reward(*term.split(":"))


def refuse_unrequested(name: str, where: str, option: str = "reward") -> None:
    """Raise TarotError if a file names a reward that needs the user's consent.

    Args:
        name: the file's objective: a reward, or an answer score.
        where: names the file in the error.
        option: of the command line, with which the user can name it.
    """
    if needs_consent(name):
        kinds = {"classifier": "loads a model", "regex": "matches a pattern"}
        what = kinds.get(name.partition(":")[0], "runs code")
        hint = f"if you trust it, pass --{option} {shlex.quote(name)}"
        raise TarotError(f"{where} names the {option} {name!r}, which {what}.", hint=hint)


def make_reward(name: str, fluency: Reward) -> Reward:
    """Make the reward of this name.

    Args:
        name: as in the module's docstring.
        fluency: the reward to return for `fluency`, which needs a model.

    Raises:
        UnknownName: There is no such reward.
        TarotError: A package, a classifier, its label or a function is missing.

    Example:
        >>> reward = make_reward("sentiment:positive", fluency=lambda prompts, continuations: [0.0])
        >>> reward(["The film was"], [" wonderful"])
        [0.5719]
    """
    check_reward(name)
    terms = split_sum(name)
    if len(terms) > 1 or terms[0][0] != name:
        return _weighted_sum([(make_reward(term, fluency), weight) for term, weight in terms])
    kind, _, rest = name.partition(":")
    if is_text_reward(name):
        score = make_text_reward(name)
        return lambda prompts, continuations: [score(continuation) for continuation in continuations]
    if name == FLUENCY:
        return fluency
    if kind == "sentiment":
        return _sentiment_reward(1.0 if rest == "positive" else -1.0)
    if kind == "toxicity":
        return _low_toxicity
    if kind == "classifier":
        return _classifier_reward(*rest.rsplit("#", 1))
    return _function_reward(kind, rest)


def _weighted_sum(terms: Sequence[tuple[Reward, float]]) -> Reward:
    def weighted(prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        scored = [reward(prompts, continuations) for reward, _ in terms]
        weights = [weight for _, weight in terms]
        return [sum(map(mul, weights, scores)) for scores in zip(*scored, strict=True)]

    return weighted


def _sentiment_reward(sign: float) -> Reward:
    analyzer = importlib.import_module("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()
    return lambda prompts, continuations: [
        sign * analyzer.polarity_scores(continuation)["compound"] for continuation in continuations
    ]


def _low_toxicity(prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
    find_matches = importlib.import_module("pyobscenity").find_matches
    return [
        -_profane_fraction(text, [(match.start_index, match.end_index) for match in find_matches(text)])
        for text in continuations
    ]


def _profane_fraction(text: str, spans: Sequence[tuple[int, int]]) -> float:
    """Return the fraction of words that overlap a span; several entries of the list may match the same word."""
    words = [match.span() for match in re.finditer(r"\S+", text)]
    n_profane = sum(any(begin < end_of_word and end > start for begin, end in spans) for start, end_of_word in words)
    return n_profane / max(len(words), 1)


def _classifier_reward(reference: str, label: str) -> Reward:
    model, tokenizer = load_classifier(reference)
    labels = [str(label) for _, label in sorted(dict(model.config.id2label or {}).items())]
    if label not in labels:
        raise TarotError(f"a label of {reference}: {', '.join(labels)}", repr(label))
    if tokenizer.pad_token is None:
        raise TarotError(f"The tokenizer of {reference} has no padding token.")
    # Several labels of one classification share a softmax; independent labels have a sigmoid each.
    independent = model.config.problem_type == "multi_label_classification" or len(labels) == 1
    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", math.inf))

    def label_probabilities(prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        probabilities: list[float] = []
        for begin in range(0, len(continuations), CLASSIFIER_BATCH_SIZE):
            texts = list(continuations[begin : begin + CLASSIFIER_BATCH_SIZE])
            batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=longest)
            with torch.no_grad():
                logits = model(**batch.to(model.device)).logits.float()
            by_label = logits.sigmoid() if independent else logits.softmax(-1)
            probabilities += by_label[:, labels.index(label)].tolist()
        return probabilities

    return label_probabilities


def _function_reward(module: str, name: str) -> Reward:
    """Import the user's function and check what it returns at each call."""
    function = import_function(module, name, "prompts, continuations")

    def checked_rewards(prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        try:
            returned = function(list(prompts), list(continuations))
        except Exception as error:
            failure = f"{module}:{name} failed to judge {len(continuations)} texts"
            raise TarotError(f"{failure}: {type(error).__name__}: {error}", hint="check the function") from error
        try:
            values = [float(value) for value in returned]
        except (TypeError, ValueError) as error:
            raise TarotError(f"{module}:{name} did not return numbers: {error}") from error
        n_bad = sum(not abs(value) <= LARGEST_NUMBER for value in values)
        if len(values) != len(continuations) or n_bad:
            got = f"{len(values)}, {n_bad} of them nan or beyond {LARGEST_NUMBER:g}"
            raise TarotError(f"{len(continuations)} finite numbers from {module}:{name}", got)
        return values

    return checked_rewards
