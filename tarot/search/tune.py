"""Samples, objective, space and search, joined: from a model and a task to an adapter."""

import hashlib
import json
import math
import platform
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot._files.lock import hold_lock
from tarot.edit.adapter import Adapter, Edit
from tarot.edit.fingerprint import shapes_fingerprint, weights_fingerprint
from tarot.edit.sites import angle_mask
from tarot.errors import TarotError
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.fluency import NO_FLOOR, FluencyFloor
from tarot.objectives.objective import DifferentiableObjective
from tarot.objectives.rewards import check_reward, is_reward
from tarot.objectives.text_scores import TextScoreLog
from tarot.search import SEARCHES, SearchResult, Trial, TrialLog, run_search, trial_cost
from tarot.search.config import TaRotConfig, check_config
from tarot.search.folder import LOCK, TRIALS, check_free, make_folder
from tarot.search.problem import Angles, Problem, Scored
from tarot.search.provenance import LIBRARIES
from tarot.search.space import NEEDS_GRADIENT, make_space


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
        make_folder(output)
    with hold_lock(output / LOCK, wait=False) if output else nullcontext():
        log = TrialLog.open(output / TRIALS, settings, resume) if output else None
        outcomes = TextScoreLog(output) if output and is_reward(config.objective) else None
        on_start(len(log.trials) if log else 0)

        def angles(x: Tensor) -> Tensor:
            return space.angles(x).float()

        def kept(scored: Scored) -> float:
            if outcomes and log and scored.outcome:
                outcomes.add(len(log.trials), scored.outcome)
            return scored.score

        result = run_search(
            lambda x: kept(problem.scored(angles(x))),
            space.d,
            search=config.search,
            budget=budget,
            seed=config.seed,
            starts=space.starts,
            value_and_grad=(lambda x: space.value_and_grad(x, objective.value_and_grad))
            if isinstance(objective, DifferentiableObjective)
            else None,
            target_score=objective.target_score,
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
            Edit.from_sites(loaded.model, config.sites, sites, rotation),
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
                "fitted": result.best.score >= objective.target_score,
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
        check_free(output, resume)
    elif resume:
        raise TarotError("an output folder to resume from", "none", "give output_dir")
    check_search(config, budget)


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
