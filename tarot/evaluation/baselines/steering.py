"""Activation steering: vectors added to activations, found from the right and the wrong answers of the same labels.

`caa` adds one vector after one decoder layer (Panickssery et al., Steering Llama 2 via Contrastive Activation Addition,
arXiv 2312.06681):

    h' = h + strength * v,    v = mean over samples of (h at the right answer - mean of h at the wrong ones)

`iti` adds vectors to the outputs of some heads (Li et al., Inference-Time Intervention, arXiv 2306.03341):

    z' = z + strength * s * u,    u = the unit vector of the mean difference, s = deviation of the activations along u

Activations are read at the last token of prompt and answer, and vectors are added at every token. Layer, heads and
strength are chosen by the search's own objective on the same labels, no vector at all among the choices.

The package steering-vectors implements `caa`, but its releases up to 0.12.2 require transformers below 5.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from torch import Tensor, nn
from transformers import PreTrainedModel

from tarot.edit.patch import Patch
from tarot.edit.rope import initial_rope
from tarot.edit.sites import Site, decoder_layers
from tarot.errors import TarotError
from tarot.objectives.answers import AnswerObjective

STRENGTHS = (0.5, 1.0, 2.0, 4.0)
HEADS, HEAD_STRENGTHS = (4, 16, 64), (1.0, 5.0, 15.0)
FOLDS = 2
"""Of the cross-validation of the probes that rank heads, as in the paper's own split in halves."""


