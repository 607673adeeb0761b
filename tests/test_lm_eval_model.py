"""The lm-eval model `tarot`: lm-eval's own numbers without an edit, and results that are never mixed up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, save_checkpoint, write_tasks
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file
from test_prompt_encoder import logprob
from tiny import tiny_model

from tarot.analysis.neutral_text import neutral_text
from tarot.edit.adapter import Adapter, Edit
from tarot.edit.fingerprint import weights_fingerprint
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.errors import TarotError, UnknownName
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.lm_eval_results import n_documents
from tarot.models.batch_size import parse_batch_size
from tarot.models.formats.checkpoint import save_checkpoint as save_merged
from tarot.models.lm_eval_model import TarotLM
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.answers import AnswerObjective
from tarot.objectives.tasks.documents import document_key
from tarot.objectives.tasks.samples import Sample, draw_samples
from tarot.objectives.tasks.task_loading import load_task
from tarot.search.config import TaRotConfig
from tarot.search.tune import tune


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return LoadedModel("bytes", byte_model(), byte_tokenizer())


@pytest.fixture(scope="module")
def adapter(loaded: LoadedModel) -> Adapter:
    sites = find_sites(loaded.model, "heads", 0.5)
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    return Adapter(angles, Edit.from_sites(loaded.model, "heads", sites, ROTARY), {})


def pairs(n: int) -> list[Instance]:
    shots = "Q: one\nA: red\n\nQ: two\nA: redder\n\n" * 8
    return [
        Instance("loglikelihood", {}, (f"{shots if i % 2 else ''}Q: {i}\nA:", answer), i)
        for i in range(n)
        for answer in (" red", " redder", " blue")
    ]


def test_lm_eval_knows_the_model() -> None:
    assert get_model("tarot") is TarotLM


def test_scores_are_those_of_lm_evals_model(loaded: LoadedModel) -> None:
    stock = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=4)
    ours = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    expected, scores = (lm.loglikelihood(pairs(6), disable_tqdm=True) for lm in (stock, ours))
    assert [flag for _, flag in scores] == [flag for _, flag in expected]
    assert [value for value, _ in scores] == pytest.approx([value for value, _ in expected], abs=1e-4)


def test_rolling_scores_empty_contexts_and_long_prompts_are_those_of_lm_evals_model(loaded: LoadedModel) -> None:
    stock = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=1, max_length=64)
    ours = TarotLM(loaded.model, tokenizer=loaded.tokenizer, max_length=64)
    texts = [Instance("loglikelihood_rolling", {}, ("word " * n,), n) for n in (1, 7, 40)]
    expected, scores = (lm.loglikelihood_rolling(texts, disable_tqdm=True) for lm in (stock, ours))
    assert scores == pytest.approx(expected, abs=1e-3)
    odd = [Instance("loglikelihood", {}, pair, 0) for pair in (("", "answer"), ("word " * 30, "answer"))]
    expected, scores = (lm.loglikelihood(odd, disable_tqdm=True) for lm in (stock, ours))
    assert [value for value, _ in scores] == pytest.approx([value for value, _ in expected], abs=1e-4)
    context, tokens = ours.encode("", "answer")
    assert (context, len(tokens)) == ([0], 6)


def test_an_answer_that_cannot_be_scored_is_named(loaded: LoadedModel, tmp_path: Path) -> None:
    write_tasks(tmp_path)
    rows = [{"question": f"item {i}", "choices": ["red", "" if i == 1 else "blue"], "gold": 0} for i in range(2)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "choice.yaml").write_text((tmp_path / "choice.yaml").read_text() + 'target_delimiter: ""\n')
    with pytest.raises(TarotError, match="document 1 of own_choice, answer ''"):
        evaluate(loaded.model, loaded.tokenizer, ["own_choice"], include_path=tmp_path, apply_chat_template=False)
    lm = TarotLM(loaded.model, tokenizer=loaded.tokenizer, max_length=4)
    with pytest.raises(TarotError, match="document 0 of task, answer"):
        lm.loglikelihood([Instance("loglikelihood", {}, ("It is", "answer"), 0, ("task", 0, 1))], disable_tqdm=True)


def test_an_objective_names_an_answer_without_tokens(loaded: LoadedModel) -> None:
    sample = Sample("train/7", "", (("Q:", "red"), ("Q:", "")), 0, 0)
    encode = TarotLM(loaded.model, tokenizer=loaded.tokenizer).encode
    with pytest.raises(TarotError, match="train/7, answer ''"):
        AnswerObjective(loaded.model, [sample], encode, answer_score="margin", sites=find_sites(loaded.model))


@pytest.fixture(scope="module")
def longrope() -> LoadedModel:
    """A model whose rotary embeddings change beyond 20 tokens."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0, 8.0, 16.0, 32.0], "factor": 4.0}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 20, **factors}
    return LoadedModel("longrope", tiny_model("llama", vocab_size=258, rope_parameters=rope), byte_tokenizer())


