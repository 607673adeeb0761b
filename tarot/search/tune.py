"""Tune an edit: from a model and a task to an adapter."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from reprlib import repr as short
from time import perf_counter
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tarot._files.recipe_file import write_recipe
from tarot.arguments import require_flag, require_function, require_path
from tarot.edit.adapter import Adapter, Edit
from tarot.edit.rotation import Angles
from tarot.errors import InvalidValueError, TarotError
from tarot.models.batch_size import parse_batch_size
from tarot.models.evaluation_mode import in_evaluation_mode
from tarot.models.loaded_model import LoadedModel
from tarot.models.precision import fast_products
from tarot.objectives.black_box import BLACK_BOX, ModelFunction, Serve, resolve_function
from tarot.objectives.kind import ObjectiveKind, check_objective
from tarot.objectives.objective import Evaluation
from tarot.objectives.retained import retained_digest
from tarot.search.algorithms.registry import SEARCHES, require_budget
from tarot.search.callbacks import Callback, notify_callbacks
from tarot.search.config import TaRotConfig
from tarot.search.cross_validation import cross_validate
from tarot.search.divergence_log import DivergenceLog
from tarot.search.folder import RECIPE, SearchLogs, check_free, open_logs
from tarot.search.kl_limit import Choice
from tarot.search.loop import SearchResult, run_search
from tarot.search.pick import pick_trial, require_pick
from tarot.search.problem import Problem
from tarot.search.provenance import read_other_seconds, search_provenance, search_settings, trial_seconds
from tarot.search.retention import Retention, RetentionLimit, retained_contexts
from tarot.search.space import Space
from tarot.search.trials import Trial

ScoreBatch = Callable[[Sequence[Angles]], Iterable[Evaluation]]


@in_evaluation_mode
def tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: TaRotConfig,
    *,
    budget: int | None = None,
    output_dir: str | Path | None = None,
    include_path: str | Path | None = None,
    objective: ModelFunction | None = None,
    serve: Serve | None = None,
    resume: bool = False,
    batch_size: int | str | None = None,
    pick: int | float | None = None,
    score_batch: ScoreBatch | None = None,
    callbacks: Sequence[Callback] = (),
) -> Adapter:
    """Search the angles that maximise an objective on a few labelled samples.

    The search ends when its budget is spent, or when the training samples are fitted: further steps would overfit.
    Under `config.max_kl` it goes on until the edit is also within this limit of divergence. Each trial then reads
    retained contexts besides the samples; the budget counts both as one evaluation, and the provenance has the tokens.
    Ctrl-C ends it early and keeps the best edit so far. The search multiplies with `fast_products`
    (`tarot.models.precision`), but a function of the edited model gets a model that does not.

    Args:
        model: a causal language model of transformers; unchanged afterwards.
        tokenizer: the model's tokenizer.
        config: what to search.
        budget: number of evaluations of the objective; a gradient counts for three. None for 120, or 240 for a policy
            gradient.
        output_dir: folder for the trials and the adapter, new or empty unless resuming; None keeps nothing on disk.
        include_path: folder of further task files.
        objective: function of the edited model and the tokenizer that returns a number, higher is better, or a number
            and its standard error. For a configuration whose objective is `"model"`.
        serve: context manager that maps the unedited model and an adapter to what `objective` gets instead of the
            edited model, such as an engine that has loaded an exported file.
        resume: continue the search in `output_dir`, or begin it if there is none; yields exactly the trials of an
            uninterrupted search. A function of the edited model must have the name that it had.
        batch_size: sequences per forward pass; None or `auto` chooses.
        pick: the trial to return instead of the best one, by its number (int), or the best within another limit of
            divergence, in nats a token (float); only with `config.max_kl`.
        score_batch: scores the edits of a step, in order; None scores them here, one after another.
        callbacks: called when a phase or the search begins, after each trial, and at the end.

    Returns:
        The edit with the highest score within the limit; with zero angles if no trial beats the unedited model, or if
        `config.cross_validate` finds that the search does not help samples that it has not seen.

    Raises:
        UnknownName: no task has this name.
        InvalidValueError: the budget does not pay for one trial.
        TarotError: the task has too few samples, `output_dir` is not free or holds the trials of another search, or no
            trial has a finite score.

    Example:
        >>> config = tarot.TaRotConfig("synth_implicatives", num_samples=8)
        >>> adapter = tarot.tune(model, tokenizer, config, budget=6)
        >>> adapter.provenance["trials"], adapter.provenance["spent"]
        (2, 6)
    """
    started = perf_counter()
    loaded = LoadedModel.from_objects(model, tokenizer)
    folder, include_path = require_path("output_dir", output_dir), require_path("include_path", include_path)
    for name, function in {"objective": objective, "serve": serve, "score_batch": score_batch}.items():
        if function is not None:
            require_function(name, function)
    callbacks, batch_size = _check_callbacks(callbacks), parse_batch_size(batch_size)
    check_request(config, budget=budget, output_dir=folder, resume=require_flag("resume", resume))
    budget = require_budget(config.search, SEARCHES[config.search].default_budget if budget is None else budget)
    pick = require_pick(config, pick)
    _check_function(config, objective, serve)
    problem = Problem.from_config(loaded, config, include_path, batch_size, objective, serve)
    space = problem.make_space()
    sources, retained = None, None
    if config.max_kl is not None:
        for callback in callbacks:
            callback.on_phase("reading prompts to retain")
        sources = retained_contexts(loaded, problem, include_path, batch_size)
        retained = retained_digest(sources)
    functions = [function for function in (objective, serve) if function is not None]
    settings = search_settings(loaded, problem.config, problem.samples, retained, functions)
    with (
        open_logs(folder, settings, resume=resume, with_texts=config.kind is ObjectiveKind.REWARD) as logs,
        notify_callbacks(
            callbacks, problem.config, model=loaded.reference, budget=budget, resumed=logs.logged_trials
        ) as finish,
        nullcontext() if config.kind is ObjectiveKind.FUNCTION else fast_products(),
    ):
        budget = max(budget, len(logs.logged_trials) * SEARCHES[config.search].trial_cost)
        n_logged, other_seconds = len(logs.logged_trials), read_other_seconds(folder) if folder else 0.0
        halves, refused = None, False
        if config.cross_validate:
            halves = cross_validate(problem, budget=budget, folder=folder, callbacks=callbacks)
            refused = not halves["edited"] > halves["base"]
        allowed = SEARCHES[config.search].trial_cost if refused else budget  # the former pays for the identity alone
        limit = None
        if config.max_kl is not None and retained:
            # A resumed search that is complete measures nothing, so the contexts may not have to be read.
            read = cache(lambda: Retention.from_problem(loaded, problem, include_path, batch_size, sources))
            limit = RetentionLimit(read, space, float(config.max_kl), DivergenceLog(folder, retained))
        result = _search(problem, limit, space, logs, budget=allowed, score_batch=score_batch, callbacks=callbacks)
        if not math.isfinite(result.best.score):
            n = len(result.trials)
            raise TarotError(
                "a finite score in some trial", f"none in {n}", "try --dtype float32, or a smaller --bound"
            )
        if refused:  # whatever is picked; the log may have trials of a smaller budget, which was not refused
            result = replace(result, choice=Choice(result.identity, 0.0))
        elif pick is not None and limit is not None:
            result = pick_trial(result, limit, pick)
        other_seconds += max(0.0, perf_counter() - started - trial_seconds(result.trials[n_logged:]))
        adapter = Adapter(
            space.applied_angles(result.best.point),
            Edit.from_sites(loaded.model, config.sites, problem.objective.sites, problem.objective.rotation),
            search_provenance(loaded, problem, result, budget, other_seconds, limit, pick, halves),
        )
        if folder:
            (folder / RECIPE).unlink(missing_ok=True)  # the recipe there gives the adapter that was there
            adapter.save_pretrained(folder)
            if config.objective != BLACK_BOX:  # a Python function has no name in a file
                _write_recipe(folder / RECIPE, loaded, problem.config, adapter.provenance, include_path, pick)
        finish(adapter)
        return adapter


def check_request(
    config: TaRotConfig, *, budget: int | None, output_dir: Path | None = None, resume: bool = False
) -> None:
    """Raise what `tune` would raise that is known without the model and the task.

    The module of a reward or objective `module:function` is imported: call this only for what the user requested.

    Raises:
        InvalidValueError: the budget does not pay for one trial, or `config` is not a TaRotConfig.
        TarotError: the folder is not free, there is no folder to resume from, or the reward is not available.
    """
    if not isinstance(config, TaRotConfig):
        raise InvalidValueError(f"config must be a TaRotConfig, not {config!r}.")
    if output_dir is not None:
        check_free(output_dir, resume=resume)
    elif resume:
        raise InvalidValueError("resume needs an output_dir to resume from.")
    check_objective(config.objective)
    if budget is not None:
        require_budget(config.search, budget)


def _check_callbacks(callbacks: object) -> list[Callback]:
    """Return callbacks as a list; InvalidValueError for anything but a sequence of them."""
    given = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    listed = [each for each in given if isinstance(each, Callback)]
    if len(listed) < len(given):
        raise InvalidValueError(
            f"callbacks must be a list of Callback objects, not {short(callbacks)}.",
            hint="derive a class from tarot.search.callbacks.Callback and override what you need",
        )
    return listed


def _check_function(config: TaRotConfig, objective: ModelFunction | None, serve: Serve | None) -> None:
    """Raise TarotError unless a function of the edited model is given exactly where the configuration asks for one."""
    if config.kind is ObjectiveKind.FUNCTION:
        resolve_function(config.objective, objective)
    elif objective or serve:
        raise InvalidValueError(
            f"objective= and serve= need TaRotConfig(..., objective='model'), not {config.objective!r}."
        )


def _search(
    problem: Problem,
    limit: RetentionLimit | None,
    space: Space,
    logs: SearchLogs,
    *,
    budget: int,
    score_batch: ScoreBatch | None,
    callbacks: Sequence[Callback],
) -> SearchResult:
    """Maximise the problem's objective over the space."""
    config, objective = problem.config, problem.objective

    def on_trial(trial: Trial, result: SearchResult) -> None:
        for callback in callbacks:
            callback.on_trial(trial, result)

    def evaluate(x: Tensor) -> float | tuple[float, float]:
        evaluation = objective.measure(space.applied_angles(x))
        # A search that follows the gradient scores points here that are no trials: shrunk ones.
        return evaluation.score if problem.policy else logs.keep_texts(evaluation)

    return run_search(
        evaluate,
        space.d,
        search=config.search,
        budget=budget,
        seed=config.seed,
        value_and_grad=_make_value_and_grad(problem, space, logs),
        target_score=objective.target_score,
        limit=limit,
        trials_per_step=config.trials_per_step,
        evaluate=(lambda points: map(logs.keep_texts, score_batch([space.applied_angles(x) for x in points])))
        if score_batch
        else None,
        log=logs.trials,
        on_trial=on_trial,
    )


