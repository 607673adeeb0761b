"""Scores of planned, cached and batched passes against one plain pass for each request."""

from functools import cache

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import ARCHITECTURES, VOCABULARY, tiny_model
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from tarot.errors import TarotError
from tarot.models.scoring.prefix_cache import CACHE, can_share_prefix
from tarot.models.scoring.scorer import Request, Score, Scorer

tiny = cache(tiny_model)
TOKENS = st.integers(3, VOCABULARY - 1)


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    """Requests as tasks make them: a shared system text, nested shots, several answers to a context."""
    words = st.lists(TOKENS, min_size=1, max_size=5).map(tuple)
    system, shots = draw(words), draw(st.lists(words, max_size=3))
    made = []
    for _ in range(draw(st.integers(1, 5))):
        n = draw(st.integers(0, len(shots)))
        context = system + sum(shots[:n], ()) + draw(words)
        made += [Request(context, answer) for answer in draw(st.lists(words, min_size=1, max_size=3))]
    return made


def plain(model: torch.nn.Module, request: Request) -> Score:
    """The slow oracle: one sequence, every position projected, no cache."""
    with torch.no_grad():
        logits = model(torch.tensor([request.context + request.continuation]), use_cache=False).logits[0].double()
    rows = logits[len(request.context) - 1 : -1].log_softmax(-1)
    tokens = torch.tensor(request.continuation)
    greedy = bool((rows.argmax(-1) == tokens).all())
    return Score(float(rows.gather(1, tokens[:, None]).sum()), greedy)


def assert_same(scores: list[Score], expected: list[Score]) -> None:
    assert [score.greedy for score in scores] == [score.greedy for score in expected]
    assert [s.log_probability for s in scores] == pytest.approx([s.log_probability for s in expected], abs=1e-4)


@pytest.fixture(autouse=True)
def _cheap_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    # With free passes every prefix is shared; at the sizes of a test, sharing would otherwise never pay.
    monkeypatch.setattr("tarot.models.scoring.scorer.PASS_COST_TOKENS", {"cpu": 0})


@given(requests())
@settings(max_examples=60)
def test_scores_agree_with_a_plain_pass(made: list[Request]) -> None:
    model = tiny("llama")
    assert_same(Scorer(model, made).scores(), [plain(model, request) for request in made])


@given(requests())
@settings(max_examples=30)
def test_sliding_windows_see_the_distances_of_unpadded_text(made: list[Request]) -> None:
    model = tiny("gemma3_text")
    assert_same(Scorer(model, made).scores(), [plain(model, request) for request in made])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_agree_on_every_architecture(architecture: str) -> None:
    model = tiny(architecture)
    shared = tuple(range(3, 15))
    made = [Request((*shared, *tail), answer) for tail in ((20,), (21, 22, 23)) for answer in ((5,), (5, 6), (7, 8, 9))]
    scorer = Scorer(model, made)
    assert_same(scorer.scores(), [plain(model, request) for request in made])


def test_layers_that_keep_more_than_keys_and_values_share_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    class Indexed(DynamicLayer):
        pass

    model = tiny("llama")
    assert can_share_prefix(model)
    monkeypatch.setattr(
        "tarot.models.scoring.prefix_cache.DynamicCache", lambda config: Cache(layers=[Indexed() for _ in range(3)])
    )
    assert not can_share_prefix(model)
    made = [Request((*range(3, 15), i), (5, 6)) for i in (20, 21)]
    assert_same(Scorer(model, made).scores(), [plain(model, request) for request in made])


def test_layers_that_read_the_keys_of_others_share_no_prefix() -> None:
    kinds = ["sliding_attention", "full_attention", "full_attention"]
    model = tiny_model("gemma4_text", num_kv_shared_layers=1, layer_types=kinds)
    assert not can_share_prefix(model)
    made = [Request((*range(3, 15), i), (5, 6)) for i in (20, 21)]
    assert_same(Scorer(model, made).scores(), [plain(model, request) for request in made])


def test_models_with_a_state_share_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    monkeypatch.setattr(model, "_is_stateful", True)  # as transformers marks recurrent models
    assert not can_share_prefix(model)


@given(requests(), st.randoms())
@settings(max_examples=30)
def test_order_and_batch_do_not_change_a_score(made: list[Request], random: object) -> None:
    model = tiny("llama")
    shuffled = list(made)
    random.shuffle(shuffled)
    scores = dict(zip(shuffled, Scorer(model, shuffled).scores(), strict=True))
    assert_same(Scorer(model, made, batch_size=1).scores(), [scores[request] for request in made])


@st.composite
def cut_requests(draw: st.DrawFn) -> list[Request]:
    """Requests over two tokens: one begins to be scored within the context or the answer of another."""
    texts = st.lists(st.integers(3, 4), min_size=2, max_size=8).map(tuple)
    cuts = [(text, draw(st.integers(1, len(text) - 1))) for text in draw(st.lists(texts, min_size=2, max_size=6))]
    return [Request(text[:cut], text[cut:]) for text, cut in cuts]


@given(cut_requests())
@example([Request((11, 12, 13), (14, 15)), Request((11, 12), (13,)), Request((11, 12, 16), (17,))])
@example([Request((11, 12), (13, 14, 15)), Request((11, 12, 13), (16,)), Request((11, 12, 20), (17,))])
@settings(max_examples=60)
def test_a_row_is_read_from_its_first_requests_answer(made: list[Request]) -> None:
    model = tiny("llama")
    assert_same(Scorer(model, made).scores(), [plain(model, request) for request in made])