def test_neither_batches_nor_cut_prompts_change_a_score(longrope: LoadedModel) -> None:
    """A prompt that is too long for the model keeps its end, in any batch."""
    lm = TarotLM(longrope.model, tokenizer=longrope.tokenizer)
    requests = [
        Instance("loglikelihood", {}, ("x" * n, answer), n) for n in (12, 30, 40, 80) for answer in (" red", " r")
    ]
    scores = lm.loglikelihood(requests, disable_tqdm=True)
    encoded = [lm.encode(*request.args) for request in requests]
    expected = [logprob(lm, context[max(0, len(context) + len(answer) - 65) :], answer) for context, answer in encoded]
    assert [score for score, _ in scores] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sizes", [(5, 9, 30), (8, 13, 14), (25, 12)])
def test_batches_change_no_text(longrope: LoadedModel, sizes: tuple[int, ...]) -> None:
    lm = TarotLM(longrope.model, tokenizer=longrope.tokenizer)
    options = {"until": [], "max_gen_toks": 7}
    requests = [Instance("generate_until", {}, (("abcdefg" * 5)[-n:], options), n) for n in sizes]
    texts = [text for request in requests for text in HFLM.generate_until(lm, [request], disable_tqdm=True)]
    assert lm.generate_until(requests, disable_tqdm=True) == texts
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("shots", [0, 3])
def test_evaluate_agrees_with_lm_eval(loaded: LoadedModel, folder: Path, shots: int) -> None:
    ours = evaluate(loaded.model, loaded.tokenizer, ["own_choice"], include_path=folder, num_fewshot=shots)
    task = load_task("own_choice", folder)
    stock = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=4)
    right = 0
    for doc in task.eval_docs:
        context = task.fewshot_context(
            doc, shots, apply_chat_template=True, fewshot_as_multiturn=True, chat_template=stock.apply_chat_template
        )
        requests = task.construct_requests(doc, context, apply_chat_template=True)
        scores = [value for value, _ in stock.loglikelihood(requests, disable_tqdm=True)]
        right += max(range(3), key=scores.__getitem__) == doc["gold"]
    assert n_documents(ours, "own_choice") == len(task.eval_docs) == 12
    assert ours["results"]["own_choice"]["acc,none"] == pytest.approx(right / 12)
    assert ours["n-shot"]["own_choice"] == shots


def test_an_edit_changes_numbers_and_leaves_no_trace(loaded: LoadedModel, adapter: Adapter, folder: Path) -> None:
    def answers(edit: Adapter | None) -> list[float]:
        results = evaluate(loaded.model, loaded.tokenizer, ["own_choice"], adapter=edit, include_path=folder)
        assert results["config"]["adapter"] == (edit.fingerprint if edit else "base")
        return [score for sample in results["samples"]["own_choice"] for score, _ in sample["filtered_resps"]]

    before, edited, after = answers(None), answers(adapter), answers(None)
    assert before == after
    assert max(abs(a - b) for a, b in zip(before, edited, strict=True)) > 0.01


def test_generation_runs_edited(loaded: LoadedModel, adapter: Adapter, folder: Path) -> None:
    base, edited = (
        evaluate(loaded.model, loaded.tokenizer, ["own_generate"], adapter=edit, include_path=folder)
        for edit in (None, adapter)
    )
    texts = [[s["filtered_resps"] for s in results["samples"]["own_generate"]] for results in (base, edited)]
    assert texts[0] != texts[1]


