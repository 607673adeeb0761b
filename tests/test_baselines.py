"""Baselines that change weights: each raises the score of its samples and restores the model, bit for bit."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoint import byte_model
from test_answers import SAMPLES, encode
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from tarot.edit.sites import find_sites
from tarot.errors import TarotError
from tarot.evaluation.baselines import prompt_tuning, trained, training
from tarot.evaluation.baselines.edit import BaselineEdit
from tarot.evaluation.baselines.eigenpruning import _attention_weights, _counts, _factorize, eigenpruning
from tarot.evaluation.baselines.setting import Setting
from tarot.evaluation.baselines.weights import WeightEdit
from tarot.evaluation.options import EvaluationOptions
from tarot.models.loaded_model import LoadedModel
from tarot.objectives import retained
from tarot.objectives.answers import AnswerObjective
from tarot.objectives.retention import RetentionTerm
from tarot.objectives.tasks.task_loading import load_task
from tarot.search import retention
from tarot.search.config import TaRotConfig
from tarot.search.problem import Problem
from tarot.search.retention import Retention

TRAINED = {
    name: partial(train, seed=0) for module in (trained, prompt_tuning) for name, train in module.BASELINES.items()
}
ALL = {**TRAINED, "eigenpruning": partial(eigenpruning, seed=0)}


@pytest.fixture
def objective() -> AnswerObjective:
    model = byte_model()
    return AnswerObjective(model, SAMPLES, encode, sites=find_sites(model, "heads", [2, 3]))


def state(model: PreTrainedModel) -> dict[str, tuple[Tensor, bool]]:
    return {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}


def unchanged(model: PreTrainedModel, before: dict[str, tuple[Tensor, bool]]) -> bool:
    now = state(model)
    same = all(torch.equal(value, now[name][0]) and wanted == now[name][1] for name, (value, wanted) in before.items())
    return same and now.keys() == before.keys() and not hasattr(model, "peft_config")


def score(objective: AnswerObjective, edit: BaselineEdit) -> float:
    with torch.no_grad(), edit.apply(objective.model):
        return float(objective.score_model())


@pytest.mark.parametrize("baseline", ALL.values(), ids=ALL)
def test_the_model_is_left_as_it_was(objective: AnswerObjective, baseline: Callable[..., BaselineEdit]) -> None:
    before = state(objective.model)
    edit = baseline(objective, 12)
    assert unchanged(objective.model, before)
    score(objective, edit)
    assert unchanged(objective.model, before)
    with pytest.raises(KeyboardInterrupt), edit.apply(objective.model):
        raise KeyboardInterrupt
    assert unchanged(objective.model, before)


@pytest.mark.parametrize("baseline", TRAINED.values(), ids=TRAINED)
def test_more_steps_raise_the_score(objective: AnswerObjective, baseline: Callable[..., BaselineEdit]) -> None:
    base = float(objective.score_model().detach())
    short, long = (score(objective, baseline(objective, budget)) for budget in (6, 60))
    assert base < short < long


@pytest.mark.parametrize("baseline", TRAINED.values(), ids=TRAINED)
def test_training_stops_at_the_target_score(
    objective: AnswerObjective, baseline: Callable[..., BaselineEdit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training stops at the first step that reaches the score, as a search does."""
    reached = [score(objective, baseline(objective, budget)) for budget in (6, 9, 12)]
    target_score = (reached[0] + reached[1]) / 2
    monkeypatch.setattr(objective, "target_score", target_score)
    assert score(objective, baseline(objective, 60)) == reached[1]


