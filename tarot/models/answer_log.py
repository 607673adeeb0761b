"""Write a model's answers to lm-eval's requests to a file, each as soon as it is there.

An evaluation can fail after its last forward pass: in a metric, a filter or an aggregation. The next run of the same
evaluation reads the answers from the file and runs the model only for the missing ones.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tarot._files.strict_json import BROKEN_JSON
from tarot.errors import TarotError


class AnswerLog:
    """A file with one answer a line, found by a digest of the owner and the request.

    Args:
        path: the file; created with the first answer.
        owner: names model, weights and edit. Answers of another owner are not used.

    Raises:
        TarotError: the file cannot be read.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self.path, self.owner = path, owner
        self._answers: dict[str, Any] = {}
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
        except OSError as error:
            raise TarotError(f"to read {path}", error.strerror or str(error), "remove it") from error
        for line in lines:
            with suppress(*BROKEN_JSON):  # the last line of an interrupted run
                entry = json.loads(line)
                if isinstance(entry, dict) and isinstance(entry.get("key"), str):
                    self._answers[entry["key"]] = entry.get("answer")

    def find(self, kind: str, arguments: Sequence[Any]) -> Any:
        """Return the answer to a request, or None."""
        answer = self._answers.get(self._key(kind, arguments))
        if kind == "loglikelihood":
            return (answer[0], answer[1]) if answer is not None and _is_scored(answer) else None
        return answer if isinstance(answer, str if kind == "generate_until" else float) else None

    def add_partial(self, kind: str, arguments: Sequence[Any], answer: Any) -> None:
        """Keep an answer, unless it was sampled. lm-eval's models call their cache by this name."""
        key = self._key(kind, arguments)
        if _is_sampled(kind, arguments) or key in self._answers:
            return
        answer = [float(answer[0]), bool(answer[1])] if kind == "loglikelihood" else answer
        self._answers[key] = answer
        line = json.dumps({"key": key, "answer": answer}) + "\n"
        try:
            # Do not follow a symbolic link: it could point anywhere.
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o600)
            with os.fdopen(file, "a", encoding="utf-8", errors="replace") as lines:
                lines.write(line)
        except OSError as error:
            raise TarotError(f"to write {self.path}", error.strerror or str(error), "choose another place") from error

    def _key(self, kind: str, arguments: Sequence[Any]) -> str:
        return hashlib.sha256(json.dumps([self.owner, kind, list(arguments)], default=str).encode()).hexdigest()


class LoggedAnswers:
    """An lm-eval model that answers from a log and runs another model for the missing answers.

    Args:
        lm: the model; the log becomes its cache hook, so that answers are kept one by one.
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
                self._log.add_partial(kind, requests[i].args, answer)
                answers[i] = answer
        return answers


def _is_scored(answer: Any) -> bool:
    """Whether a logged answer has the form of a scored continuation."""
    return isinstance(answer, list | tuple) and list(map(type, answer)) == [float, bool]


def _is_sampled(kind: str, arguments: Sequence[Any]) -> bool:
    """Whether a second answer to the same request may differ."""
    options = arguments[1] if kind == "generate_until" and len(arguments) > 1 else None
    return isinstance(options, Mapping) and bool(options.get("do_sample"))


# Key for the model and edit whose answers a cache holds. No hash of a request has this form.
OWNER = "tarot:owner"


def claim_response_cache(cache: Any, owner: str) -> None:
    """Record whose answers a cache holds: lm-eval's own keys contain only the prompts.

    Raises:
        TarotError: the cache belongs to another owner.
    """
    if (stored := cache.get(OWNER, "another model" if len(cache) else owner)) != owner:
        raise TarotError(f"a response cache of {owner}", f"one of {stored}", "give --use_cache another path")
    cache[OWNER] = owner
    cache.commit()