def test_a_reference_and_an_adapters_folder_load_the_edited_model(
    tmp_path: Path, loaded: LoadedModel, adapter: Adapter
) -> None:
    reference = str(save_checkpoint(tmp_path / "model"))
    adapter.save_pretrained(tmp_path / "adapter")
    edited = TarotLM(reference, adapter=str(tmp_path / "adapter"), device="cpu")
    with adapter.apply(loaded.model):
        expected = TarotLM(loaded.model, tokenizer=loaded.tokenizer).loglikelihood(pairs(2), disable_tqdm=True)
    scores = edited.loglikelihood(pairs(2), disable_tqdm=True)
    assert [value for value, _ in scores] == pytest.approx([value for value, _ in expected], abs=1e-3)
    assert edited.get_model_info()["adapter"] == adapter.fingerprint


def test_a_response_cache_belongs_to_one_model_and_edit(tmp_path: Path, loaded: LoadedModel, adapter: Adapter) -> None:
    path = str(tmp_path / "cache.db")
    base = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    requests = pairs(1)
    first = CachingLM(base, path).loglikelihood(requests)
    assert CachingLM(TarotLM(loaded.model, tokenizer=loaded.tokenizer), path).loglikelihood(requests) == first
    edited = TarotLM(loaded.model, tokenizer=loaded.tokenizer)
    edited.fingerprint = adapter.fingerprint
    with pytest.raises(TarotError, match=f"{adapter.fingerprint}.* base"):
        CachingLM(edited, path)
    with pytest.raises(TarotError, match="settings"):
        CachingLM(TarotLM(loaded.model, tokenizer=loaded.tokenizer, max_length=32), path)


def test_a_cache_of_lm_evals_model_is_refused(tmp_path: Path, loaded: LoadedModel) -> None:
    path = str(tmp_path / "cache.db")
    CachingLM(HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer), path).loglikelihood(pairs(1))
    with pytest.raises(TarotError, match="--use_cache"):
        CachingLM(TarotLM(loaded.model, tokenizer=loaded.tokenizer), path)


def test_documents_that_were_tuned_on_are_not_evaluated(loaded: LoadedModel, adapter: Adapter, folder: Path) -> None:
    task = load_task("own_choice", folder)
    honest = [{"key": sample.key} for sample in draw_samples(task, 3)]
    evaluate(
        loaded.model,
        loaded.tokenizer,
        ["own_choice"],
        adapter=Adapter(adapter.angles, adapter.edit, {"samples_drawn": honest}),
        include_path=folder,
    )
    leaked = [*honest, {"key": document_key(task, task.eval_docs[4])}]
    cheat = Adapter(adapter.angles, adapter.edit, {"samples_drawn": leaked})
    with pytest.raises(TarotError, match="row 4"):
        evaluate(loaded.model, loaded.tokenizer, ["own_choice"], adapter=cheat, include_path=folder)


@pytest.mark.parametrize(
    ("argument", "keyword"),
    [
        ("adaptor", "'adapter'"),
        ("peft", "add_bos_token"),
        ("revision", "'revision'"),
        ("load_in_8bit", "'load_in_8bit'"),
    ],
)
def test_unknown_arguments_are_refused(loaded: LoadedModel, argument: str, keyword: str) -> None:
    with pytest.raises(UnknownName, match=keyword):
        TarotLM(loaded.model, tokenizer=loaded.tokenizer, **{argument: "somewhere"})


def test_shots_that_a_task_does_not_have_are_refused(loaded: LoadedModel, folder: Path) -> None:
    for shots in (-1, 31):
        with pytest.raises(TarotError, match=f"(not|got) {shots}"):
            evaluate(loaded.model, loaded.tokenizer, ["own_choice"], include_path=folder, num_fewshot=shots)


def test_only_causal_backends_are_accepted(loaded: LoadedModel) -> None:
    for backend in ("default", "causal"):
        TarotLM(loaded.model, tokenizer=loaded.tokenizer, backend=backend)
    for backend in ("seq2seq", "vllm"):
        with pytest.raises(TarotError, match=backend):
            TarotLM(loaded.model, tokenizer=loaded.tokenizer, backend=backend)