@dataclass(frozen=True, eq=False)
class SteeringEdit:
    """Vectors that are added to the activations of a model; unlike an adapter they cannot be merged.

    Attributes:
        vectors: what is added, by the name of a module.
        side: whether to a module's input or to its output.
        provenance: plain JSON values on how the vectors were found.

    Example:
        >>> edit = SteeringEdit({"model.layers.0": torch.zeros(model.config.hidden_size)}, "output")
        >>> with edit.apply(model):
        ...     _ = model.generate(**tokenizer("Yes or no?", return_tensors="pt"), max_new_tokens=1)
    """

    vectors: Mapping[str, Float[Tensor, " width"]]
    side: str
    provenance: Mapping[str, object] = field(default_factory=dict)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the numbers that are not zero: those of other heads need not be stored."""
        return sum(int(vector.count_nonzero()) * vector.element_size() for vector in self.vectors.values())

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the vectors."""
        digest = hashlib.sha256(self.side.encode())
        for name, vector in sorted(self.vectors.items()):
            digest.update(name.encode() + vector.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @contextmanager
    def apply(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """Add the vectors while the context is open.

        Raises:
            TarotError: the model has no module of that name.
        """
        modules = dict(model.named_modules())
        if unknown := sorted(self.vectors.keys() - modules.keys()):
            raise TarotError("modules of this model", unknown[0])
        with Patch(model) as patch:
            for name, vector in self.vectors.items():
                if self.side == "input":
                    patch.before(modules[name], partial(_add_before, vector))
                else:
                    patch.after(modules[name], partial(_add_after, vector))
            patch.apply()
            yield model


def _add_before(vector: Tensor, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return args[0] + vector.to(args[0]), *args[1:]


def _add_after(vector: Tensor, _: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
    # Some architectures return the hidden states first in a tuple.
    return (_add_after(vector, _, args, out[0]), *out[1:]) if isinstance(out, tuple) else out + vector.to(out)


def caa(objective: AnswerObjective, budget: int, seed: int) -> SteeringEdit:
    """Choose layer and strength of a contrastive vector.

    Args:
        objective: what is maximized; its model is unchanged afterwards.
        budget: evaluations of the objective; a strength of a layer counts for one. Layers are spread evenly if there
            are too many.
        seed: unused, since nothing is random; the other baselines have it.

    Raises:
        TarotError: the samples have no wrong answers.

    Example:
        >>> edit = caa(objective, budget=9, seed=0)
        >>> with edit.apply(objective.model):
        ...     score = objective.score_model()
    """
    layers = _name_modules(objective.model, decoder_layers(objective.model))
    texts = _record(objective, layers, "output")
    vectors = {name: _mean_difference(texts, name) for name in layers}
    n = max(1, min(len(layers), (budget - 1) // len(STRENGTHS)))
    chosen = [layers[round(i)] for i in np.linspace(0, len(layers) - 1, n)]
    candidates = (
        SteeringEdit(
            {name: strength * vectors[name]}, "output", {"method": "caa", "module": name, "strength": strength}
        )
        for name in chosen
        for strength in STRENGTHS
    )
    return _best(objective, [SteeringEdit({}, "output", {"method": "caa", "strength": 0.0})], candidates, budget)


def iti(objective: AnswerObjective, budget: int, seed: int) -> SteeringEdit:
    """Choose number and strength of the heads whose outputs are moved, those first that tell right from wrong best.

    A logistic regression for each head, cross-validated over samples, ranks the heads. Arguments and use as for `caa`.

    Raises:
        TarotError: there is one sample, or the samples have no wrong answers.

    Example:
        >>> edit = iti(objective, budget=10, seed=0)
        >>> with edit.apply(objective.model):
        ...     score = objective.score_model()
    """
    if len(objective.samples) < FOLDS:
        raise TarotError(f"at least {FOLDS} labelled samples for the baseline iti", str(len(objective.samples)))
    sites = {site.name: site for site in objective.sites}
    texts = _record(objective, list(sites), "input")
    ranked = sorted(
        (
            (_probe_accuracy(texts, site, head), name, head)
            for name, site in sites.items()
            for head in range(site.n_heads)
        ),
        key=lambda each: -each[0],
    )
    shifts = {(name, head): _shift(texts, sites[name], head) for _, name, head in ranked[: max(HEADS)]}

    def make(n_heads: int, strength: float) -> SteeringEdit:
        vectors: dict[str, Tensor] = {}
        for _, name, head in ranked[:n_heads]:
            site = sites[name]
            vector = vectors.setdefault(name, torch.zeros(site.n_heads * site.d_head))
            vector.view(site.n_heads, site.d_head)[head] = strength * shifts[name, head]
        return SteeringEdit(vectors, "input", {"method": "iti", "heads": n_heads, "strength": strength})

    candidates = (make(n_heads, strength) for n_heads in HEADS for strength in HEAD_STRENGTHS)
    return _best(objective, [SteeringEdit({}, "input", {"method": "iti", "strength": 0.0})], candidates, budget)


BASELINES: Mapping[str, Callable[[AnswerObjective, int, int], SteeringEdit]] = {"caa": caa, "iti": iti}


@dataclass(frozen=True)
class _Texts:
    """Activations at the last token of each sample's answers: `text x width` by module; and what the texts are."""

    activations: Mapping[str, Float[Tensor, "text width"]]
    right: np.ndarray
    sample: np.ndarray


def _record(objective: AnswerObjective, names: Iterable[str], side: str) -> _Texts:
    """Record activations for the right and the wrong answers of every sample."""
    samples, model = objective.samples, objective.model
    if any(len(sample.pairs) < 2 for sample in samples):
        raise TarotError("samples with wrong answers, which steering compares with the right one", "samples with one")
    recorded: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str, value: Any) -> None:
        hidden = value[0] if isinstance(value, tuple) else value
        recorded[name].append(hidden[0, -1].detach().float().cpu())

    def before(name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        keep(name, args)

    def after(name: str, _: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        keep(name, out)

    modules = dict(model.named_modules())
    with Patch(model) as patch, torch.no_grad():
        for name in recorded:
            if side == "input":
                patch.before(modules[name], partial(before, name))
            else:
                patch.after(modules[name], partial(after, name))
        patch.apply()
        for sample in samples:
            for pair in sample.pairs:
                context, continuation = objective.encode(*pair)
                with initial_rope(model):
                    model(torch.tensor([[*context, *continuation]], device=model.device))
    right = [i == sample.gold for sample in samples for i in range(len(sample.pairs))]
    owner = [row for row, sample in enumerate(samples) for _ in sample.pairs]
    return _Texts({name: torch.stack(rows) for name, rows in recorded.items()}, np.array(right), np.array(owner))


def _mean_difference(texts: _Texts, name: str, part: slice = slice(None)) -> Float[Tensor, " width"]:
    """Return the mean over samples of the right answer's activation minus the mean of the wrong ones'."""
    values = texts.activations[name][:, part]
    differences = [
        values[(texts.sample == row) & texts.right].mean(0) - values[(texts.sample == row) & ~texts.right].mean(0)
        for row in np.unique(texts.sample)
    ]
    return torch.stack(differences).mean(0)


def _head_part(site: Site, head: int) -> slice:
    return slice(head * site.d_head, (head + 1) * site.d_head)


def _shift(texts: _Texts, site: Site, head: int) -> Float[Tensor, " d_head"]:
    part = _head_part(site, head)
    difference = _mean_difference(texts, site.name, part)
    unit = difference / difference.norm().clamp(min=1e-12)
    return unit * (texts.activations[site.name][:, part] @ unit).std()


def _probe_accuracy(texts: _Texts, site: Site, head: int) -> float:
    values = texts.activations[site.name][:, _head_part(site, head)].numpy()
    if not np.isfinite(values).all():
        return 0.0
    folds = GroupKFold(FOLDS)
    probe = LogisticRegression(class_weight="balanced", max_iter=1000)
    scores = cross_val_score(probe, values, texts.right, groups=texts.sample, cv=folds, scoring="balanced_accuracy")
    return float(scores.mean())


def _best(
    objective: AnswerObjective, first: list[SteeringEdit], candidates: Iterable[SteeringEdit], budget: int
) -> SteeringEdit:
    """Return the best edit; a tie goes to the earlier one. Stop at the score at which a search stops."""
    best, best_score = first[0], float("-inf")
    for candidate in islice((*first, *candidates), max(1, budget)):
        with torch.no_grad(), candidate.apply(objective.model):
            score = float(objective.score_model())
        if score > best_score:
            best, best_score = candidate, score
        if best_score >= objective.target_score:
            break
    return best


def _name_modules(model: nn.Module, modules: Iterable[nn.Module]) -> list[str]:
    names = {id(module): name for name, module in model.named_modules()}
    return [names[id(module)] for module in modules]