def tokens_run(scorer: Scorer) -> int:
    """Count the tokens that reach the model in one scoring, padding included."""
    counts: list[int] = []
    embedding = scorer.model.get_input_embeddings()
    handle = embedding.register_forward_pre_hook(lambda _, args: counts.append(args[0].numel()))
    try:
        scorer.scores()
    finally:
        handle.remove()
    return sum(counts)


@given(requests() | cut_requests())
@settings(max_examples=60)
def test_shared_tokens_run_once(made: list[Request]) -> None:
    scorer = Scorer(tiny("llama"), made, batch_size=1)
    rows = scorer._rows
    fewest = 0
    for prefix in {row.tokens[:n] for row in rows for n in range(1, len(row.tokens) + 1)}:
        holders = [row for row in rows if row.tokens[: len(prefix)] == prefix]
        # A row runs alone from where it is read; the other rows share the prefix.
        own = sum(row.start < len(prefix) for row in holders)
        fewest += own + (own < len(holders))
    assert tokens_run(scorer) == scorer.tokens == fewest


def test_a_prefix_of_another_sequence_has_no_row() -> None:
    made = [Request((3, 4), answer) for answer in ((5,), (5, 6), (5, 6, 7), (5, 6, 7))]
    assert tokens_run(Scorer(tiny("llama"), made)) == 4


def test_a_prefix_is_shared_if_that_saves_more_than_a_pass_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [Request((*range(3, 13), n), (5,)) for n in (20, 21, 22)]
    for cost, tokens in ((19, 10 + 3), (20, 3 * 11)):
        monkeypatch.setattr("tarot.models.scoring.scorer.PASS_COST_TOKENS", {"cpu": cost})
        assert tokens_run(Scorer(tiny("llama"), made)) == tokens


def test_nested_shots_run_once() -> None:
    system, shots = (3, 4), ((5, 6, 7), (8, 9), (10, 11, 12))
    made = [Request(system + sum(shots[:n], ()) + (20 + n, 30), (40,)) for n in (0, 0, 1, 2, 2, 3)]
    scorer = Scorer(tiny("llama"), made)
    assert scorer.tokens <= len(system) + sum(map(len, shots)) + 2 * len(made) + 3


def test_only_needed_positions_reach_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    projected = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda _, __, out: projected.append(out.shape[:-1].numel())
    )
    made = [Request((3, 4, 5, 6, 7, n), (8, 9)) for n in range(10, 16)]
    try:
        Scorer(model, made).scores()
    finally:
        handle.remove()
    assert sorted(projected) == [1, 12]  # the shared prefix projects one position, whose logits are not read


def test_a_pass_without_a_prefix_keeps_no_keys_and_values() -> None:
    model, kept = tiny("llama"), []
    handle = model.register_forward_hook(lambda _, __, out: kept.append(getattr(out, CACHE)))
    try:
        Scorer(model, [Request((3, 4), (5,))]).scores()
    finally:
        handle.remove()
    assert kept == [None]


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    made = [Request((3, 4, n), (5,)) for n in range(10, 18)]
    expected = [plain(model, request) for request in made]
    seen = []

    def small(module: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        seen.append(len(kwargs["input_ids"]))
        if seen[-1] > 3:
            raise torch.OutOfMemoryError("no memory for a batch of this size")

    handle = model.register_forward_pre_hook(small, with_kwargs=True)
    try:
        assert_same(Scorer(model, made).scores(), expected)
    finally:
        handle.remove()
    assert max(seen) > 3 >= seen[-1]


@pytest.mark.parametrize(("limit", "most"), [(7, 6), (1, 3)])  # a pass has one row at least
def test_a_pass_has_no_more_logits_than_its_limit(monkeypatch: pytest.MonkeyPatch, limit: int, most: int) -> None:
    model, read = tiny("llama"), []
    head = model.get_output_embeddings()
    made = [Request((3, 4 + i), (5, 6, 7)) for i in range(8)]
    expected = Scorer(model, made).scores()
    monkeypatch.setattr("tarot.models.scoring.scorer.AUTO_PASS_LOGITS", limit * head.weight.shape[0])
    handle = head.register_forward_hook(lambda _, __, out: read.append(out.shape[1]))
    try:
        assert_same(Scorer(model, made).scores(), expected)
    finally:
        handle.remove()
    assert max(read) == most


def test_other_errors_are_raised() -> None:
    model = tiny("llama")
    handle = model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("something else")))
    try:
        with pytest.raises(RuntimeError, match="something else"):
            Scorer(model, [Request((3,), (4,)), Request((5,), (4,))]).scores()
    finally:
        handle.remove()


def test_scores_are_differentiable() -> None:
    model = tiny("llama")
    embedding = model.get_input_embeddings().weight
    embedding.requires_grad_(True)
    try:
        total, _ = Scorer(model, [Request((3, 4), (5, 6)), Request((3, 7), (5,))]).log_probabilities()
        (gradient,) = torch.autograd.grad(total.sum(), embedding)
    finally:
        embedding.requires_grad_(False)
    assert gradient[3].abs().sum() > 0


def test_a_prompt_that_is_too_long_is_named() -> None:
    with pytest.raises(TarotError, match="train/7"):
        Scorer(tiny("llama"), [Request((3,) * 64, (4, 5))], names=["train/7"])


def test_empty_contexts_and_answers_are_refused() -> None:
    with pytest.raises(TarotError, match="request 0"):
        Scorer(tiny("llama"), [Request((), (4,))])
    with pytest.raises(TarotError, match="train/7"):
        Scorer(tiny("llama"), [Request((4,), ())], names=["train/7"])


def test_no_requests_have_no_scores() -> None:
    assert Scorer(tiny("llama"), []).scores() == []
