"""Samples, objective, space and search, joined: from a model and a task to an adapter."""

import hashlib
import json
import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot._files.atomic import check_place, locked
from tarot.edit.adapter import CARD, Adapter, Edit, shapes_fingerprint, weights_fingerprint
from tarot.edit.rotation import ROTATIONS
from tarot.edit.sites import angle_mask, find_sites
from tarot.errors import TarotError
from tarot.models.lm_eval_model import SYSTEM_MOVED, TarotLM, quiet
from tarot.models.load import LoadedModel
from tarot.objectives.answers import AnswerObjective
from tarot.objectives.generated import (
    NO_FLOOR,
    FluencyFloor,
    GenerationObjective,
    check_generates,
    make_generation_objective,
)
from tarot.objectives.rewards import check_reward, is_reward
from tarot.objectives.samples import (
    ChatTemplate,
    Sample,
    chat_template,
    draw_samples,
    load_task,
    tuning_documents,
)
from tarot.objectives.shots import shots_shown
from tarot.objectives.text_metrics import TextScoreLog, TextScores
from tarot.search import SEARCHES, SearchResult, Trial, TrialLog, run_search, trial_cost
from tarot.search.config import TaRotConfig, check_config
from tarot.search.space import NEEDS_GRADIENT, make_space

Angles = Float[Tensor, "layer head angle"]

TRIALS = "trials.jsonl"
LOCK = ".lock"  # held by the process that searches in the folder
LIBRARIES = ("torch", "transformers", "lm-eval", "botorch", "tarot-lm")


class Scored(NamedTuple):
    """What angles score, nan where they are refused; and what the texts came to, where texts were judged."""

    score: float
    outcome: TextScores | None


@dataclass(frozen=True)
class Problem:
    """What a recipe asks of a model: the labelled samples, and the objective over them.

    Attributes:
        recipe: the recipe, without shots if the task allows none.
        template: renders prompts as chats; None leaves them plain.
        prompting: what the prompts and samples are not as the task alone would have them.
    """

    config: TaRotConfig

    samples: list[Sample]
    objective: AnswerObjective | GenerationObjective
    template: ChatTemplate | None
    prompting: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        config: TaRotConfig,
        include_path: str | Path | None = None,
        batch_size: int | None = None,
    ) -> "Problem":
        """The same on every machine.

        Raises:
            UnknownName: a task, objective or kind of site that there is not.
            TarotError: samples that cannot be had honestly, or cannot be scored.
        """
        sites = find_sites(loaded.model, config.sites, config.layers)
        lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
        task = load_task(config.task, include_path)
        config = replace(config, num_fewshot=shots_shown(task, config.num_fewshot))
        template = chat_template(lm, config.apply_chat_template)
        samples = draw_samples(
            task, config.num_samples, num_fewshot=config.num_fewshot, seed=config.seed, chat_template=template
        )
        documents = tuning_documents(task)
        prompting: dict[str, Any] = {
            "rows_left_out": {"evaluated": documents.evaluated, "repeated": documents.repeated},
            **({"description": SYSTEM_MOVED} if lm.chat_renderer.system_moved else {}),
        }
        common: dict[str, Any] = {"sites": sites, "rotation": ROTATIONS[config.rotation], "batch_size": batch_size}
        if is_reward(config.objective):
            floor = FluencyFloor.parse(config.fluency_floor)
            objective = make_generation_objective(
                lm, task, samples, config.objective, floor=floor, seed=config.seed, **common
            )
            return cls(config, samples, objective, template, prompting)
        labelled = AnswerObjective(loaded.model, samples, lm.encode, measure=config.objective, **common)
        return cls(config, samples, labelled, template, prompting)

    def scored(self, angles: Angles) -> Scored:
        """What these angles (radians) score."""
        if isinstance(self.objective, AnswerObjective):
            return Scored(self.objective(angles), None)
        outcome = self.objective.outcome(angles)
        return Scored(outcome.score, outcome)


def tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: TaRotConfig,
    *,
    budget: int = 120,
    output_dir: str | Path | None = None,
    include_path: str | Path | None = None,
    resume: bool = False,
    batch_size: int | None = None,
    candidates: Callable[[Sequence[Angles]], Iterable[Scored]] | None = None,
    on_start: Callable[[int], None] = lambda resumed: None,
    on_trial: Callable[[Trial, SearchResult], None] = lambda trial, result: None,
) -> Adapter:
    """Search angles that raise a task's objective on labelled samples, and save the best as an adapter.

    The search ends with its budget, or when the training samples are fitted (`AnswerScore.target_score`): further steps
    would overfit. Ctrl-C keeps the best so far. With `output_dir`, trials are written as they are made, and `resume`
    continues an interrupted search.

    Args:
        model: a causal language model; unchanged afterwards.
        tokenizer: the model's tokenizer.
        config: what to search.
        output_dir: folder for the trials and the adapter, new or empty unless resuming; None keeps nothing on disk.
        budget: evaluations of the objective, the identity and the initial design among them.
        include_path: folder of further task files.
        resume: go on with the trials in `output_dir`.
        batch_size: most sequences of one pass; None leaves it to us.
        candidates: scores the angles of a batch, in their order; None does it here, one after another.
        on_start: called before the search with the number of trials that it resumes.
        on_trial: called after each trial with it and the result so far.

    Raises:
        UnknownName: a task, space, search, objective, rotation or kind of site that there is not.
        TarotError: samples that cannot be had honestly, a folder that is not free, or trials of another recipe.
    """
    loaded = LoadedModel.from_objects(model, tokenizer)
    output = None if output_dir is None else Path(output_dir)
    check(config, output, budget, resume)
    problem = Problem.of(loaded, config, include_path, batch_size)
    config = problem.config
    objective, sites, rotation = problem.objective, problem.objective.sites, problem.objective.rotation
    gradient = objective.gradient() if config.space in NEEDS_GRADIENT else None
    space = make_space(config.space, angle_mask(sites, rotation.n_angles), config.bound, config.seed, gradient)

    settings = {
        "model": loaded.reference,
        "shapes": shapes_fingerprint(loaded.model, sites),
        "weights": weights_fingerprint(loaded.model),
        "dtype": str(loaded.model.dtype),
        **config.to_dict(),
        "prompts": hashlib.sha256(json.dumps([vars(sample) for sample in problem.samples]).encode()).hexdigest()[:16],
    }
    if output:
        _make(output)
    with locked(output / LOCK, wait=False) if output else nullcontext():
        log = TrialLog.open(output / TRIALS, settings, resume) if output else None
        outcomes = TextScoreLog(output) if output and is_reward(config.objective) else None
        on_start(len(log.trials) if log else 0)

        def angles(x: Tensor) -> Tensor:
            return space.angles(x).float()

        def kept(scored: Scored) -> float:
            if outcomes and log and scored.outcome:
                outcomes.add(len(log.trials), scored.outcome)
            return scored.score

        target_score = objective.measure.target_score if isinstance(objective, AnswerObjective) else math.inf
        result = run_search(
            lambda x: kept(problem.scored(angles(x))),
            space.d,
            search=config.search,
            budget=budget,
            seed=config.seed,
            starts=space.starts,
            value_and_grad=(lambda x: space.value_and_grad(x, objective.value_and_grad))
            if isinstance(objective, AnswerObjective)
            else None,
            target_score=target_score,
            batch=config.trials_per_step,
            evaluate=(lambda points: map(kept, candidates(list(map(angles, points))))) if candidates else None,
            log=log,
            on_trial=on_trial,
        )
        if not math.isfinite(result.best.score):
            raise TarotError(
                "a finite score in some trial",
                f"none in {len(result.trials)}",
                "try --dtype float32, or a smaller --bound",
            )
        adapter = Adapter(
            angles(torch.tensor(result.best.x, dtype=torch.float64)),
            Edit.of(loaded.model, config.sites, sites, rotation),
            {
                "model": loaded.reference,
                "dtype": loaded.dtype,
                **config.to_dict(),
                "budget": max(budget, result.spent),  # a search that was resumed with less has spent more
                "chat_template": problem.template is not None,
                **problem.prompting,
                "coordinates": space.d,
                "trials": len(result.trials),
                "spent": result.spent,
                "interrupted": result.interrupted,
                "fitted": result.best.score >= target_score,
                "best_trial": result.best.index,
                "scores": {"identity": result.identity.score, "best": result.best.score},
                "seconds": {
                    "evaluating": round(sum(trial.evaluate_seconds for trial in result.trials), 3),
                    "proposing": round(sum(trial.propose_seconds for trial in result.trials), 3),
                },
                "samples_drawn": [{"id": s.id, "key": s.key, "num_fewshot": s.num_fewshot} for s in problem.samples],
                "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
            },
        )
        if output:
            adapter.save_pretrained(output)
        return adapter


