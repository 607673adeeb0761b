"""Metrics of tasks/: their definitions, a slow oracle, and a real evaluation that agrees with its own samples."""

import json
import math
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval import simple_evaluate
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable
from task_files import METRICS, SYNTHETIC, TASKS, import_task_module, load_with_data, write_paper_data
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

metrics, free = import_task_module("metrics"), import_task_module("paper/free")


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConfigurableTask]:
    return load_with_data(write_paper_data(tmp_path_factory.mktemp("data")), "tarot_paper")


def slow_weighted_f1(pairs: list[tuple[int, int]]) -> float:
    total = 0.0
    for label in {gold for gold, _ in pairs}:
        right = sum(gold == predicted == label for gold, predicted in pairs)
        predicted_count = sum(predicted == label for _, predicted in pairs)
        gold_count = sum(gold == label for gold, _ in pairs)
        total += gold_count * 2 * right / (predicted_count + gold_count)  # F1 = 2 tp / (2 tp + fp + fn)
    return total / len(pairs)


@settings(deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=30))
def test_weighted_f1_agrees_with_counting(pairs: list[tuple[int, int]]) -> None:
    assert metrics.weighted_f1(pairs) == pytest.approx(slow_weighted_f1(pairs), abs=1e-12)


@given(
    results=st.lists(st.tuples(st.floats(-50, 0), st.booleans()), min_size=2, max_size=6),
    data=st.data(),
)
def test_process_results_agrees_with_its_definition(results: list[tuple[float, bool]], data: st.DataObject) -> None:
    gold = data.draw(st.integers(0, len(results) - 1))
    words = ["a" * (1 + place) for place in range(len(results))]
    choices = Random(data.draw(st.integers(0, 9))).sample(words, len(words))
    scores = metrics.process_results({"choices": choices, "gold": gold}, results)
    assert set(scores) == METRICS
    likeliest, greedy_answer = scores["f1"][1], scores["greedy_f1"][1]
    assert all(results[likeliest][0] >= log_probability for log_probability, _ in results)
    assert scores["acc"] == (likeliest == gold)
    greedy = {choice: place for place, choice in enumerate(choices) if results[place][1]}
    assert greedy_answer == (greedy[max(greedy, key=len)] if greedy else -1)
    assert scores["greedy_acc"] == (greedy_answer == gold)
    assert scores["gold_prob"] == pytest.approx(math.exp(results[gold][0]))
    assert scores["f1"][0] == scores["greedy_f1"][0] == gold


def test_greedy_outside_the_choices_is_wrong_and_a_class_of_its_own() -> None:
    document = {"choices": ["yes", "no"], "gold": 0}
    outside = metrics.process_results(document, [(-1.0, False), (-2.0, False)])
    assert (outside["acc"], outside["greedy_acc"], outside["greedy_f1"]) == (1.0, 0.0, (0, -1))
    assert metrics.weighted_f1([(0, -1), (1, -1)]) == 0.0
    # It takes away recall and no precision: F1 of "yes" is 2/3, not 1.
    assert metrics.weighted_f1([(0, 0), (0, -1)]) == pytest.approx(2 / 3)


def test_the_longer_of_two_greedy_choices_is_the_answer() -> None:
    document = {"choices": ["black", "blackish", "blue"], "gold": 1}
    scores = metrics.process_results(document, [(-0.1, True), (-0.2, True), (-9.0, False)])
    assert (scores["greedy_f1"], scores["f1"]) == ((1, 1), (1, 0))


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_nan_log_probabilities_choose_nothing(broken: int) -> None:
    document = {"choices": ["black", "blackish", "blue"], "gold": 0}
    scores = metrics.process_results(document, [(math.nan if i == broken else -1.0, False) for i in range(3)])
    assert scores == {"acc": 0.0, "f1": (0, -1), "greedy_acc": 0.0, "greedy_f1": (0, -1), "gold_prob": 0.0}


def byte_model() -> HFLM:
    """A random Llama of two layers that reads bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: number for number, symbol in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    return HFLM(
        pretrained=model, tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special), batch_size=16
    )


def test_a_real_evaluation_agrees_with_its_own_samples(paper: dict[str, ConfigurableTask]) -> None:
    torch.set_num_threads(1)
    results = simple_evaluate(
        model=byte_model(),
        tasks=["tarot_synthetic", paper["tarot_ag_news"]],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        num_fewshot=1,
        limit=6,
        bootstrap_iters=10,
        log_samples=True,
    )
    results = json.loads(json.dumps(results, default=handle_non_serializable))  # as lm-eval writes it
    assert results["n-shot"]["synth_color"] == 1
    for name in (*SYNTHETIC, "tarot_ag_news"):
        samples, scores = results["samples"][name], results["results"][name]
        assert len(samples) == 6
        expected: dict[str, list] = {metric: [] for metric in METRICS}
        for sample in samples:
            document = sample["doc"]
            own = metrics.process_results(document, [(lp, greedy) for lp, greedy in sample["filtered_resps"]])
            for metric in METRICS:
                expected[metric].append(own[metric])
                assert sample[metric] == pytest.approx(own[metric])
            assert len(sample["arguments"]) == len(document["choices"])
            assert [c for _, c in sample["arguments"]] == [f" {choice}" for choice in document["choices"]]
        for metric in ("acc", "greedy_acc", "gold_prob"):
            assert scores[f"{metric},none"] == pytest.approx(np.mean(expected[metric]))
            assert scores[f"{metric}_stderr,none"] == pytest.approx(np.std(expected[metric], ddof=1) / math.sqrt(6))
        for metric in ("f1", "greedy_f1"):
            assert scores[f"{metric},none"] == pytest.approx(slow_weighted_f1(expected[metric]))
            assert scores[f"{metric}_stderr,none"] == "N/A"
    for metric in METRICS:
        group = results["groups"]["tarot_synthetic"][f"{metric},none"]
        assert group == pytest.approx(np.mean([results["results"][name][f"{metric},none"] for name in SYNTHETIC]))


def test_exact_match_forgives_space_and_a_period_alone() -> None:
    document = {"choices": ["7", "seven"]}
    right = ["7", " 7 ", "seven.", "\n7."]
    wrong = ["", "77", "7 apples", "Seven", "7.."]
    assert [free.process_results(document, [text])["exact_match"] for text in right + wrong] == [1.0] * 4 + [0.0] * 5
