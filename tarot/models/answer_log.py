"""Write a model's answers to lm-eval's requests to a file, each as soon as it is there.

An evaluation can fail after its last forward pass: in a metric, a filter or an aggregation. The next run of the same
evaluation reads the answers from the file and runs the model only for the missing ones.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lm_eval.api.model import hash_args
from lm_eval.models.utils import normalize_gen_kwargs

from tarot._files.strict_json import parse_json, read_file
from tarot.errors import TarotError
from tarot.models.missing_numbers import is_number


class AnswerLog:
    """A file with one answer a line, found by a digest of the owner and the request.

    Args:
        path: the file; created with the first answer.
        owner: names model, weights and edit. Answers of another owner are not used.

    Attributes:
        earlier_seconds: how long the answers that were found took when they were computed.

    Raises:
        TarotError: the file cannot be read.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self.path, self.owner = path, owner
        self.earlier_seconds = 0.0
        self._answers: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self._latest = time.perf_counter()
        try:
            lines = read_file(path).split(b"\n") if path.exists() else []
        except OSError as error:
            raise TarotError(f"Cannot read {path}: {error.strerror or error}", hint="remove it") from error
        for line in lines:
            with suppress(ValueError):  # the last line of an interrupted run
                entry = parse_json(line)
                if isinstance(entry, dict) and isinstance(entry.get("key"), str):
                    self._answers[entry["key"]] = entry.get("answer")
                    if isinstance(seconds := entry.get("seconds"), float) and seconds > 0 and is_number(seconds):
                        self._seconds[entry["key"]] = seconds

    def find(self, kind: str, arguments: Sequence[Any]) -> Any:
        """Return the answer to a request, or None."""
        key = self._key(kind, arguments)
        answer = self._answers.get(key)
        if answer is None or not _is_answer(kind, answer):
            return None
        self.earlier_seconds += self._seconds.pop(key, 0.0)
        return tuple(answer) if kind == "loglikelihood" else answer

    def add_partial(self, kind: str, arguments: Sequence[Any], answer: Any) -> None:
        """Keep an answer, unless it was sampled. lm-eval's models call their cache by this name."""
        key = self._key(kind, arguments)
        if _may_differ(kind, arguments) or key in self._answers:
            return
        answer = [float(answer[0]), bool(answer[1])] if kind == "loglikelihood" else answer
        self._answers[key] = answer
        before, self._latest = self._latest, time.perf_counter()
        line = json.dumps({"key": key, "answer": answer, "seconds": round(self._latest - before, 6)}) + "\n"
        try:
            # Do not follow a symbolic link: it could point anywhere.
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o600)
            with os.fdopen(file, "a", encoding="utf-8", errors="replace") as lines:
                lines.write(line)
        except OSError as error:
            reason = error.strerror or str(error)
            raise TarotError(f"Cannot write {self.path}: {reason}", hint="choose another place") from error

    def _key(self, kind: str, arguments: Sequence[Any]) -> str:
        return hashlib.sha256(json.dumps([self.owner, kind, list(arguments)], default=str).encode()).hexdigest()


class LoggedAnswers:
    """An lm-eval model that answers from a log and runs another model for the missing answers.

    Args:
        lm: the model; the log becomes its cache hook, to which it gives each answer but those that are no numbers.
        log: earlier answers.
    """

    def __init__(self, lm: Any, log: AnswerLog) -> None:
        self._lm, self._log = lm, log
        lm.set_cache_hook(log)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lm, name)

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """Return log-probability (nats) and whether it is greedy for each request."""
        return self._answered("loglikelihood", requests)

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[Any]:
        """Return the log-probability of each text in nats."""
        return self._answered("loglikelihood_rolling", requests)

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """Return the text that continues each prompt."""
        return self._answered("generate_until", requests)

    def _answered(self, kind: str, requests: Sequence[Any]) -> list[Any]:
        answers = [self._log.find(kind, request.args) for request in requests]
        missing = [i for i, answer in enumerate(answers) if answer is None]
        if missing:
            new = getattr(self._lm, kind)([requests[i] for i in missing])
            for i, answer in zip(missing, new, strict=True):
                answers[i] = answer
        return answers


def _is_answer(kind: str, answer: Any) -> bool:
    """Whether a logged value is an answer to a request of this kind, with numbers."""
    if kind == "generate_until":
        return isinstance(answer, str)
    if kind == "loglikelihood":
        is_scored = isinstance(answer, list) and list(map(type, answer)) == [float, bool]
        return is_scored and is_number(answer[0])
    return isinstance(answer, float) and is_number(answer)


def is_sampled(options: Mapping[str, Any] | None) -> bool:
    """Whether lm-eval samples with these options of generation, so that a second answer may differ.

    Example:
        >>> is_sampled({"temperature": 0.7}), is_sampled({"max_gen_toks": 8})
        (True, False)
    """
    return bool(normalize_gen_kwargs(dict(options or {}))["do_sample"])


def _may_differ(kind: str, arguments: Sequence[Any]) -> bool:
    """Whether a second answer to the same request may differ."""
    options = arguments[1] if kind == "generate_until" and len(arguments) > 1 else None
    return isinstance(options, Mapping) and is_sampled(options)


# Keys of a response cache: for the model and edit whose answers it holds, and before the key of an answer that is no
# number. No hash of a request has these forms.
OWNER = "tarot:owner"
BROKEN = "tarot:broken:"


def claim_response_cache(cache: Any, owner: str) -> bool:
    """Record whose answers a cache holds, since lm-eval's keys contain only the prompts. Drop those without numbers.

    Returns:
        Whether the cache holds answers.

    Raises:
        TarotError: the cache belongs to another owner.
    """
    if (stored := cache.get(OWNER, "another model" if len(cache) else owner)) != owner:
        raise TarotError(f"a response cache of {owner}", f"one of {stored}", "give --use_cache another path")
    for key in [key for key in cache if key.startswith(BROKEN)]:
        cache.pop(key.removeprefix(BROKEN), None)
        del cache[key]
    cache[OWNER] = owner
    cache.commit()
    return len(cache) > 1


class NumbersOnly:
    """Hand a model's answers to a cache hook of lm-eval, except those without numbers: the next run must not find them.

    lm-eval itself writes every answer into its response cache afterwards. So the cache gets the keys of these answers
    too, and `claim_response_cache` drops them.

    Args:
        hook: receives the answers.
        is_broken: whether the model had no numbers to continue a prompt with.
    """

    def __init__(self, hook: Any, is_broken: Callable[[str], bool]) -> None:
        self._hook, self._is_broken = hook, is_broken

    def add_partial(self, kind: str, arguments: Sequence[Any], answer: Any) -> None:
        """Pass on an answer unless the model computed NaN or infinity for it."""
        if is_number(answer) and not (kind == "generate_until" and self._is_broken(arguments[0])):
            self._hook.add_partial(kind, arguments, answer)
        elif (cache := getattr(self._hook, "dbdict", None)) is not None:
            cache[BROKEN + hash_args(kind, arguments)] = True