@pytest.mark.parametrize("method", ["lora", "oft"])
def test_training_holds_a_limit(
    loaded: LoadedModel, tasks_folder: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Under the limit of an edit it gains less than without one, and its model diverges no further."""
    monkeypatch.setattr(retained, "bundled_prompts", lambda template: ["Is it? ", "One, two,"])
    config = TaRotConfig("own_choice", num_samples=4, max_kl=1e-3)
    problem = Problem.from_config(loaded, config, tasks_folder)
    limit = Retention.from_problem(loaded, problem, tasks_folder)
    assert isinstance(problem.objective, AnswerObjective)
    before = state(loaded.model)
    free, limited = (trained.train(method, problem.objective, 36, 0, held) for held in (None, limit))
    assert unchanged(loaded.model, before)
    kls = []
    for edit in (free, limited):
        with torch.no_grad(), edit.apply(loaded.model):
            kls.append(limit.model_kl())
    assert kls[0] > 1e-3 >= kls[1] > 0
    base = float(problem.objective.score_model().detach())
    assert base < score(problem.objective, limited) < score(problem.objective, free)


def test_retained_contexts_are_read_with_the_products_of_training(
    loaded: LoadedModel, tasks_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise what these products round would count as divergence."""
    products = []

    def read(*arguments: Any, **options: Any) -> RetentionTerm:
        products.append(torch.get_float32_matmul_precision())
        return RetentionTerm(*arguments, **options)

    monkeypatch.setattr(retained, "bundled_prompts", lambda template: ["Is it? ", "One, two,"])
    monkeypatch.setattr(retention, "RetentionTerm", read)
    config, task = TaRotConfig("own_choice", num_samples=4, max_kl=1e-3), load_task("own_choice", tasks_folder)
    Setting(loaded, config, task, [], 0, 36, EvaluationOptions(tasks_folder)).make_retention()
    assert set(products) == {"medium"}


@pytest.mark.parametrize(("allowed", "kept"), [({0, 2, 4}, 2), ({0}, 0), (set(), 0)])
def test_the_best_step_within_the_limit_is_kept(allowed: set[int], kept: int) -> None:
    """Steps without a score, or above the limit, do not count; the first one is the unedited model."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer, scores = torch.optim.SGD([parameter], lr=1.0), [-3.0, math.nan, -1.0, -0.5, math.nan]
    steps: list[list[float]] = []

    def score_model() -> Tensor:
        steps.append(parameter.tolist())
        return 0 * parameter.sum() + scores[len(steps) - 1]

    def backward() -> float:
        parameter.grad = torch.ones(2)
        return 0.5

    def model_kl(stop_above: float = math.inf) -> float:
        return 0.5 if steps.index(parameter.tolist()) in allowed else 2.0

    objective: Any = SimpleNamespace(score_model=score_model, target_score=math.inf)
    limit: Any = SimpleNamespace(parts=[SimpleNamespace(backward=backward)] * 4, max_kl=1.0, model_kl=model_kl)
    training._ascend_within(limit, objective, optimizer, len(scores))
    assert len({*map(tuple, steps)}) == len(scores)
    assert parameter.tolist() == steps[kept]


def test_missing_gradients_are_zero_where_the_parameters_are() -> None:
    parameters = [torch.nn.Parameter(torch.ones(size, device="meta")) for size in (2, 3)]
    flat = training._flat_gradient([*parameters])
    assert flat.shape == (5,) and flat.device.type == "meta"


@pytest.mark.parametrize("baseline", ALL.values(), ids=ALL)
def test_results_depend_on_the_seed_alone(objective: AnswerObjective, baseline: Callable[..., BaselineEdit]) -> None:
    torch.manual_seed(3)
    first = baseline(objective, 9)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    assert baseline(objective, 9).fingerprint == first.fingerprint
    assert torch.equal(torch.get_rng_state(), before)


def test_a_failure_in_training_leaves_the_model_as_it_was(
    objective: AnswerObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(objective.model)
    monkeypatch.setattr(objective, "score_model", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trained.train("lora", objective, 9, 0)
    assert unchanged(objective.model, before)


def test_oft_rotates_pairs_of_the_edited_projections_only(objective: AnswerObjective) -> None:
    edit = trained.train("oft", objective, 30, 0)
    assert edit.weights.keys() == {f"{site.name}.weight" for site in objective.sites}
    for name, weight in edit.weights.items():
        old = dict(objective.model.named_parameters())[name]
        lengths = [w.unflatten(-1, (-1, 2)).norm(dim=-1) for w in (old, weight)]
        assert not torch.equal(old, weight)
        torch.testing.assert_close(*lengths, atol=1e-5, rtol=1e-5)


def test_a_model_that_peft_does_not_train_is_refused() -> None:
    config = GPT2Config(vocab_size=258, n_positions=64, n_embd=12, n_layer=1, n_head=3, bos_token_id=0, eos_token_id=1)
    model = GPT2LMHeadModel(config).eval()
    gpt2 = AnswerObjective(model, SAMPLES, encode, sites=find_sites(model, "heads", 1.0))
    before = state(model)
    with pytest.raises(TarotError, match="oft"):
        trained.train("oft", gpt2, 9, 0)
    assert unchanged(model, before)


def test_a_step_costs_three_evaluations() -> None:
    assert [training.n_steps(budget) for budget in (1, 3, 5, 6, 120)] == [1, 1, 1, 2, 40]


# Eigenpruning


def test_estimates_are_gradients_of_shrinking_a_singular_value(objective: AnswerObjective) -> None:
    weights = dict(_attention_weights(objective))
    for each in _factorize(objective)[:3]:
        top = int(each.gains.abs().argmax())
        around = []
        for factor in (0.995, 1.005):
            s = each.s.clone()
            s[top] *= factor
            around.append(score(objective, WeightEdit({each.name: (each.u * s) @ each.vh}, 0, {})))
        gradient = (around[0] - around[1]) / 0.01  # per fraction of the singular value
        assert gradient == pytest.approx(float(each.gains[top]), rel=0.05, abs=1e-4)
    assert len(weights) == 8  # four projections in each of two layers


def test_pruning_never_ends_below_the_identity(objective: AnswerObjective) -> None:
    base = float(objective.score_model().detach())
    edit = eigenpruning(objective, 120, 0)
    assert score(objective, edit) >= base


@pytest.mark.parametrize(
    ("most", "evaluations", "counts"), [(0, 9, [0]), (5, 9, [0, 1, 2, 4, 5]), (5, 2, [0, 1]), (8, 0, [0])]
)
def test_numbers_of_singular_values(most: int, evaluations: int, counts: list[int]) -> None:
    assert list(_counts(most, evaluations)) == counts


@pytest.mark.parametrize("baseline", ALL.values(), ids=ALL)
def test_an_objective_without_a_gradient_is_refused(baseline: Callable[..., BaselineEdit]) -> None:
    model = byte_model()
    counted = AnswerObjective(model, SAMPLES, encode, answer_score="accuracy", sites=find_sites(model, "heads", [2, 3]))
    with pytest.raises(TarotError, match=r"a gradient, .* try log_probability"):
        baseline(counted, 12)


def test_attention_without_linear_layers_is_refused() -> None:
    config = GPT2Config(vocab_size=258, n_positions=64, n_embd=12, n_layer=1, n_head=3, bos_token_id=0, eos_token_id=1)
    model = GPT2LMHeadModel(config).eval()
    with pytest.raises(TarotError, match=r"expected attention of nn.Linear layers, got none in GPT2LMHeadModel"):
        eigenpruning(AnswerObjective(model, SAMPLES, encode, sites=find_sites(model, "heads", 1.0)), 12, 0)


def test_weights_of_another_model_are_refused(objective: AnswerObjective) -> None:
    edit = WeightEdit({"model.strange.weight": torch.zeros(2)}, 0, {})
    with pytest.raises(TarotError, match=r"^expected weights of this model, got model\.strange\.weight$"):
        score(objective, edit)


def test_a_matrix_without_numbers_is_not_pruned(objective: AnswerObjective) -> None:
    objective.model.model.layers[3].self_attn.o_proj.weight[0, 0] = math.nan
    assert {each.name for each in _factorize(objective)} == {
        name for name, weight in _attention_weights(objective) if weight.isfinite().all()
    }
    assert eigenpruning(objective, 12, 0).weights == {}
