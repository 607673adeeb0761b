"""Pictures of the mechanism against slow oracles: a model cut short, one prompt at a time, every set of heads tried."""

import csv
import math
import xml.etree.ElementTree as ElementTree
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, write_tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ARCHITECTURES, LAYERS, tiny_model, tokens
from transformers import AutoModelForCausalLM

from tarot.analysis.attention import attention, patterns
from tarot.analysis.flips import flips, most_moved
from tarot.analysis.heads import attributed, edited_heads, head_maps, keep_heads, prune_heads
from tarot.analysis.lens import final_norm, layer_probabilities
from tarot.analysis.prompts import answer_of, batches, next_log_probabilities
from tarot.analysis.protocol import documents, greedy_answers, make_objective, prune_adapter
from tarot.edit.adapter import Adapter, Edit
from tarot.edit.hooks import apply_rotation
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import angle_mask, decoder_layers, find_sites
from tarot.errors import TarotError
from tarot.evaluation.compare import compare
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.results import EDITED, OUTSIDE, ZERO_SHOT
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.models.scoring.scorer import Request
from tarot.objectives.samples import Sample
from tarot.report.analysis import analyse
from tarot.search.config import TaRotConfig
from tarot.search.tune import tune

HEADS = torch.arange(1.0, 7.0).reshape(2, 3, 1)
PROMPTS = [tuple(tokens(1, length, seed=length)[0].tolist()) for length in (7, 3, 11, 7, 1)]
REQUESTS = [Request(prompt, (5 + i, 9)) for i, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return LoadedModel("bytes", byte_model(), byte_tokenizer())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, loaded: LoadedModel, folder: Path) -> Adapter:
    config = TaRotConfig("own_choice", num_samples=6, search="random", space="head", layers="0.5", bound=2.0)
    return tune(
        loaded.model,
        loaded.tokenizer,
        config,
        output_dir=tmp_path_factory.mktemp("adapter") / "a",
        budget=8,
        include_path=folder,
    )


def identity_of(adapter: Adapter) -> Adapter:
    return replace(adapter, angles=torch.zeros_like(adapter.angles))


# Sets of heads


