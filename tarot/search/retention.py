"""The retention of a search: what its edits must not change, and by how much they do."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.retained import make_retained, retained_digest
from tarot.objectives.retention import RetentionTerm
from tarot.search.problem import Problem
from tarot.search.space import Angles


@dataclass(frozen=True)
class Retention:
    """A limit on the divergence of a problem's edits from the unedited model.

    Attributes:
        problem: what is searched.
        term: the divergence on the retained contexts. Every source has the same weight.
        sources: number of contexts of each source.
        digest: of all contexts.
    """

    problem: Problem
    term: RetentionTerm
    sources: Mapping[str, int]
    digest: str

    @classmethod
    def from_problem(
        cls,
        loaded: LoadedModel,
        problem: Problem,
        include_path: str | Path | None = None,
        batch_size: int | None = None,
    ) -> "Retention":
        """Collect what a problem's configuration retains; the unedited model answers all prompts.

        Args:
            loaded: the model to edit, unedited.
            problem: what is searched.
            include_path: folder of further task files.
            batch_size: sequences per forward pass; None chooses.

        Raises:
            UnknownName: no task has one of the retained names.
            TarotError: a file of prompts cannot be read, or a task has no split to tune on.

        Example:
            >>> problem = Problem.from_config(loaded, tarot.TaRotConfig("synth_color", num_samples=8, max_kl=0.03))
            >>> sorted(Retention.from_problem(loaded, problem).sources)
            ['own text', 'prompts']
        """
        config = problem.config
        sources = make_retained(
            TarotLM(loaded.model, tokenizer=loaded.tokenizer),
            problem.template,
            config.retain,
            tuned_task=config.task,
            seed=config.seed,
            include_path=include_path,
            batch_size=batch_size,
        )
        term = RetentionTerm(
            loaded.model,
            [context for source in sources for context in source.contexts],
            weights=[1 / len(source.contexts) for source in sources for _ in source.contexts],
            batch_size=batch_size,
            n_frozen_layers=min(site.layer for site in problem.objective.sites),
        )
        return cls(problem, term, {name: len(contexts) for name, contexts in sources}, retained_digest(sources))

    def value_and_grad(self, angles: Angles) -> tuple[float, Angles]:
        """Return the divergence of an edit in nats a token, and its gradient, per radian."""
        objective = self.problem.objective
        return self.term.value_and_grad(angles, objective.sites, objective.rotation)

    @property
    def notes(self) -> dict[str, Any]:
        """Return what the provenance says: the contexts, and the tokens that a trial runs for them."""
        return {
            "contexts": dict(self.sources),
            "tokens": self.term.tokens,
            "left_out_probability": round(self.term.rest, 6),
        }
