"""Answers to lm-eval's requests, written to a file as the model gives them.

An evaluation can fail after its last forward pass: in a metric, a filter or an aggregation. The answers are kept, so
that the next run of the same evaluation asks the model only for what is missing.
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

KINDS = ("loglikelihood", "loglikelihood_rolling", "generate_until")


class AnswerLog:
    """A file with one answer a line, by a digest of who answered what.

    Args:
        path: the file; made when the first answer is written.
        owner: names model, weights and edit; answers of another owner are not used.

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
            with suppress(*BROKEN_JSON):  # the last line of a run that was killed
                entry = json.loads(line)
                if isinstance(entry, dict) and isinstance(entry.get("key"), str):
                    self._answers[entry["key"]] = entry.get("answer")

    def find(self, kind: str, arguments: Sequence[Any]) -> Any:
        """The answer to a request, or None."""
        found = self._answers.get(self._key(kind, arguments))
        if kind == "loglikelihood":
            return (found[0], found[1]) if found is not None and _is_scored(found) else None
        return found if isinstance(found, str if kind == "generate_until" else float) else None

    def add_partial(self, kind: str, arguments: Sequence[Any], answer: Any) -> None:
        """Keep an answer; by this name lm-eval's models call their cache."""
        key = self._key(kind, arguments)
        if _is_sampled(kind, arguments) or key in self._answers:
            return
        answer = [float(answer[0]), bool(answer[1])] if kind == "loglikelihood" else answer
        self._answers[key] = answer
        line = json.dumps({"key": key, "answer": answer}) + "\n"
        try:
            # A link in the file's place could lead anywhere.
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o600)
            with os.fdopen(file, "a", encoding="utf-8", errors="replace") as lines:
                lines.write(line)
        except OSError as error:
            raise TarotError(f"to write {self.path}", error.strerror or str(error), "choose another place") from error

    def _key(self, kind: str, arguments: Sequence[Any]) -> str:
        return hashlib.sha256(json.dumps([self.owner, kind, list(arguments)], default=str).encode()).hexdigest()


class LoggedAnswers:
    """An lm-eval model that asks another only for what a log does not hold.

    Args:
        lm: the model; its cache hook is the log afterwards, so that answers are kept one by one.
        log: answers given before.
    """

    def __init__(self, lm: Any, log: AnswerLog) -> None:
        self._lm, self._log = lm, log
        lm.set_cache_hook(log)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lm, name)

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """(log-probability, whether greedy) of each request."""
        return self._answered("loglikelihood", requests)

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[Any]:
        """Log-probability of each text."""
        return self._answered("loglikelihood_rolling", requests)

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """The text that continues each prompt."""
        return self._answered("generate_until", requests)

    def _answered(self, kind: str, requests: Sequence[Any]) -> list[Any]:
        answers = [self._log.find(kind, request.args) for request in requests]
        missing = [i for i, answer in enumerate(answers) if answer is None]
        if missing:
            given = getattr(self._lm, kind)([requests[i] for i in missing])
            for i, answer in zip(missing, given, strict=True):
                self._log.add_partial(kind, requests[i].args, answer)
                answers[i] = answer
        return answers


def _is_scored(answer: Any) -> bool:
    return isinstance(answer, list | tuple) and list(map(type, answer)) == [float, bool]


def _is_sampled(kind: str, arguments: Sequence[Any]) -> bool:
    """Whether a second answer to the same request would be another one."""
    options = arguments[1] if kind == "generate_until" and len(arguments) > 1 else None
    return isinstance(options, Mapping) and bool(options.get("do_sample"))
