"""Rewards: functions (prompts, continuations) -> floats that score generated texts; higher is better.

A reward's name states its direction, so that nobody has to remember a sign:

    sentiment:positive       valence of the text in [-1, 1], from a word list (VADER)
    sentiment:negative       the same, negated
    toxicity:low             -(fraction of profane words), in [-1, 0], from a word list (Obscenity)
    fluency                  negative log perplexity under the unedited model: mean log p(token), in nats
    classifier:REF#LABEL     p(LABEL | text) of a text classifier, a folder or a hub id
    module:function          yours: function(prompts, continuations) -> one number for each continuation

Rewards score the continuation alone, except `fluency` and `module:function`, which may read the prompt.

Source of the valence: Hutto and Gilbert, VADER, ICWSM 2014.
"""

import importlib
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import torch

from tarot._files.strict_json import LARGEST_NUMBER
from tarot.errors import InvalidValueError, TarotError, UnknownName
from tarot.models.load import load_classifier

# (prompts, continuations) -> score of each continuation, higher is better
Reward = Callable[[Sequence[str], Sequence[str]], Sequence[float]]

FLUENCY = "fluency"
# Rewards from word lists and the packages that hold the lists; `pip install tarot-lm[rewards]` installs all.
WORD_LISTS: Mapping[str, str] = MappingProxyType(
    {"sentiment:positive": "vaderSentiment", "sentiment:negative": "vaderSentiment", "toxicity:low": "pyobscenity"}
)
KNOWN = (*WORD_LISTS, FLUENCY, "classifier:REF#LABEL", "module:function")
CLASSIFIER_BATCH_SIZE = 32  # texts of one forward pass


def is_reward(name: str) -> bool:
    """Return whether an objective of this name scores generated texts.

    Example:
        >>> is_reward("sentiment:positive"), is_reward("log_probability")
        (True, False)
    """
    return name == FLUENCY or ":" in name


def needs_consent(name: str) -> bool:
    """Return whether a reward imports code (`module:function`) or loads a model (`classifier:REF#LABEL`).

    Only the user may choose these, on the command line or in Python: never a file.

    Example:
        >>> needs_consent("os:system"), needs_consent("toxicity:low")
        (True, False)
    """
    return is_reward(name) and name != FLUENCY and name.partition(":")[0] not in ("sentiment", "toxicity")


def check_reward_name(name: str) -> None:
    """Check the spelling of a reward's name, without importing or loading anything.

    Raises:
        UnknownName: There is no such reward.
        TarotError: A classifier has no label.
    """
    if name == FLUENCY or name in WORD_LISTS:
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
    if name in WORD_LISTS:
        if not find_spec(WORD_LISTS[name]):
            hint = "python -m pip install 'tarot-lm[rewards]'"
            raise TarotError(f"The reward {name} needs the package {WORD_LISTS[name]}.", hint=hint)
    elif name != FLUENCY and not name.startswith("classifier:"):
        _function_reward(*name.split(":"))


def refuse_unrequested(name: str, where: str) -> None:
    """Raise TarotError if a file names a reward that needs the user's consent.

    Args:
        name: the file's objective: a reward, or an answer score.
        where: names the file in the error.
    """
    if needs_consent(name):
        what = "loads a model" if name.startswith("classifier:") else "runs code"
        hint = f"if you trust it, pass --reward {shlex.quote(name)}"
        raise TarotError(f"{where} names the reward {name!r}, which {what}.", hint=hint)


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
    kind, _, rest = name.partition(":")
    if name == FLUENCY:
        return fluency
    if kind == "sentiment":
        return _sentiment_reward(1.0 if rest == "positive" else -1.0)
    if kind == "toxicity":
        return _low_toxicity
    if kind == "classifier":
        return _classifier_reward(*rest.rsplit("#", 1))
    return _function_reward(kind, rest)


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
    try:
        with _working_folder_importable():
            function = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing the module can raise anything
        hint = f"known rewards: {', '.join(KNOWN)}"
        reason = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise TarotError(f"the function {name} of the module {module}", reason, hint) from error
    if not callable(function):
        raise TarotError(f"a function {module}:{name}(prompts, continuations)", type(function).__name__)

    def checked_rewards(prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        try:
            returned = function(list(prompts), list(continuations))
        except Exception as error:
            expected = f"{module}:{name} to judge {len(continuations)} texts"
            raise TarotError(expected, f"{type(error).__name__}: {error}", "check the function") from error
        try:
            values = [float(value) for value in returned]
        except (TypeError, ValueError) as error:
            raise TarotError(f"numbers from {module}:{name}", str(error)) from error
        n_bad = sum(not abs(value) <= LARGEST_NUMBER for value in values)
        if len(values) != len(continuations) or n_bad:
            got = f"{len(values)}, {n_bad} of them nan or beyond {LARGEST_NUMBER:g}"
            raise TarotError(f"{len(continuations)} finite numbers from {module}:{name}", got)
        return values

    return checked_rewards


@contextmanager
def _working_folder_importable() -> Iterator[None]:
    """Let the body import modules from the working folder, as `python -m` does."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.remove(str(Path.cwd()))
