"""Answer objective: against a slow oracle with one prompt a pass, one matrix a head and no cache."""

import math
from collections import defaultdict
from functools import cache
from itertools import pairwise
from statistics import mean

import pytest
import torch
from checkpoint import byte_model
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.errors import TarotError, UnknownName
from tarot.objectives.answers import ANSWER_SCORES, AnswerObjective, class_weights
from tarot.objectives.tasks.samples import Sample

model_of_bytes = cache(byte_model)
SAMPLES = [
    Sample("train/0", "a", (("is it red? ", "yes"), ("is it red? ", "no"), ("is it red? ", "yesterday")), 0, 0),
    Sample("train/1", "b", (("is it blue? ", "yes"), ("is it blue? ", "no"), ("is it blue? ", "nobody")), 2, 0),
    Sample("train/2", "c", (("was it? ", "no"), ("was it? ", "yes")), 1, 0),
]


def encode(context: str, continuation: str) -> tuple[list[int], list[int]]:
    return [b + 2 for b in context.encode()], [b + 2 for b in continuation.encode()]


def oracle(model: LlamaForCausalLM, angles: torch.Tensor, answer_score: str) -> float:
    """Compute the mean over classes of their samples' mean score, with one matrix a head and one prompt a pass."""
    handles = []
    for layer, layer_angles in zip(model.model.layers, angles, strict=False):
        matrix = torch.block_diag(*(ROTARY.matrix(head, 8) for head in layer_angles))

        def hook(_, args, matrix=matrix):
            return (args[0] @ matrix.to(args[0].dtype),)

        handles.append(layer.self_attn.o_proj.register_forward_pre_hook(hook))
    scores: dict[str, list[float]] = defaultdict(list)
    for sample in SAMPLES:
        log_probabilities, _ = [], None
        for context, continuation in sample.pairs:
            c, t = encode(context, continuation)
            with torch.no_grad():
                rows = model(torch.tensor([c + t])).logits[0].log_softmax(-1)
            log_probabilities.append(sum(float(rows[len(c) - 1 + i, token]) for i, token in enumerate(t)))
        gold = log_probabilities.pop(sample.gold)
        scores[sample.pairs[sample.gold][1]].append(
            {
                "probability": math.exp(gold),
                "log_probability": gold,
                "margin": gold - max(log_probabilities),
                "accuracy": float(gold > max(log_probabilities)),
            }[answer_score]
        )
    for handle in handles:
        handle.remove()
    return mean(map(mean, scores.values()))


def objective(answer_score: str = "log_probability", samples: list[Sample] = SAMPLES) -> AnswerObjective:
    model = model_of_bytes()
    return AnswerObjective(model, samples, encode, answer_score=answer_score, sites=find_sites(model, "heads", 0.5))


@given(st.integers(0, 1000), st.sampled_from(sorted(ANSWER_SCORES)))
@settings(max_examples=25)
def test_agrees_with_the_oracle(seed: int, answer_score: str) -> None:
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))
    assert objective(answer_score)(angles) == pytest.approx(oracle(model_of_bytes(), angles, answer_score), abs=1e-4)


@given(st.lists(st.sampled_from("abcd"), min_size=1))
def test_classes_have_equal_weights(answers: list[str]) -> None:
    weights = class_weights(answers)
    for answer in set(answers):
        class_weight = weights[[other == answer for other in answers]]
        assert float(class_weight.sum()) == pytest.approx(1 / len(set(answers)))
        assert (class_weight == class_weight[0]).all()


@given(st.lists(st.sampled_from("abcdefg"), min_size=1))
def test_only_all_right_answers_reach_the_target_accuracy(answers: list[str]) -> None:
    """The class weights add up to 1 only within rounding."""
    weights, target_score = class_weights(answers), ANSWER_SCORES["accuracy"].target_score
    right = torch.ones(len(answers))
    assert float(right @ weights) >= target_score
    right[0] = 0
    assert float(right @ weights) < target_score