@st.composite
def scores_of_sets(draw: st.DrawFn) -> tuple[torch.Tensor, dict[frozenset[tuple[int, int]], float]]:
    """Angles of up to five heads, and any score at all for each set of them, such that all together gain."""
    heads = draw(st.integers(1, 5))
    angles = torch.zeros(2, 3, 2)
    for i in range(heads):
        angles[i // 3, i % 3] = draw(st.floats(0.1, 1))
    every = sorted(edited_heads(angles))
    table = {frozenset(s): draw(st.floats(-3, 3)) for n in range(heads + 1) for s in combinations(every, n)}
    table[frozenset(every)] = table[frozenset()] + draw(st.floats(0.01, 2))
    return angles, table


@given(scores_of_sets(), st.floats(0.01, 1), st.none() | st.lists(st.floats(-1, 1), min_size=6, max_size=6))
@settings(max_examples=200)
def test_pruning_keeps_the_share_and_no_head_to_spare(
    drawn: tuple[torch.Tensor, dict[frozenset[tuple[int, int]], float]], keep: float, guess: list[float] | None
) -> None:
    angles, table = drawn
    asked: list[frozenset[tuple[int, int]]] = []

    def score(given: torch.Tensor) -> float:
        asked.append(edited_heads(given))
        return table[asked[-1]]

    found = prune_heads(score, angles, keep, None if guess is None else torch.tensor(guess).reshape(2, 3))
    floor = found.identity + keep * (found.whole - found.identity)
    assert found.score == table[found.heads] >= floor
    assert all(table[found.heads - {head}] < floor for head in found.heads)
    assert torch.equal(found.angles, keep_heads(angles, found.heads))
    assert found.evaluations == len(asked) == len(set(asked))


@given(st.lists(st.floats(0.01, 1), min_size=6, max_size=6))
@settings(max_examples=50)
def test_where_heads_add_up_the_maps_agree_and_pruning_finds_the_smallest_set(gains: list[float]) -> None:
    angles = torch.ones(2, 3, 2)
    weights = torch.tensor(gains, dtype=torch.float64).reshape(2, 3)

    def score(given: torch.Tensor) -> float:
        return float((given[..., 0] * weights).sum()) - 1

    slopes = torch.stack([weights, torch.zeros(2, 3)], dim=-1).float()
    maps = head_maps(score, angles)
    torch.testing.assert_close(maps.alone, weights)
    torch.testing.assert_close(maps.missed, weights)
    torch.testing.assert_close(attributed(lambda given: (score(given), slopes), angles), weights.float())
    found = prune_heads(score, angles, 0.7, weights)
    smallest = next(n for n in range(7) if sum(sorted(gains)[6 - n :]) >= 0.7 * sum(gains) - 1e-9)
    assert len(found.heads) == smallest


def test_heads_that_are_not_turned_are_not_tried() -> None:
    angles = torch.zeros(2, 3, 2)
    angles[1, 2, 1] = 1.0
    calls = []
    maps = head_maps(lambda given: calls.append(given) or float(given.sum()), angles)
    assert len(calls) == 4
    assert maps.alone.nonzero().tolist() == maps.missed.nonzero().tolist() == [[1, 2]]


def test_a_good_guess_spares_evaluations() -> None:
    """Of 200 heads that add up, those that bring most of the gain are found with a few halvings and one round."""
    weights = torch.randn(10, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp().pow(3)
    found = prune_heads(lambda given: float((given[..., 0] * weights).sum()), torch.ones(10, 20, 2), 0.9, weights)
    assert len(found.heads) < 60 and found.evaluations < 2.5 * len(found.heads) + 20


def test_what_must_not_be_is_never_kept() -> None:
    """nan, as a search's refused trials score: here for every set without the first head."""
    found = prune_heads(
        lambda given: float("nan") if given.any() and not given[0, 0].any() else float(given.sum()), HEADS, 0.3
    )
    assert (0, 0) in found.heads and found.score >= 0.3 * found.whole
    message = r"expected an edit that gains on its own samples, got 0.0000 without it and -inf with it; tune it"
    with pytest.raises(TarotError, match=message):
        prune_heads(lambda given: float("nan") if given.any() else 0.0, HEADS)


def test_pruning_errors() -> None:
    with pytest.raises(
        TarotError, match=r"expected a share of the gain to keep, above 0 and at most 1, got 0.0; for ex"
    ):
        prune_heads(float, torch.ones(1, 1, 1), 0.0)
    message = r"expected an edit that gains on its own samples, got 0.0000 without it and 0.0000 with it; tune it"
    with pytest.raises(TarotError, match=message):
        prune_heads(lambda angles: 0.0, torch.ones(1, 1, 1))


# The lens


# Gemma 4's embeddings are of all layers at once, so that a model cut short cannot read them.
@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"gemma4_text"}))
def test_the_lens_is_the_model_cut_short(architecture: str) -> None:
    """After layer l it reads what the model would say if layer l were its last; after the last, what it says."""
    model = tiny_model(architecture)
    sites = find_sites(model, "heads", 1.0)
    angles = torch.randn(angle_mask(sites, ROTARY.n_angles).shape, generator=torch.Generator().manual_seed(1))
    with apply_rotation(model, angles, sites):
        found = layer_probabilities(model, REQUESTS)
        own = torch.tensor([said(model, request) for request in REQUESTS])
    torch.testing.assert_close(found[:, -1], own, atol=1e-4, rtol=0)
    for n in range(1, LAYERS):
        short = deepcopy(model)
        layers = decoder_layers(short)
        del layers[n:]
        short.config.num_hidden_layers = n
        few = find_sites(short, "heads", 1.0) if has_heads(short) else ()
        with ExitStack() as edit:
            if few:
                rows = torch.stack([row for site, row in zip(sites, angles, strict=True) if site.layer < n])
                _, heads, width = angle_mask(few, ROTARY.n_angles).shape
                edit.enter_context(apply_rotation(short, rows[:, :heads, :width], few))
            oracle = torch.tensor([said(short, request) for request in REQUESTS])
        torch.testing.assert_close(found[:, n - 1], oracle, atol=1e-4, rtol=0)