def check(config: TaRotConfig, output: Path | None, budget: int, resume: bool) -> None:
    """Raise what `tune` would raise that can be told without a model; a command calls it before it loads one."""
    if output is not None:
        _check_free(output, resume)
    elif resume:
        raise TarotError("an output folder to resume from", "none", "give output_dir")
    check_search(config, budget)


def check_samples(config: TaRotConfig, include_path: str | Path | None = None) -> None:
    """Raise what `tune` would raise for the task and its documents; a command calls it before it loads a model.

    Prompts are rendered without a chat template, which only the model brings.
    """
    task = load_task(config.task, include_path)
    if is_reward(config.objective):
        check_generates(task, config.objective)
    with quiet("tarot"):  # the search says it again
        draw_samples(task, config.num_samples, num_fewshot=config.num_fewshot, seed=config.seed)


def check_search(config: TaRotConfig, budget: int) -> None:
    """The same, wherever its trials are to be."""
    if is_reward(config.objective):
        check_reward(config.objective)
    if FluencyFloor.parse(config.fluency_floor) != NO_FLOOR and not is_reward(config.objective):
        raise TarotError("a reward as objective under a fluency floor", repr(config.objective), "leave the floor out")
    check_config(config)
    if is_reward(config.objective) and SEARCHES[config.search].follows_gradient:
        raise TarotError(f"a search without gradients for {config.objective}", repr(config.search), "try --search bo")
    if budget < (cost := trial_cost(config.search)):
        raise TarotError(f"a budget of at least {cost}, what one trial of {config.search!r} counts for", str(budget))


def _check_free(output: Path, resume: bool) -> None:
    if output.exists() and not output.is_dir():
        raise TarotError("a folder to write to", f"the file {output}", "choose another --output")
    check_place(output, folder=True)
    there = {path.name for path in output.iterdir()} - {LOCK} if output.is_dir() else set()
    if not there or (resume and TRIALS in there):  # an adapter without trials is nothing to go on with
        return
    hint = "add --resume, or choose another" if TRIALS in there else "choose another"
    raise TarotError("an empty output folder", f"{output} with {CARD if CARD in there else 'files in it'}", hint)


def _make(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TarotError(
            f"to make the folder {output}", error.strerror or str(error), "choose another --output"
        ) from error


def curve(folder: str | Path, search: str) -> list[float]:
    """The score after each evaluation of a finished search: a trial that counts for several stands there as often."""
    return [trial.score for trial in trials(folder) for _ in range(trial_cost(search))]


def trials(folder: str | Path) -> list[Trial]:
    """The trials that a search left in its folder; TarotError when there are none."""
    return TrialLog.read(Path(folder) / TRIALS).trials
