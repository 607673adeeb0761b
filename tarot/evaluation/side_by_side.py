"""Base and edited output side by side: what one prompt or one document of a task gets from each.

The model is loaded once. `Adapter.apply` edits it for a few tokens at a time, so the two texts grow together.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import RLock

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task

from tarot.edit.adapter import Adapter
from tarot.errors import InvalidValueError
from tarot.evaluation.as_tuned import evaluation_shots
from tarot.evaluation.evaluate import check_tasks, n_evaluated
from tarot.models.generation.text_stream import TextStream
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.missing_numbers import NO_NUMBER
from tarot.objectives.tasks.prompts import ChatTemplate, get_chat_template
from tarot.objectives.tasks.samples import Sample, render_evaluation_documents
from tarot.objectives.tasks.task_loading import load_task
from tarot.search.config import TaRotConfig

MAX_NEW_TOKENS = 40


@dataclass(frozen=True)
class TextPair:
    """Two continuations of one prompt: the base model's and the edited model's.

    A text that could not go on because the model computes NaN or infinity says so at its end.
    """

    base: str
    edited: str


@dataclass(frozen=True)
class AnswerPair:
    """One answer of a document, with its log-probability under the base and the edited model.

    Attributes:
        text: the answer; where the answers stand in the prompt, as in Winogrande, the prompt's end.
        is_right: whether it is the right one.
        base: log p(answer | prompt) in nats, of the base model; NaN or infinite if the model computed that.
        edited: the same of the edited model.
    """

    text: str
    is_right: bool
    base: float
    edited: float


@dataclass(frozen=True)
class TriedDocument:
    """Answers of base and edited model to one document.

    Attributes:
        id: split and row, such as `test/12`.
        prompt: the prompt as the model sees it, of the right answer.
        answers: the document's answers.
        texts: what the models write after the prompt; None if the answers are parts of the prompts.
    """

    id: str
    prompt: str
    answers: tuple[AnswerPair, ...]
    texts: TextPair | None


class SideBySide:
    """Show what a model writes and answers with and without an edit.

    Calls from several threads take turns, because an edit is for one thread at a time.

    Args:
        loaded: model, in evaluation mode, and tokenizer; the model is unchanged after every call.
        apply_chat_template: render prompts with the tokenizer's chat template, if there is one.
        max_new_tokens: most tokens to write.

    Raises:
        InvalidValueError: `max_new_tokens` is below 1, or not below the model's context.

    Example:
        >>> from tarot.evaluation.side_by_side import SideBySide
        >>> side_by_side = SideBySide(tarot.load_model("wheel:smollm2-135m"), max_new_tokens=5)
        >>> *_, texts = side_by_side.write("Did Ed leave?", adapter)
        >>> texts.base == texts.edited
        False
    """

    def __init__(
        self, loaded: LoadedModel, *, apply_chat_template: bool = True, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> None:
        self._lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
        self._chat_template = get_chat_template(self._lm, apply_chat_template)
        self._model = loaded.model
        self._lock = RLock()
        if not 1 <= max_new_tokens < self._lm.max_length:
            raise InvalidValueError(
                f"The number of new tokens must be from 1 and below the model's context of {self._lm.max_length}, "
                f"not {max_new_tokens!r}."
            )
        self.max_new_tokens = max_new_tokens

    def write(self, text: str, adapter: Adapter, *, strength: float = 1.0) -> Iterator[TextPair]:
        """Write both continuations of a text, and yield them each time they have grown.

        Args:
            text: what the user says to a chat model, or the text that a plain model continues.
            adapter: the edit.
            strength: factor of its angles; 0 is the base model.

        Raises:
            InvalidValueError: the text is blank, the adapter is for another model, or the strength is not finite.
            TarotError: the chat template loses the text.
        """
        if not text.strip():
            raise InvalidValueError("The prompt is empty.")
        prompt = self._chat_template([{"role": "user", "content": text}]) if self._chat_template else text
        yield from self.continue_prompt(prompt, adapter, strength=strength)

    def continue_prompt(
        self, prompt: str, adapter: Adapter, *, strength: float = 1.0, until: Sequence[str] = ()
    ) -> Iterator[TextPair]:
        """Write both continuations of a rendered prompt, and yield them each time they have grown.

        Args:
            prompt: the prompt as the model sees it, chat template included.
            adapter: the edit.
            strength: factor of its angles; 0 is the base model.
            until: texts that end a continuation.

        Raises:
            InvalidValueError: the adapter is for another model, or the strength is not finite.
        """
        tokens = self._lm.tok_encode(prompt)[self.max_new_tokens - self._lm.max_length :]
        base, edited = (
            TextStream(self._model, self._lm.tokenizer, tokens, max_new_tokens=self.max_new_tokens, until=until)
            for _ in range(2)
        )
        while not (base.is_finished and edited.is_finished):
            with self._lock:
                base.advance()
                with self._edited(adapter, strength):
                    edited.advance()
            yield TextPair(_shown(base), _shown(edited))

    def example_prompts(
        self, name: str, include_path: str | Path | None = None, limit: int | float | None = None
    ) -> dict[str, str]:
        """Return the prompts of the first documents that a task evaluates, as `tarot.evaluate` renders them.

        Args:
            name: the task.
            include_path: folder of further task files.
            limit: number or fraction of the documents; None for all.

        Returns:
            Each prompt by its text without the chat template: description and question.

        Raises:
            UnknownName: no such task.
            TarotError: a prompt is empty, or a document has no right answer.
        """
        task = load_task(name, include_path)
        shots = int(task.config.num_fewshot or 0)
        texts, prompts = (_render(task, shots, limit, template) for template in (None, self._chat_template))
        return {
            text.pairs[text.gold][0]: prompt.pairs[prompt.gold][0] for text, prompt in zip(texts, prompts, strict=True)
        }

    def try_task(
        self,
        name: str,
        adapter: Adapter,
        *,
        strength: float = 1.0,
        include_path: str | Path | None = None,
        limit: int | float | None = None,
    ) -> Iterator[TriedDocument]:
        """Yield what base and edited model answer to the first documents that a task evaluates.

        Args:
            name: a task with answers to score.
            adapter: the edit. Prompts of the task that it was tuned on have the shots that it was tuned with.
            strength: factor of its angles.
            include_path: folder of further task files.
            limit: number or fraction of the documents; None for all.

        Raises:
            UnknownName: no such task.
            TarotError: the adapter was tuned on one of the documents, or does not fit the model; a document has no
                right answer; or as for `tarot.evaluate`.
        """
        task, shots = check_try_task(name, adapter, include_path=include_path, limit=limit)
        for sample in _render(task, shots, limit, self._chat_template):
            yield self._try_sample(sample, adapter, strength, _stops(task))

    def _try_sample(self, sample: Sample, adapter: Adapter, strength: float, until: Sequence[str]) -> TriedDocument:
        prompt, right_answer = sample.pairs[sample.gold]
        in_prompt = len({context for context, _ in sample.pairs}) > 1
        answers: tuple[AnswerPair, ...] = ()
        if right_answer.strip():  # blank where a reward scores what the model writes
            base, edited = self._score(sample), self._score(sample, adapter, strength)
            answers = tuple(
                AnswerPair(_last_line(context) if in_prompt else answer.strip(), row == sample.gold, *scores)
                for row, ((context, answer), *scores) in enumerate(zip(sample.pairs, base, edited, strict=True))
            )
        texts = None
        if not in_prompt:
            *_, texts = self.continue_prompt(prompt, adapter, strength=strength, until=until)
        return TriedDocument(sample.id, prompt, answers, texts)

    def _score(self, sample: Sample, adapter: Adapter | None = None, strength: float = 1.0) -> list[float]:
        requests = [Instance("loglikelihood", {}, pair, row) for row, pair in enumerate(sample.pairs)]
        with self._lock, self._edited(adapter, strength):
            return [value for value, _ in self._lm.loglikelihood(requests, disable_tqdm=True)]

    def _edited(self, adapter: Adapter | None, strength: float) -> AbstractContextManager[object]:
        return adapter.apply(self._model, strength=strength) if adapter else nullcontext()


def _shown(stream: TextStream) -> str:
    return f"{stream.text} ({NO_NUMBER})".lstrip() if stream.is_broken else stream.text


def check_try_task(
    name: str, adapter: Adapter, *, include_path: str | Path | None = None, limit: int | float | None = None
) -> tuple[Task, int]:
    """Check everything of `SideBySide.try_task` that needs no model; return the task and the shots of its prompts."""
    is_own = adapter.provenance.get("task") == name
    shots = evaluation_shots(TaRotConfig.from_dict(adapter.provenance)) if is_own else None
    check_tasks([name], adapter, include_path=include_path, num_fewshot=shots, limit=limit)
    task = load_task(name, include_path)
    shots = int(task.config.num_fewshot or 0) if shots is None else shots
    _render(task, shots, limit, None)
    return task, shots


def _render(task: Task, shots: int, limit: int | float | None, chat_template: ChatTemplate | None) -> list[Sample]:
    return render_evaluation_documents(
        task, num_fewshot=shots, limit=n_evaluated(task, limit), chat_template=chat_template
    )


def _stops(task: Task) -> Sequence[str]:
    """Return the texts that end a generated answer; choices have none."""
    if task.OUTPUT_TYPE != "generate_until":
        return ()
    until = (task.config.generation_kwargs or {}).get("until") or ()
    return [until] if isinstance(until, str) else list(until)


def _last_line(text: str) -> str:
    return text.rstrip().splitlines()[-1] if text.strip() else text
