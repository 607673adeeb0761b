"""The arms of a comparison: ways to answer the same documents, each timed."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from operator import eq
from pathlib import Path
from typing import Any, NamedTuple

from tarot.edit.adapter import Adapter
from tarot.errors import InvalidValueError
from tarot.evaluation.as_tuned import evaluation_shots
from tarot.evaluation.baselines.run import run_baseline
from tarot.evaluation.baselines.setting import Setting
from tarot.evaluation.in_context import calibrate, can_calibrate, draw_shots, question_frame
from tarot.evaluation.lm_eval_results import LoggedDocument, logged_documents, read_answers
from tarot.evaluation.results.comparison import EDITED, FEW_SHOT, ZERO_SHOT, Arm
from tarot.evaluation.written import write_outside
from tarot.models.answer_log import is_sampled
from tarot.models.progress import OnStep
from tarot.objectives.tasks.documents import Doc


class TimedDocuments(NamedTuple):
    """Logged documents of one arm, and how long their answers took.

    Attributes:
        documents: the logged documents.
        seconds: how long the answers took, those of an earlier run included.
        description: where the prompts show the task's description.
        written: what the arm wrote outside the choices; draws of shots do not generate it.
    """

    documents: list[LoggedDocument]
    seconds: float
    description: str = ""
    written: tuple[str, ...] = ()


BaseAnswers = MutableMapping[tuple[object, ...], TimedDocuments]
"""Answers of unedited models, which comparisons that differ by their adapter share."""

LoggedAnswers = MutableMapping[str, Sequence[LoggedDocument]]
"""Documents of each arm as lm-eval logs them, by the name of the arm."""


class MeasuredArm(NamedTuple):
    """An arm, and the documents that it was read from."""

    arm: Arm
    timed: TimedDocuments


@dataclass(frozen=True)
class Arms:
    """The arms of a comparison, in the order in which they are measured.

    Attributes:
        setting: what is compared.
        adapter: the edited arm's.
        controls: other adapters, by the name of their arm.
        draws: number of further draws of the few-shot arm's shots.
        baselines: methods to beat.
        base_answers: answers of unedited models from earlier comparisons; looked up, and extended.
        answers: file that stores the answers as they come, but those of baselines.

    Raises:
        InvalidValueError: Two arms have the same name.
    """

    setting: Setting
    adapter: Adapter
    controls: Mapping[str, Adapter]
    draws: int
    baselines: Sequence[str]
    base_answers: BaseAnswers | None
    answers: str | Path | None

    def __post_init__(self) -> None:
        if repeated := [name for name, count in Counter(self.names).items() if count > 1]:
            raise InvalidValueError(f"Two arms have the name {repeated[0]!r}.", hint="name the controls otherwise")

    @property
    def names(self) -> list[str]:
        """Names of all arms; draws are numbered, as their ranks are not known yet."""
        calibrated = map(_calibrated, self._calibrated)
        return [*self._prompted, EDITED, *self.controls, *calibrated, *self._drawn, *self.baselines]

    @property
    def _prompted(self) -> list[str]:
        return [ZERO_SHOT, FEW_SHOT] if self.setting.n_shots else [ZERO_SHOT]

    @property
    def _calibrated(self) -> list[str]:
        """Arms that are calibrated too."""
        return self._prompted if can_calibrate(self.setting.task) else []

    @property
    def _drawn(self) -> list[str]:
        return [f"{FEW_SHOT}, other shots {i + 1}" for i in range(self.draws)]

    def measure(self, on_arm: OnStep) -> Iterator[MeasuredArm]:
        """Measure one arm after another.

        Args:
            on_arm: called before each arm, with its name, its number from 1, and how many there are.
        """
        numbers = {name: number for number, name in enumerate(self.names, start=1)}

        def begin(name: str) -> None:
            on_arm(name, numbers[name], len(numbers))

        unedited: dict[str, MeasuredArm] = {}
        for name in self._prompted:
            begin(name)
            yield unedited.setdefault(name, self._answer_unedited(name))
        for name, edit in {EDITED: self.adapter, **self.controls}.items():
            begin(name)
            timed = self._answer_as_tuned(edit, evaluation_shots(self.setting.config))
            arm = self._read(name, self.setting.labels.edited, timed).arm
            yield MeasuredArm(replace(arm, **_costs(edit)), timed)
        for name in self._calibrated:
            begin(_calibrated(name))
            yield self._calibrate(unedited[name])
        yield from self._rank(list(self._answer_draws(begin)))
        for name in self.baselines:
            begin(name)
            yield self._run_baseline(name)

    def _answer_unedited(self, name: str) -> MeasuredArm:
        """Answer without an edit: an adapter tuned on shots has its own prompts as the few-shot arm."""
        own_shots, n_shots = evaluation_shots(self.setting.config), self.setting.n_shots
        if name == ZERO_SHOT:
            return self._read(name, 0, self._answer_base(0))
        if own_shots:
            return self._read(name, self.setting.labels.base, self._answer_base(own_shots))
        timed = self._answer_with(self.setting.labelled[:n_shots])
        return self._read(name, n_shots, self._add_written(timed))

    def _answer_base(self, num_fewshot: int) -> TimedDocuments:
        """Return the base model's answers, from `base_answers` if they are there."""
        if self.base_answers is None:
            return self._answer_as_tuned(None, num_fewshot)
        # By the model itself: another one may have its name.
        config, options = self.setting.config, self.setting.options
        place = (self.setting.loaded, config.task, str(options.include_path))
        key: tuple[object, ...] = (*place, num_fewshot, options.limit, config.apply_chat_template)
        if is_sampled(self.setting.task.config.generation_kwargs):
            key += (config.seed,)
        if key not in self.base_answers:
            self.base_answers[key] = self._answer_as_tuned(None, num_fewshot)
        return self.base_answers[key]

    def _answer_as_tuned(self, edit: Adapter | None, num_fewshot: int) -> TimedDocuments:
        """Return the answers to prompts such as the adapter was tuned on, with what is written outside the choices."""
        timed = self._time(lambda: self._logging.answer_as_tuned(edit, num_fewshot))
        return self._add_written(timed, edit)

    def _answer_with(self, shots: Sequence[Doc]) -> TimedDocuments:
        """Return the base model's answers to prompts that begin with these shots."""
        return self._time(lambda: self._logging.answer_with(shots))

    def _calibrate(self, measured: MeasuredArm) -> MeasuredArm:
        """Return the same answers after contextual calibration."""
        started = time.perf_counter()
        setting, (arm, timed) = self.setting, measured
        frame = question_frame([str(setting.task.doc_to_text(doc)) for doc in setting.labelled])
        documents = calibrate(setting.loaded, setting.task, timed.documents, frame)
        seconds = round(timed.seconds + time.perf_counter() - started, 3)
        return self._read(_calibrated(arm.name), arm.labels, TimedDocuments(documents, seconds))

    def _answer_draws(self, begin: Callable[[str], None]) -> Iterator[MeasuredArm]:
        """Answer with other shots; the arms have no names yet."""
        shown = min(self.setting.n_shots, len(self.setting.labelled))
        shots = draw_shots(self.setting.labelled, shown, self.draws, self.setting.config.seed)
        for name, docs in zip(self._drawn, shots, strict=True):
            begin(name)
            yield self._read("", shown, self._answer_with(docs))

    def _rank(self, draws: Sequence[MeasuredArm]) -> Iterator[MeasuredArm]:
        """Name draws by their rank, so that the best of one comparison stands beside the best of another."""

        def n_right(draw: MeasuredArm) -> int:
            gold, arm = read_answers(self.setting.task, draw.timed.documents)
            return sum(map(eq, gold, arm.greedy))

        ends = {1: " (best)", len(draws): " (worst)"} if len(draws) > 1 else {}
        for rank, (arm, timed) in enumerate(sorted(draws, key=n_right, reverse=True), start=1):
            name = f"{FEW_SHOT} {rank} of {len(draws)}{ends.get(rank, '')}"
            yield MeasuredArm(replace(arm, name=name, draw=rank), timed)

    def _run_baseline(self, name: str) -> MeasuredArm:
        answers = run_baseline(name, self.setting)
        timed = TimedDocuments(answers.documents, answers.seconds)
        arm = replace(
            self._read(name, answers.labels, timed).arm,
            preparation_seconds=answers.preparation_seconds,
            stored_bytes=answers.stored_bytes,
            peak_memory=answers.peak_memory,
        )
        return MeasuredArm(arm, timed)

    @property
    def _logging(self) -> Setting:
        """The setting, with the file of answers."""
        return replace(self.setting, options=replace(self.setting.options, answers=self.answers))

    def _time(self, run: Callable[[], dict[str, Any]]) -> TimedDocuments:
        started = time.perf_counter()
        results = run()
        documents = logged_documents(results, self.setting.config.task)
        seconds = round(time.perf_counter() - started + results.get("earlier_seconds", 0.0), 3)
        return TimedDocuments(documents, seconds, str(results.get("config", {}).get("description", "")))

    def _add_written(self, timed: TimedDocuments, edit: Adapter | None = None) -> TimedDocuments:
        """Return the same answers with what the model writes outside the choices."""
        setting = self.setting
        texts = write_outside(setting.loaded, setting.task, timed.documents, edit, setting.options.batch_size)
        return timed._replace(written=texts)

    def _read(self, name: str, labels: int, timed: TimedDocuments) -> MeasuredArm:
        _, arm = read_answers(self.setting.task, timed.documents)
        arm = replace(arm, name=name, labels=labels, seconds=timed.seconds, written=timed.written)
        return MeasuredArm(arm, timed)


def _calibrated(name: str) -> str:
    return f"{name} calibrated"


def _costs(edit: Adapter) -> dict[str, Any]:
    """Return how long an edit's search took, and what it has to store."""
    searched = edit.provenance.get("seconds")
    seconds = [s for s in searched.values() if isinstance(s, float | int)] if isinstance(searched, Mapping) else []
    return {
        "preparation_seconds": round(sum(seconds), 3),
        "stored_bytes": edit.angles.numel() * edit.angles.element_size(),
    }