def has_heads(model: torch.nn.Module) -> bool:
    try:
        return bool(find_sites(model, "heads", 1.0))
    except TarotError:
        return False


@torch.no_grad()
def said(model: torch.nn.Module, request: Request) -> float:
    logits = model(input_ids=torch.tensor([request.context]), use_cache=False).logits
    return float(logits[0, -1].softmax(-1)[request.continuation[0]])


def test_a_model_without_a_final_norm_is_refused() -> None:
    config = tiny_model("opt").config
    config._remove_final_layer_norm = True
    model = AutoModelForCausalLM.from_config(config).eval()
    message = (
        "expected one norm, and nothing else, between the last layer and the output embedding, got nothing in "
        "OPTForCausalLM; its layers cannot be read through a logit lens"
    )
    with pytest.raises(TarotError, match=message):
        final_norm(model)


def test_the_lens_leaves_no_hook_behind() -> None:
    model = tiny_model("llama")
    layer_probabilities(model, REQUESTS)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# Prompts


@pytest.mark.parametrize(
    ("prompt", "answer", "asked", "first"),
    [("<assistant>\n", "yes", "<assistant>\n", "yes"), ("A:", " yes", "A: ", "yes"), ("Q", " \n", "Q", " \n")],
)
def test_white_space_belongs_to_the_prompt(
    loaded: LoadedModel, prompt: str, answer: str, asked: str, first: str
) -> None:
    """A lens on the line end of a chat template would see what every model knows."""
    encode = TarotLM(loaded.model, tokenizer=loaded.tokenizer).encode
    request = answer_of(Sample("test/0", "a", (("", "no"), (prompt, answer)), 1, 0), encode, loaded.tokenizer)
    assert (loaded.tokenizer.decode(request.context), loaded.tokenizer.decode(request.continuation)) == (asked, first)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 500_000))
@settings(max_examples=50)
def test_batches_hold_every_prompt_once(lengths: list[int], logits_each: int) -> None:
    model = tiny_llama()
    prompts = [list(range(n)) for n in lengths]
    found = {}
    for batch in batches(model, prompts, logits_each):
        for place, row, last in zip(batch.places, batch.ids.tolist(), batch.last.tolist(), strict=True):
            assert place not in found
            found[place] = row[: last + 1]
    assert [found[i] for i in range(len(prompts))] == prompts


tiny_llama = cache(lambda: tiny_model("llama"))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "qwen3_next"])
def test_next_log_probabilities_are_those_of_one_prompt_at_a_time(architecture: str) -> None:
    model = tiny_model(architecture)
    with torch.no_grad():
        oracle = [model(torch.tensor([p])).logits[0, -1].log_softmax(-1) for p in PROMPTS]
    torch.testing.assert_close(next_log_probabilities(model, PROMPTS), torch.stack(oracle), atol=1e-4, rtol=0)


# An adapter's own samples and documents


def test_documents_are_those_of_an_evaluation(loaded: LoadedModel, adapter: Adapter, folder: Path) -> None:
    shots = replace(adapter, provenance={**adapter.provenance, "num_fewshot": 2})
    for edit, k in ((adapter, 0), (shots, 2)):
        results = evaluate(loaded.model, loaded.tokenizer, ["own_choice"], include_path=folder, num_fewshot=k)
        logged = results["samples"]["own_choice"]
        pairs = [tuple(tuple(arguments) for arguments in document["arguments"]) for document in logged]
        found = documents(loaded, edit, include_path=folder)
        assert [sample.pairs for sample in found] == pairs
        assert len(documents(loaded, edit, include_path=folder, limit=3)) == 3


def test_the_objective_gives_the_scores_of_the_search(loaded: LoadedModel, adapter: Adapter, folder: Path) -> None:
    objective = make_objective(loaded, adapter, include_path=folder)
    assert objective(adapter.angles) == pytest.approx(adapter.provenance["scores"]["best"], abs=1e-5)
    assert objective(adapter.angles * 0) == pytest.approx(adapter.provenance["scores"]["identity"], abs=1e-5)