@given(st.integers(0, 2), st.integers(0, 2), st.sampled_from(sorted(ANSWER_SCORES)))
def test_a_nan_log_probability_makes_a_nan_score(gold: int, broken: int, answer_score: str) -> None:
    """A search must not mistake a broken model for one that chooses the first answer."""
    values = torch.tensor([-1.0, -2.0, -3.0])
    values[broken] = torch.nan
    if ANSWER_SCORES[answer_score].needs_choices or gold == broken:
        assert ANSWER_SCORES[answer_score].compute(values, torch.ones(3, dtype=torch.bool), gold).isnan()


def test_a_repeated_sample_changes_nothing() -> None:
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    repeated = objective(samples=[*SAMPLES, SAMPLES[1]])
    assert repeated(angles) == pytest.approx(objective()(angles), abs=1e-5)


@pytest.mark.parametrize("answer_score", ["probability", "log_probability", "margin", "accuracy"])
def test_the_gradient_agrees_with_finite_differences(answer_score: str) -> None:
    """Accuracy is not differentiable and uses the gradient of the log-probability."""
    _, gradient = objective(answer_score).value_and_grad(torch.zeros(2, 3, 4))
    differentiable = objective("log_probability" if answer_score == "accuracy" else answer_score)
    direction = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    step = 1e-3
    slope = (differentiable(step * direction) - differentiable(-step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=0.02, abs=1e-4)


def test_a_gradient_that_does_not_fit_into_memory_is_computed_by_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = objective("margin")
    together = scored.value_and_grad(torch.zeros(2, 3, 4))

    def full() -> None:
        raise torch.OutOfMemoryError("too many samples at once")

    monkeypatch.setattr(scored.scorer, "log_probabilities", full)
    torch.testing.assert_close(scored.value_and_grad(torch.zeros(2, 3, 4)), together, atol=1e-5, rtol=1e-4)


def test_the_model_is_unchanged() -> None:
    model = model_of_bytes()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objective()(torch.ones(2, 3, 4))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_higher_is_better() -> None:
    """A planted preference for the right answer raises every score."""
    model = byte_model(seed=1)
    sites = find_sites(model, "heads", 0.5)
    sample = Sample("train/0", "a", (("q", "x"), ("q", "y")), 0, 0)
    zero = torch.zeros(2, 3, 4)
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(258), requires_grad=False)
    for answer_score in sorted(ANSWER_SCORES):
        scores = []
        for preference in (-50.0, 0.0, 50.0):
            head.bias[ord("x") + 2] = preference
            scores.append(AnswerObjective(model, [sample], encode, answer_score=answer_score, sites=sites)(zero))
        assert all(a <= b for a, b in pairwise(scores)) and scores[0] < scores[-1], answer_score


def test_only_the_right_answer_is_scored_unless_choices_are_needed() -> None:
    assert len(objective("log_probability").scorer.requests) == 3
    assert len(objective("margin").scorer.requests) == 8


def test_accuracy_of_a_single_answer_is_that_of_greedy_decoding() -> None:
    model = model_of_bytes()
    context, _ = encode("and then ", "")
    greedy = int(model(torch.tensor([context])).logits[0, -1].argmax())
    sites = find_sites(model, "heads", 0.5)
    scores = []
    for token in (greedy, (greedy + 1) % 258):
        sample = Sample("train/0", "a", (("and then ", "?"),), 0, 0)
        scored = AnswerObjective(
            model, [sample], lambda c, t, token=token: (context, [token]), answer_score="accuracy", sites=sites
        )
        scores.append(scored(torch.zeros(2, 3, 4)))
    assert scores == [1.0, 0.0]


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'log_probability'\?"):
        objective("log_probabilty")
    with pytest.raises(TarotError, match="several answers"):
        objective("margin", [Sample("train/0", "a", (("q", "x"),), 0, 0)])
    long = Sample("train/9", "a", (("q" * 5000, "x"),), 0, 0)
    with pytest.raises(TarotError, match="5000 in train/9"):
        objective("log_probability", [long])
