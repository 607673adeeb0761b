"""Activation steering: what is added where, how it is chosen, and that the model is left as it was."""

import math
from collections.abc import Callable

import pytest
import torch
from checkpoint import byte_model
from test_answers import SAMPLES, encode

from tarot.edit.sites import find_sites
from tarot.errors import TarotError
from tarot.evaluation.baselines import steering
from tarot.evaluation.baselines.steering import BASELINES, SteeringEdit
from tarot.objectives.answers import AnswerObjective

pytestmark = pytest.mark.usefixtures("no_gradients")
TOKENS = torch.tensor([[5, 80, 91, 17, 3]])
both = pytest.mark.parametrize("baseline", BASELINES.values(), ids=BASELINES)


@pytest.fixture
def objective() -> AnswerObjective:
    model = byte_model()
    return AnswerObjective(model, SAMPLES, encode, sites=find_sites(model, "heads", 1.0))


def scaled(edit: SteeringEdit, strength: float) -> SteeringEdit:
    return SteeringEdit({name: strength * vector for name, vector in edit.vectors.items()}, edit.side)


def some_edits(objective: AnswerObjective) -> list[SteeringEdit]:
    torch.manual_seed(0)
    sites, width = objective.sites, objective.model.config.hidden_size
    return [
        SteeringEdit({"model.layers.1": torch.randn(width)}, "output"),
        SteeringEdit({site.name: torch.randn(site.n_heads * site.d_head) for site in sites[1:]}, "input"),
    ]


def test_a_vector_of_zeros_is_the_base_model_bit_for_bit(objective: AnswerObjective) -> None:
    model = objective.model
    base = model(TOKENS).logits
    for edit in some_edits(objective):
        with scaled(edit, 0).apply(model):
            assert torch.equal(model(TOKENS).logits, base)
        with edit.apply(model):
            assert not torch.equal(model(TOKENS).logits, base)
        with pytest.raises(KeyboardInterrupt), edit.apply(model):
            raise KeyboardInterrupt
        assert torch.equal(model(TOKENS).logits, base)


def test_vectors_are_added_to_every_token(objective: AnswerObjective) -> None:
    model = objective.model
    after, before = some_edits(objective)
    entered: list[torch.Tensor] = []  # transformers records `hidden_states` before hooks change them
    hook = model.model.layers[2].register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    model(TOKENS)
    with after.apply(model):
        model(TOKENS)
    hook.remove()
    torch.testing.assert_close(entered[1], entered[0] + after.vectors["model.layers.1"])
    # A vector before a projection adds the same numbers to its output at every token.
    name, vector = next(iter(before.vectors.items()))
    added = model.get_submodule(name).weight @ vector
    outputs: list[torch.Tensor] = []
    hook = model.get_submodule(name).register_forward_hook(lambda module, args, out: outputs.append(out))
    model(TOKENS)
    with SteeringEdit({name: vector}, "input").apply(model):
        model(TOKENS)
    hook.remove()
    torch.testing.assert_close(outputs[1] - outputs[0], added.expand_as(outputs[0]), atol=1e-5, rtol=1e-4)


@both
def test_steering_never_ends_below_the_base_model(
    objective: AnswerObjective, baseline: Callable[..., SteeringEdit]
) -> None:
    base = float(objective.score_model())
    with baseline(objective, 120, 0).apply(objective.model):
        steered = float(objective.score_model())
    assert steered > base
    assert baseline(objective, 1, 0).vectors == {}  # the base model alone is tried
    assert float(objective.score_model()) == base


@both
def test_the_budget_bounds_the_evaluations(
    objective: AnswerObjective, baseline: Callable[..., SteeringEdit], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []

    def score() -> torch.Tensor:
        calls.append(len(calls) + 1.0)
        return torch.tensor(calls[-1])

    monkeypatch.setattr(objective, "score_model", score)
    for target_score, expected in ((1e6, {5, 7}), (2.0, {2})):  # a vector tries four strengths of each layer
        calls.clear()
        monkeypatch.setattr(objective, "target_score", target_score)
        baseline(objective, 7, 0)
        assert len(calls) in expected


def test_the_contrastive_vector_is_the_mean_difference_of_the_last_tokens(objective: AnswerObjective) -> None:
    texts = steering._record(objective, ["model.layers.2"], "output")
    differences = []
    for sample in SAMPLES:
        last = []
        for pair in sample.pairs:
            context, continuation = encode(*pair)
            hidden = objective.model(torch.tensor([[*context, *continuation]]), output_hidden_states=True)
            last.append(hidden.hidden_states[3][0, -1])
        wrong = [value for i, value in enumerate(last) if i != sample.gold]
        differences.append(last[sample.gold] - torch.stack(wrong).mean(0))
    found = steering._mean_difference(texts, "model.layers.2")
    torch.testing.assert_close(found, torch.stack(differences).mean(0), atol=1e-5, rtol=1e-4)


def test_heads_outside_the_chosen_ones_are_not_moved(
    objective: AnswerObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter(range(100))
    monkeypatch.setattr(objective, "target_score", 1e6)
    monkeypatch.setattr(objective, "score_model", lambda: torch.tensor(float(next(scores))))  # the last is the best
    monkeypatch.setattr(steering, "HEADS", (2,))
    edit = steering.iti(objective, 120, 0)
    heads = [
        edit.vectors[site.name].view(site.n_heads, site.d_head).any(1)
        for site in objective.sites
        if site.name in edit.vectors
    ]
    assert torch.cat(heads).sum() == 2
    d_head = objective.sites[0].d_head
    assert edit.stored_bytes == 2 * d_head * 4


def test_samples_without_wrong_answers_are_refused(objective: AnswerObjective) -> None:
    objective.samples = tuple(
        type(sample)(sample.id, sample.key, sample.pairs[:1], 0, 0) for sample in objective.samples
    )
    with pytest.raises(TarotError, match="wrong answers"):
        steering.caa(objective, 9, 0)


def test_one_sample_cannot_rank_heads(objective: AnswerObjective) -> None:
    objective.samples = objective.samples[:1]
    with pytest.raises(TarotError, match="2 labelled samples"):
        steering.iti(objective, 9, 0)


@both
def test_a_model_without_numbers_gets_no_vectors(baseline: Callable[..., SteeringEdit]) -> None:
    model = byte_model()
    model.model.layers[1].mlp.down_proj.weight[0, 0] = math.nan
    edit = baseline(AnswerObjective(model, SAMPLES, encode, sites=find_sites(model, "heads", 1.0)), 12, 0)
    assert not edit.vectors


def test_modules_of_another_model_are_refused(objective: AnswerObjective) -> None:
    edit = SteeringEdit({"model.strange": torch.zeros(2)}, "input")
    with pytest.raises(TarotError, match=r"model\.strange"), edit.apply(objective.model):
        pass
