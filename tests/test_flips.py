"""Flips against one document at a time."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tarot.analysis.flips import find_flips
from tarot.analysis.next_tokens import answer_request
from tarot.analysis.results import FlipsResult
from tarot.analysis.tuned_documents import answer_documents, tuned_documents
from tarot.edit.adapter import Adapter
from tarot.evaluation.options import EvaluationOptions
from tarot.evaluation.results.comparison import OUTSIDE, Arm
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel


def test_flips_equal_those_of_single_documents(loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path) -> None:
    model, encode = loaded.model, TarotLM(loaded.model, tokenizer=loaded.tokenizer).encode
    samples = tuned_documents(loaded, tuned_adapter, include_path=tasks_folder)
    # Of random models every answer is wrong; make the greedy first letter the right answer of some.
    samples = [replace(s, pairs=tuple((c, chr(97 + i)) for i, (c, _) in enumerate(s.pairs))) for s in samples]
    head = model.get_output_embeddings()
    bias = torch.zeros(head.weight.shape[0])
    for i in range(3):
        bias[encode("x", chr(97 + i))[1][0]] = 30.0
    head.bias = torch.nn.Parameter(bias, requires_grad=False)
    try:

        def answers() -> list[tuple[int, torch.Tensor]]:
            rows = []
            for sample in samples:
                with torch.no_grad():
                    row = model(torch.tensor([encode(*sample.pairs[0])[0]])).logits[0, -1].log_softmax(-1)
                letter = int(row.argmax())
                tokens = [encode(*pair)[1][0] for pair in sample.pairs]
                rows.append((tokens.index(letter) if letter in tokens else OUTSIDE, row))
            return rows

        base = answers()
        with tuned_adapter.apply(model):
            edited = answers()
        both = [arm([answer for answer, _ in answered]) for answered in (base, edited)]
        requests = [answer_request(sample, encode, loaded.tokenizer) for sample in samples]
        result = find_flips(model, loaded.tokenizer, tuned_adapter, samples, requests, *both, n_tokens=3)
        first = result.flips[0]
        both[1] = replace(both[1], without_number=(first.row,))
        others = find_flips(model, loaded.tokenizer, tuned_adapter, samples, requests, *both, n_tokens=3)
    finally:
        head.bias = None
    assert result.without_number == () and others == FlipsResult(result.flips[1:], (first.id,))
    flips = result.flips
    flipped = [i for i, s in enumerate(samples) if (base[i][0] == s.gold) != (edited[i][0] == s.gold)]
    assert flipped and [flip.row for flip in flips] == flipped
    for flip in flips:
        i = flip.row
        assert (flip.base, flip.edited, flip.fixed) == (base[i][0], edited[i][0], edited[i][0] == samples[i].gold)
        for moved in flip.moved:
            assert moved.base == pytest.approx(float(base[i][1][moved.id]), abs=1e-4)
            assert moved.edited == pytest.approx(float(edited[i][1][moved.id]), abs=1e-4)
        assert flip.moved[0].text == "abc"[samples[i].gold]
        furthest = (edited[i][1].exp() - base[i][1].exp()).abs().topk(3).indices.tolist()
        assert {moved.id for moved in flip.moved} >= set(furthest)
    (token,) = result.most_moved_tokens(1)
    assert token.text in "abc" and math.isfinite(token.base + token.edited) and 1 <= token.n_documents <= len(flips)


def arm(greedy: list[int]) -> Arm:
    return Arm("", 0, tuple(greedy), tuple(greedy), (0.5,) * len(greedy), 0.0)


def identity_of(tuned_adapter: Adapter) -> Adapter:
    return replace(tuned_adapter, angles=torch.zeros_like(tuned_adapter.angles))


def test_the_identity_flips_nothing(loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path) -> None:
    encode = TarotLM(loaded.model, tokenizer=loaded.tokenizer).encode
    samples = tuned_documents(loaded, tuned_adapter, include_path=tasks_folder, limit=4)
    options = EvaluationOptions(tasks_folder, limit=4)
    both = [answer_documents(loaded, tuned_adapter, edit, options) for edit in (None, identity_of(tuned_adapter))]
    nothing = FlipsResult(())
    requests = [answer_request(sample, encode, loaded.tokenizer) for sample in samples]
    assert find_flips(loaded.model, loaded.tokenizer, identity_of(tuned_adapter), samples, requests, *both) == nothing
    assert nothing.most_moved_tokens() == []