def _write_recipe(
    path: Path,
    loaded: LoadedModel,
    config: TaRotConfig,
    provenance: Mapping[str, Any],
    include_path: str | Path | None,
    pick: int | float | None,
) -> None:
    """Write the file with which `tarot tune` makes the same adapter again; of an interrupted search, its part."""
    interrupted, budget = provenance["interrupted"], provenance["budget"]
    settings = {
        "model": loaded.reference,
        "dtype": loaded.dtype,
        "include_path": None if include_path is None else str(include_path),
        "budget": provenance["spent"] if interrupted else budget,
        **config.to_dict(),
        "max_kl": "none" if config.max_kl is None else config.max_kl,
        "pick": pick,
    }
    if interrupted:  # the halves were searched with the whole budget, and found that the search helps
        settings["cross_validate"] = False
    if config.kind is ObjectiveKind.REWARD:  # as an option, --objective MODULE:FUNCTION is a function of the model
        settings["reward"] = settings.pop("objective")
    stopped = f", which was interrupted before its budget of {budget}" * interrupted
    write_recipe(path, settings, f"tarot tune {path.name} --output-path NEW repeats this search{stopped}.")


def _make_value_and_grad(
    problem: Problem, space: Space, logs: SearchLogs
) -> Callable[[Tensor], tuple[float, Tensor]] | None:
    """Return the function that a search which follows the gradient calls once for each trial; None if there is none."""
    policy, gradient = problem.policy, problem.objective.value_and_grad
    if policy:
        indices = count(len(logs.logged_trials))

        def step(angles: Angles) -> tuple[float, Angles]:
            texts, gradient = policy(next(indices), angles, logs.draws)
            score, _ = logs.keep_texts(Evaluation(texts.score, texts))
            return score, gradient

        return lambda x: space.value_and_grad(x, step)
    return (lambda x: space.value_and_grad(x, gradient)) if gradient else None