def test_a_pruned_adapter_says_what_it_was(loaded: LoadedModel, adapter: Adapter, folder: Path, tmp_path: Path) -> None:
    prune_adapter(loaded, adapter, 0.8, include_path=folder).save_pretrained(tmp_path)
    smaller = Adapter.from_pretrained(tmp_path)
    record = smaller.provenance["pruned"]
    assert record["from"] == adapter.fingerprint != smaller.fingerprint
    assert len(edited_heads(smaller.angles)) == record["heads"] < record["of"] == len(edited_heads(adapter.angles))
    scores = record["scores"]
    assert scores["pruned"] >= scores["identity"] + 0.8 * (scores["whole"] - scores["identity"])
    objective = make_objective(loaded, smaller, include_path=folder)
    assert objective(smaller.angles) == pytest.approx(scores["pruned"], abs=1e-6)


def test_what_heads_bring_adds_up_to_the_gain(loaded: LoadedModel, adapter: Adapter, folder: Path) -> None:
    objective = make_objective(loaded, adapter, include_path=folder)
    gain = objective(adapter.angles) - objective(torch.zeros_like(adapter.angles))
    found = attributed(objective.value_and_grad, adapter.angles, points=40)
    assert found.shape == (2, 3) and float(found.sum()) == pytest.approx(gain, rel=0.01)


def test_other_data_and_no_recipe_are_refused(loaded: LoadedModel, adapter: Adapter, folder: Path) -> None:
    drawn = [{**sample, "key": "another"} for sample in adapter.provenance["samples_drawn"]]
    other = replace(adapter, provenance={**adapter.provenance, "samples_drawn": drawn})
    message = "expected the samples of own_choice that the adapter was tuned on, got others; use the data it was"
    with pytest.raises(TarotError, match=message):
        make_objective(loaded, other, include_path=folder)
    with pytest.raises(TarotError, match="expected a limit of at least 1 document, got 0; leave it out for all"):
        documents(loaded, adapter, include_path=folder, limit=0)
    with pytest.raises(TarotError, match="expected an adapter that says what it was tuned on, got one without a task"):
        documents(loaded, replace(adapter, provenance={}), include_path=folder)


# Flips


def test_flips_are_those_of_one_document_at_a_time(loaded: LoadedModel, adapter: Adapter, folder: Path) -> None:
    model, encode = loaded.model, TarotLM(loaded.model, tokenizer=loaded.tokenizer).encode
    samples = documents(loaded, adapter, include_path=folder)
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
        with adapter.apply(model):
            edited = answers()
        both = ([answer for answer, _ in greedy_answers] for greedy_answers in (base, edited))
        found = flips(model, loaded.tokenizer, adapter, samples, encode, *both, n_tokens=3)
    finally:
        head.bias = None
    flipped = [i for i, s in enumerate(samples) if (base[i][0] == s.gold) != (edited[i][0] == s.gold)]
    assert flipped and [flip.document for flip in found] == flipped
    for flip in found:
        i = flip.document
        assert (flip.base, flip.edited, flip.gained) == (base[i][0], edited[i][0], edited[i][0] == samples[i].gold)
        for moved in flip.moved:
            assert moved.base == pytest.approx(float(base[i][1][moved.id]), abs=1e-4)
            assert moved.edited == pytest.approx(float(edited[i][1][moved.id]), abs=1e-4)
        assert flip.moved[0].text == "abc"[samples[i].gold]
        furthest = (edited[i][1].exp() - base[i][1].exp()).abs().topk(3).indices.tolist()
        assert {moved.id for moved in flip.moved} >= set(furthest)
    (text, before, after, count), *_ = most_moved(found, 1)
    assert text in "abc" and math.isfinite(before + after) and 1 <= count <= len(found)


def test_without_an_edit_nothing_flips(loaded: LoadedModel, adapter: Adapter, folder: Path) -> None:
    encode = TarotLM(loaded.model, tokenizer=loaded.tokenizer).encode
    samples = documents(loaded, adapter, include_path=folder, limit=4)
    asked = {"include_path": folder, "limit": 4}
    both = [greedy_answers(loaded, adapter, edit, **asked) for edit in (None, identity_of(adapter))]
    assert flips(loaded.model, loaded.tokenizer, identity_of(adapter), samples, encode, *both) == []
    assert most_moved([]) == []