@pytest.mark.parametrize("text", ["0", "-3", "many", "", "1.5", "\u0663"])
def test_a_batch_size_is_a_positive_number(text: str) -> None:
    with pytest.raises(TarotError, match=f"'{text}'"):
        parse_batch_size(text)


WITHOUT_LM_EVALS_TASKS = """
from functools import partialmethod
from lm_eval.tasks.manager import TaskManager
from tarot.__main__ import script

# lm-eval takes six seconds in each process to index its own tasks.
TaskManager.__init__ = partialmethod(TaskManager.__init__, include_defaults=False)
script()
"""


def test_two_processes_share_the_documents(adapter: Adapter, tmp_path: Path) -> None:
    """Started as by accelerate, but on the CPU, they give the answers of a single process."""
    save_checkpoint(tmp_path / "model")
    write_tasks(tmp_path / "tasks")
    adapter.save_pretrained(tmp_path / "edit")
    (tmp_path / "run.py").write_text(WITHOUT_LM_EVALS_TASKS)
    program = ("run.py", "lm-eval", "--model", "tarot", "--model_args", "pretrained=model,adapter=edit")
    options = ("--tasks", "own_choice", "--include_path", "tasks", "--output_path", "results", "--log_samples")
    launch = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2")
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *launch, *program, *options], cwd=tmp_path, env=environment, check=True)
    (logged,) = (tmp_path / "results").rglob("samples_*.jsonl")
    shared = {one["doc_id"]: one["filtered_resps"] for one in map(json.loads, logged.read_text().splitlines())}
    loaded = load_model(str(tmp_path / "model"), device="cpu")
    results = evaluate(
        loaded.model,
        loaded.tokenizer,
        ["own_choice"],
        adapter=adapter,
        include_path=tmp_path / "tasks",
        apply_chat_template=False,
    )
    alone = {one["doc_id"]: one["filtered_resps"] for one in results["samples"]["own_choice"]}
    assert shared.keys() == alone.keys() and len(alone) == 12
    for document, answers in alone.items():
        assert [float(value) for value, _ in shared[document]] == pytest.approx(
            [value for value, _ in answers], abs=1e-5
        )


def test_a_model_with_layers_on_disk_gives_the_same_numbers(folder: Path, adapter: Adapter, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model", layers=4)
    parts = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head", "model.layers.0", "model.layers.2"]
    device_map = dict.fromkeys(parts, "cpu") | {"model.layers.1": "disk", "model.layers.3": "disk"}
    in_memory = load_model(str(tmp_path / "model"), device="cpu")
    on_disk = load_model(str(tmp_path / "model"), device_map=device_map)
    assert on_disk.model.model.layers[1].self_attn.o_proj.weight.is_meta
    assert weights_fingerprint(on_disk.model) == weights_fingerprint(in_memory.model)
    config = TaRotConfig("own_choice", num_samples=4)
    one, two = (
        tune(loaded.model, loaded.tokenizer, config, output_dir=tmp_path / name, budget=9, include_path=folder)
        for name, loaded in (("here", in_memory), ("away", on_disk))
    )
    assert two.fingerprint == one.fingerprint and one.provenance["scores"] == two.provenance["scores"]
    both = [
        evaluate(loaded.model, loaded.tokenizer, ["own_choice"], adapter=one, include_path=folder)
        for loaded in (in_memory, on_disk)
    ]
    assert both[0]["results"] == both[1]["results"]
    texts = [neutral_text(loaded, 8) for loaded in (in_memory, on_disk)]
    assert torch.equal(*texts)
    for name, loaded in (("here", in_memory), ("away", on_disk)):
        one.merge(loaded.model)
        save_merged(loaded, tmp_path / f"{name}-merged")
    first, second = (load_file(tmp_path / f"{name}-merged" / "model.safetensors") for name in ("here", "away"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    with pytest.raises(TarotError, match="device map"):
        load_model(str(tmp_path / "model"), device_map=device_map | {"model.embed_tokens": "disk"})
    with pytest.raises(TarotError, match="expected a known device map, got 'automatic'"):
        load_model(str(tmp_path / "model"), device_map="automatic")
    with pytest.raises(TarotError, match="expected a device or a device map, got cpu and auto; leave one out"):
        load_model(str(tmp_path / "model"), device="cpu", device_map="auto")
