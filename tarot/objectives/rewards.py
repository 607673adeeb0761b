"""(prompts, continuations) -> floats, higher is better: what generated texts are worth.

A reward's name states its direction, so that nobody has to remember a sign:

    sentiment:positive       valence of the text in [-1, 1], from a word list (VADER)
    sentiment:negative       the same, negated
    toxicity:low             -(share of the words that are profane), in [-1, 0], from a word list (Obscenity)
    fluency                  -log perplexity: mean log p(token | what stands before), nats, under the unedited model
    classifier:REF#LABEL     p(LABEL | text) of a text classifier, a folder or a hub id
    module:function          yours: function(prompts, continuations) -> as many numbers

Only the continuation is judged; `fluency`, and your own function if it wants to, look at the prompt too.

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
from tarot.errors import TarotError, UnknownName
from tarot.models.load import load_classifier

# prompts, continuations -> what each is worth, higher is better
Reward = Callable[[Sequence[str], Sequence[str]], Sequence[float]]

FLUENCY = "fluency"
# Rewards that come with tarot, and the packages that judge: `pip install tarot-lm[rewards]` has them all.
WORD_LISTS: Mapping[str, str] = MappingProxyType(
    {"sentiment:positive": "vaderSentiment", "sentiment:negative": "vaderSentiment", "toxicity:low": "pyobscenity"}
)
KNOWN = (*WORD_LISTS, FLUENCY, "classifier:REF#LABEL", "module:function")
CLASSIFIER_BATCH = 32  # texts of one pass


def is_reward(name: str) -> bool:
    """Whether an objective of this name judges generated texts."""
    return name == FLUENCY or ":" in name


def needs_consent(name: str) -> bool:
    """Return whether a reward imports code (`module:function`) or loads a model (`classifier:REF#LABEL`).

    Only the user may choose these, on the command line or in Python: never a file.
    """
    return is_reward(name) and name != FLUENCY and name.partition(":")[0] not in ("sentiment", "toxicity")


def check_reward_name(name: str) -> None:
    """Check that a name is written as a reward's; nothing is imported and nothing is loaded.

    Raises:
        UnknownName: No reward has this name.
        TarotError: A classifier without a label.
    """
    if name == FLUENCY or name in WORD_LISTS:
        return
    if name.startswith("classifier:"):
        reference, _, label = name.removeprefix("classifier:").rpartition("#")
        if not (reference and label):
            raise TarotError("a classifier and its label, as classifier:REF#LABEL", repr(name))
    elif not (needs_consent(name) and re.fullmatch(r"[\w.]+:\w+", name)):
        raise UnknownName("reward", name, KNOWN)


def check_reward(name: str) -> None:
    """Raise what `make_reward` would raise that can be known without loading a model.

    The module of a `module:function` is imported: call this only for a reward that the user requested.

    Raises:
        UnknownName: No reward has this name.
        TarotError: A classifier without a label, a package that is not installed, or a function that does not exist.
    """
    check_reward_name(name)
    if name in WORD_LISTS:
        if not find_spec(WORD_LISTS[name]):
            hint = "python -m pip install 'tarot-lm[rewards]'"
            raise TarotError(f"the package {WORD_LISTS[name]}, which judges {name}", "none installed", hint)
    elif name != FLUENCY and not name.startswith("classifier:"):
        _function(*name.split(":"))


def refuse_unrequested(name: str, where: str) -> None:
    """Raise TarotError if a reward that a file names needs the user's consent.

    Args:
        name: the reward, or a measure of labelled answers.
        where: names the file.
    """
    if needs_consent(name):
        what = "loads no model" if name.startswith("classifier:") else "runs no code"
        hint = f"if you trust it, ask for it: --reward {shlex.quote(name)}"
        raise TarotError(f"a reward that {what} in {where}", repr(name), hint)


def make_reward(name: str, fluency: Reward) -> Reward:
    """The reward of this name.

    Args:
        name: see above.
        fluency: what `fluency` stands for: it needs a model.

    Raises:
        UnknownName: no such reward.
        TarotError: what it takes is not here: a package, a classifier or its label, a function.
    """
    check_reward(name)
    kind, _, rest = name.partition(":")
    if name == FLUENCY:
        return fluency
    if kind == "sentiment":
        return _sentiment(1.0 if rest == "positive" else -1.0)
    if kind == "toxicity":
        return _clean
    if kind == "classifier":
        return _classifier(*rest.rsplit("#", 1))
    return _function(kind, rest)


def _sentiment(sign: float) -> Reward:
    analyzer = importlib.import_module("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()
    return lambda prompts, continuations: [
        sign * analyzer.polarity_scores(continuation)["compound"] for continuation in continuations
    ]


def _clean(prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
    find = importlib.import_module("pyobscenity").find_matches
    return [-_profane(text, [(m.start_index, m.end_index) for m in find(text)]) for text in continuations]


def _profane(text: str, spans: Sequence[tuple[int, int]]) -> float:
    """Share of the words that a span reaches into: a list may find a word several times, by several of its entries."""
    words = [match.span() for match in re.finditer(r"\S+", text)]
    hit = sum(any(begin < end_of_word and end > start for begin, end in spans) for start, end_of_word in words)
    return hit / max(len(words), 1)


def _classifier(reference: str, label: str) -> Reward:
    model, tokenizer = load_classifier(reference)
    labels = [str(label) for _, label in sorted(dict(model.config.id2label or {}).items())]
    if label not in labels:
        raise TarotError(f"a label of {reference}: {', '.join(labels)}", repr(label))
    if tokenizer.pad_token is None:
        raise TarotError("a classifier that pads texts to one length", f"{reference} without a padding token")
    # A classifier whose labels exclude each other shares one probability out; others give each label its own.
    apart = model.config.problem_type == "multi_label_classification" or len(labels) == 1

    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", math.inf))

    def judge(prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        found: list[float] = []
        for begin in range(0, len(continuations), CLASSIFIER_BATCH):
            texts = list(continuations[begin : begin + CLASSIFIER_BATCH])
            batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=longest)
            with torch.no_grad():
                logits = model(**batch.to(model.device)).logits.float()
            found += (logits.sigmoid() if apart else logits.softmax(-1))[:, labels.index(label)].tolist()
        return found

    return judge


def _function(module: str, name: str) -> Reward:
    """The user's function, checked each time for what it returns."""
    try:
        with _working_folder():
            found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the module does when it is imported
        hint = f"known rewards: {', '.join(KNOWN)}"
        reason = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise TarotError(f"the function {name} of the module {module}", reason, hint) from error
    if not callable(found):
        raise TarotError(f"a function {module}:{name}(prompts, continuations)", type(found).__name__)

    def judge(prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
        try:
            returned = found(list(prompts), list(continuations))
        except Exception as error:
            texts = f"{module}:{name} to judge {len(continuations)} texts"
            raise TarotError(texts, f"{type(error).__name__}: {error}", "check the function") from error
        try:
            values = [float(value) for value in returned]
        except (TypeError, ValueError) as error:
            raise TarotError(f"numbers from {module}:{name}", str(error)) from error
        odd = sum(not abs(value) <= LARGEST_NUMBER for value in values)
        if len(values) != len(continuations) or odd:
            got = f"{len(values)}, {odd} of them nan or beyond {LARGEST_NUMBER:g}"
            raise TarotError(f"{len(continuations)} finite numbers from {module}:{name}", got)
        return values

    return judge


@contextmanager
def _working_folder() -> Iterator[None]:
    """Modules are looked for beside the user too, as `python -m` does."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.remove(str(Path.cwd()))