def test_answers_that_nothing_judges_are_refused_before_anything_is_drawn(loaded: LoadedModel, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    (file := folder / "generate.yaml").write_text(file.read_text().replace("metric: exact_match", "metric: bleu"))
    config = TaRotConfig("own_generate", num_samples=6, search="random", space="head", layers="0.5")
    edit = tune(loaded.model, loaded.tokenizer, config, output_dir=tmp_path / "edit", budget=2, include_path=folder)
    with pytest.raises(TarotError, match="expected choices or the metric exact_match in own_generate"):
        analyse(loaded, edit, tmp_path / "drawn", include_path=folder)
    assert not (tmp_path / "drawn").exists()


@pytest.mark.parametrize("name", ["choice", "generate", "loglikelihood"])
def test_answers_are_those_of_a_comparison(loaded: LoadedModel, tmp_path: Path, name: str) -> None:
    folder = write_tasks(tmp_path / "tasks")
    config = TaRotConfig(f"own_{name}", num_samples=6, search="random", space="head", layers="0.5", bound=2.0)
    edit = tune(loaded.model, loaded.tokenizer, config, output_dir=tmp_path / "edit", budget=3, include_path=folder)
    comparison = compare(loaded.model, loaded.tokenizer, edit, include_path=folder, limit=5)
    for arm, of in ((ZERO_SHOT, None), (EDITED, edit)):
        assert greedy_answers(loaded, edit, of, include_path=folder, limit=5) == comparison.arm(arm).greedy


# Attention


def test_attention_is_that_of_an_eager_model() -> None:
    model, ids = byte_model(), list(range(5, 25))
    plain = byte_model()
    plain.set_attn_implementation("eager")
    with torch.no_grad():
        oracle = plain(torch.tensor([ids]), output_attentions=True).attentions
        before = model(torch.tensor([ids])).logits
        found = attention(model, ids)
        after = model(torch.tensor([ids])).logits
    assert model.config._attn_implementation != "eager" and torch.equal(before, after)
    for layer, weights in enumerate(found):
        torch.testing.assert_close(weights, oracle[layer][0], atol=1e-6, rtol=0)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]), atol=1e-5, rtol=0)


def test_patterns_move_above_the_first_edited_layer_only() -> None:
    model = byte_model()
    sites = find_sites(model, "heads", [1, 2])
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    angles[0, 1] *= 5
    edit = Adapter(angles, Edit.from_sites(model, "heads", sites, ROTARY), {})
    shown = patterns(model, edit, list(range(5, 25)), n=6)
    assert (shown[0].layer, shown[0].head) == (1, 1)
    assert [pattern.angle > 0 for pattern in shown] == [True] * 6 + [False] * 6
    assert all((pattern.moved > 0) == (pattern.layer > 1) for pattern in shown)
    assert all(0 <= pattern.moved <= 1 for pattern in shown)
    still = patterns(model, replace(edit, angles=angles * 0), list(range(5, 25)))
    assert all(pattern.moved == 0 and torch.equal(pattern.base, pattern.edited) for pattern in still)


def test_a_model_with_layers_of_another_kind_has_no_patterns() -> None:
    message = r"expected attention weights of the 3 layers of Qwen3NextForCausalLM, got \d; some of its layers are not"
    with pytest.raises(TarotError, match=message):
        attention(tiny_model("qwen3_next"), PROMPTS[0])


# The folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_folder_holds_pictures_and_their_numbers(
    loaded: LoadedModel, adapter: Adapter, folder: Path, tmp_path: Path
) -> None:
    steps = []
    files = analyse(loaded, adapter, tmp_path / "a", include_path=folder, on_step=lambda *step: steps.append(step))
    names = {"lens", "heads", "heads-alone", "heads-missed", "flips", "attention"}
    assert {file.stem for file in files} == names and all(file.stat().st_size for file in files)
    ends = {what: (done, total) for what, done, total in steps}
    assert ends == {"lens": (24, 24), "heads": (14, 14), "flips": (2, 2), "attention": (1, 1)}
    for file in files:
        if file.suffix == ".svg":
            root = ElementTree.fromstring(file.read_text())
            assert root.attrib["role"] == "img" and root.find("{*}title").text and root.find("{*}desc").text
            assert "var(" not in file.read_text() and "currentColor" not in file.read_text()
    lens = rows_of(tmp_path / "a" / "lens.csv")
    assert [row["edited_layer"] for row in lens] == ["True", "True", "False", "False"]
    for row in lens:
        assert float(row["difference"]) == pytest.approx(float(row["edited"]) - float(row["base"]), abs=1e-5)
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
    heads = rows_of(tmp_path / "a" / "heads.csv")
    assert [(row["layer"], row["head"]) for row in heads] == [(str(i), str(j)) for i in range(2) for j in range(3)]
    again = analyse(loaded, adapter, tmp_path / "b", include_path=folder)
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]


def test_the_identity_changes_nothing_at_all(
    loaded: LoadedModel, adapter: Adapter, folder: Path, tmp_path: Path
) -> None:
    analyse(loaded, identity_of(adapter), tmp_path, include_path=folder, limit=5)
    lens = rows_of(tmp_path / "lens.csv")
    assert all(row[key] == "0" for row in lens for key in ("difference", "low", "high"))
    assert all(row[key] == "0" for row in rows_of(tmp_path / "heads.csv") for key in ("alone", "missed"))
    assert rows_of(tmp_path / "flips.csv") == []
    assert "no head matters" in (tmp_path / "heads-alone.svg").read_text()
    assert "no document flipped" in (tmp_path / "flips.svg").read_text()


# Rewards


@pytest.fixture(scope="module")
def cheerful(tmp_path_factory: pytest.TempPathFactory, loaded: LoadedModel) -> Adapter:
    config = TaRotConfig(
        "openings", objective="fluency", num_samples=3, search="random", space="full", layers="0.5", bound=0.5
    )
    return tune(loaded.model, loaded.tokenizer, config, output_dir=tmp_path_factory.mktemp("cheerful") / "a", budget=3)


def test_the_objective_of_a_reward_is_that_of_the_search(loaded: LoadedModel, cheerful: Adapter) -> None:
    objective = make_objective(loaded, cheerful)
    scores = cheerful.provenance["scores"]
    assert objective(torch.zeros_like(cheerful.angles)) == scores["identity"]
    assert objective(cheerful.angles) == pytest.approx(scores["best"])
    other = make_objective(loaded, cheerful, reward="sentiment:positive")
    assert other(cheerful.angles) != objective(cheerful.angles)


def test_rewarded_adapters_are_pruned_and_drawn(loaded: LoadedModel, cheerful: Adapter, tmp_path: Path) -> None:
    smaller = prune_adapter(loaded, cheerful, 0.5)
    scores = smaller.provenance["pruned"]["scores"]
    assert scores["pruned"] >= scores["identity"] + 0.5 * (scores["whole"] - scores["identity"])
    assert make_objective(loaded, smaller)(smaller.angles) == pytest.approx(scores["pruned"])
    files = analyse(loaded, cheerful, tmp_path, limit=2)
    assert [file.name for file in files] == ["attention.csv", "attention.svg", "layers.csv", "layers.svg"]
    rows = rows_of(tmp_path / "layers.csv")
    assert [row["layer"] for row in rows] == ["0", "1"] and all(row["heads"] == "3" for row in rows)
    score = make_objective(loaded, cheerful)
    first = torch.cat([cheerful.angles[:1], torch.zeros_like(cheerful.angles[1:])])
    assert float(rows[0]["alone"]) == pytest.approx(score(first) - scores["identity"], abs=1e-4)
    assert float(rows[1]["missed"]) == pytest.approx(scores["whole"] - score(first), abs=1e-4)


def test_rewards_that_do_not_fit(loaded: LoadedModel, adapter: Adapter, cheerful: Adapter, folder: Path) -> None:
    trap = replace(cheerful, provenance={**cheerful.provenance, "objective": "trap:spring"})
    with pytest.raises(TarotError, match="expected a reward that runs no code in an adapter, got 'trap:spring'"):
        make_objective(loaded, trap)
    with pytest.raises(TarotError, match="expected a task that generates, to judge by fluency, got multiple_choice in"):
        make_objective(loaded, adapter, reward="fluency", include_path=folder)
