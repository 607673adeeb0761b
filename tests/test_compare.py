"""From lm-eval's documents to cells: every arm on the same documents, with the labels that it was allowed to see."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, write_tasks

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.errors import ShapeMismatch, TarotError
from tarot.evaluation.as_tuned import config_of
from tarot.evaluation.command import not_repeated, repeat_command
from tarot.evaluation.compare import compare, time_reference_workload
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.lm_eval_results import check_scorable, logged_documents, metric_value, read_answers
from tarot.evaluation.results import Comparison
from tarot.evaluation.results_file import comparisons_to_json, load_comparisons
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.prompts import get_chat_template
from tarot.objectives.samples import document_key, draw_samples
from tarot.objectives.task_loading import load_task
from tarot.search.config import TaRotConfig

SAMPLES = 6


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return LoadedModel("bytes", byte_model(), byte_tokenizer())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers of equal length: the tiny model then prefers different ones under different prompts and edits."""
    folder = write_tasks(tmp_path_factory.mktemp("tasks"), test=20)
    for path in folder.glob("*.jsonl"):
        path.write_text(path.read_text().replace('"redder"', '"tan"').replace('"blue"', '"sky"'))
    return folder


def tuned(loaded: LoadedModel, folder: Path, seed: int = 1, **change: object) -> Adapter:
    """An edit of random angles that says it was tuned, without the time that tuning takes."""
    config = TaRotConfig(**{"task": "own_choice", "samples": SAMPLES, **change})
    sites = find_sites(loaded.model, "heads", 0.5)
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed))
    template = get_chat_template(TarotLM(loaded.model, tokenizer=loaded.tokenizer), config.apply_chat_template)
    task = load_task(config.task, folder)
    drawn = draw_samples(
        task, config.num_samples, num_fewshot=config.num_fewshot, seed=config.seed, chat_template=template
    )
    ids = [{"id": sample.id, "key": sample.key, "num_fewshot": sample.num_fewshot} for sample in drawn]
    provenance = {**asdict(config), "budget": 3, "samples_drawn": ids}
    return Adapter(angles, Edit.from_sites(loaded.model, "heads", sites, ROTARY), provenance)


def names(comparison: Comparison) -> list[str]:
    return [arm.name for arm in comparison.arms]


@pytest.fixture(scope="module")
def comparison(loaded: LoadedModel, folder: Path) -> Comparison:
    control = tuned(loaded, folder, seed=2)
    return compare(
        loaded.model,
        loaded.tokenizer,
        tuned(loaded, folder),
        include_path=folder,
        controls={"other": control},
        curves={"bo": [1.0, 2.0]},
        draws=3,
    )


def test_arms_and_their_labels(comparison: Comparison) -> None:
    assert {arm.name: arm.labels for arm in comparison.arms} == {
        "zero-shot": 0,
        "few-shot": 6,
        "edited": 6,
        "other": 6,
        "zero-shot calibrated": 0,
        "few-shot calibrated": 6,
        "few-shot 1 of 3 (best)": 6,
        "few-shot 2 of 3": 6,
        "few-shot 3 of 3 (worst)": 6,
    }
    assert all(len(arm.predicted) == len(arm.greedy) == len(arm.gold_probability) == 20 for arm in comparison.arms)
    assert len(set(comparison.keys)) == len(comparison.gold) == len(comparison.texts) == 20
    assert comparison.arm("edited") != comparison.arm("other")
    assert comparison.curves == {"bo": (1.0, 2.0)} and comparison.num_fewshot == 0 and comparison.budget == 3


def test_the_numbers_are_lm_evals(comparison: Comparison, loaded: LoadedModel, folder: Path) -> None:
    for name, edit in (("zero-shot", None), ("edited", tuned(loaded, folder))):
        results = evaluate(
            loaded.model, loaded.tokenizer, ["own_choice"], adapter=edit, include_path=folder, num_fewshot=0
        )
        right = sum(p == g for p, g in zip(comparison.arm(name).predicted, comparison.gold, strict=True))
        assert right / 20 == pytest.approx(metric_value(results, "own_choice", "acc"))
    task = load_task("own_choice", folder)
    assert comparison.gold == tuple(doc["gold"] for doc in task.eval_docs)
    assert comparison.keys == tuple(document_key(task, doc) for doc in task.eval_docs)


def test_draws_are_named_by_rank(comparison: Comparison) -> None:
    ranked = [sum(a == g for a, g in zip(arm.greedy, comparison.gold, strict=True)) for arm in comparison.draws]
    assert ranked == sorted(ranked, reverse=True)
    assert [arm.name for arm in comparison.draws] == [name for name in names(comparison) if " of 3" in name]
    assert [arm.draw for arm in comparison.draws] == [1, 2, 3]
    assert all(arm.draw == 0 for arm in comparison.arms if arm not in comparison.draws)


def test_draws_of_more_shots_than_samples_count_those_that_are_shown(loaded: LoadedModel, folder: Path) -> None:
    edit = tuned(loaded, folder, samples=3, num_fewshot=4)
    comparison = compare(loaded.model, loaded.tokenizer, edit, include_path=folder, limit=2, draws=2)
    assert [arm.labels for arm in comparison.draws] == [3, 3] and comparison.arm("few-shot").labels == 4


def test_it_survives_a_file(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "cells.json").write_text(comparisons_to_json([comparison]))
    assert load_comparisons(tmp_path / "cells.json") == [comparison]


def test_shots_of_the_search_are_the_bases_too(loaded: LoadedModel, folder: Path) -> None:
    comparison = compare(
        loaded.model, loaded.tokenizer, tuned(loaded, folder, num_fewshot=2), include_path=folder, limit=4
    )
    assert {name: comparison.arm(name).labels for name in ("zero-shot", "few-shot", "edited")} == {
        "zero-shot": 0,
        "few-shot": 2,
        "edited": SAMPLES + 2,
    }
    assert comparison.num_fewshot == 2 and len(comparison.gold) == 4
    results = evaluate(loaded.model, loaded.tokenizer, ["own_choice"], include_path=folder, num_fewshot=2, limit=4)
    _, base = read_answers(load_task("own_choice", folder), results["samples"]["own_choice"])
    assert comparison.arm("few-shot").predicted == base.predicted
    assert "--num-fewshot 2" in comparison.command and "--limit 4" in comparison.command


def test_mixed_shots_count_all_their_labels(loaded: LoadedModel, folder: Path) -> None:
    comparison = compare(
        loaded.model, loaded.tokenizer, tuned(loaded, folder, num_fewshot="mix"), include_path=folder, limit=2
    )
    assert (comparison.num_fewshot, comparison.arm("edited").labels, comparison.arm("few-shot").labels) == (
        0,
        SAMPLES + 6,
        6,
    )


def test_seeds_share_their_base(loaded: LoadedModel, folder: Path) -> None:
    known: dict = {}
    first = compare(loaded.model, loaded.tokenizer, tuned(loaded, folder), include_path=folder, limit=3, known=known)
    second = compare(
        loaded.model, loaded.tokenizer, tuned(loaded, folder, seed=2), include_path=folder, limit=3, known=known
    )
    assert len(known) == 1
    assert first.arm("zero-shot") == second.arm("zero-shot")
    assert first.arm("edited") != second.arm("edited")


@pytest.mark.parametrize("name", ["own_generate", "own_loglikelihood"])
def test_tasks_without_choices(loaded: LoadedModel, folder: Path, name: str) -> None:
    comparison = compare(loaded.model, loaded.tokenizer, tuned(loaded, folder, task=name), include_path=folder, limit=3)
    assert names(comparison) == ["zero-shot", "few-shot", "edited"]
    assert comparison.gold == (0, 0, 0)
    assert all(set(arm.predicted) <= {-1, 0} and arm.predicted == arm.greedy for arm in comparison.arms)


def test_no_shots_no_few_shot_arm(loaded: LoadedModel, folder: Path) -> None:
    comparison = compare(loaded.model, loaded.tokenizer, tuned(loaded, folder), include_path=folder, limit=2, shots=0)
    assert names(comparison) == ["zero-shot", "edited", "zero-shot calibrated"]
    with pytest.raises(TarotError, match="expected shots to draw, got 0 shots; leave the draws out"):
        compare(loaded.model, loaded.tokenizer, tuned(loaded, folder), include_path=folder, shots=0, draws=2)


def test_answers_read_every_form_of_gold(folder: Path) -> None:
    task = load_task("own_choice", folder)

    def document(
        gold: object, flags: tuple[bool, ...] = (False, True, True), metrics: tuple[str, ...] = ("acc",)
    ) -> dict:
        doc = {"question": "item 1", "choices": ["red", "redder", "tan"], "gold": gold}
        scored = [(math.log(p), flag) for p, flag in zip((0.1, 0.2, 0.7), flags, strict=True)]
        arguments = [("item 1", f" {choice}") for choice in doc["choices"]]
        if "acc_mutual_info" in metrics:
            scored, arguments = scored + [(0.0, True)] * 3, arguments + [("", "")] * 3
        return {"doc_id": 5, "doc": doc, "filtered_resps": scored, "arguments": arguments, "metrics": metrics}

    gold, arm = read_answers(
        task, [document(1), document("redder"), document(0, (False,) * 3), document(1, metrics=("acc_mutual_info",))]
    )
    assert gold == (1, 1, 0, 1)
    assert arm.predicted == (2, 2, 2, 2)
    assert arm.greedy == (1, 1, -1, 1)  # of two greedy answers, the longer
    assert arm.gold_probability == pytest.approx((0.2, 0.2, 0.1, 0.2))
    broken = document(0, (False,) * 3) | {"filtered_resps": [(math.nan, False)] * 3}
    gold, arm = read_answers(task, [broken, broken])  # a model that an edit has broken is never right
    assert (gold, arm.predicted, arm.greedy, arm.gold_probability) == ((0, 0), (-1, -1), (-1, -1), (0.0, 0.0))
    with pytest.raises(TarotError, match=r"expected one right answer among the choices, got \[1, 2\] in document 5"):
        read_answers(task, [document([1, 2])])
    assert read_answers(task, [document([1])])[0] == (1,)
    with pytest.raises(
        TarotError,
        match=r"expected a gold answer among \['red', 'redder', 'tan'\], "
        r"got 7 in document 5 of own_choice; check doc_to_target",
    ):
        read_answers(task, [document(7)])


FILTERS = """
filter_list:
  - {name: strict, filter: [{function: regex, regex_pattern: "^(z+)$"}, {function: take_first}]}
  - {name: loose, filter: [{function: take_first}]}
"""


def test_documents_of_several_filters_count_once(loaded: LoadedModel, tmp_path: Path) -> None:
    """lm-eval logs each document once a filter: twice the documents would make twice as sure."""
    folder = write_tasks(tmp_path, test=6)
    (file := folder / "generate.yaml").write_text(file.read_text() + FILTERS)
    adapter = tuned(loaded, folder, task="own_generate")
    comparison = compare(loaded.model, loaded.tokenizer, adapter, include_path=folder)
    assert (
        len(comparison.gold)
        == len(comparison.keys)
        == len(comparison.texts)
        == len(comparison.arm("edited").greedy)
        == 6
    )
    results = evaluate(loaded.model, loaded.tokenizer, ["own_generate"], include_path=folder)
    assert len(results["samples"]["own_generate"]) == 12
    assert {document["filter"] for document in logged_documents(results, "own_generate")} == {"strict"}


CONTEXTS = """
doc_to_text: "{{gold}}"
doc_to_choice: "{{choices}}"
doc_to_target: " it is."
"""


def test_where_contexts_are_the_choices_the_likeliest_is_the_answer(loaded: LoadedModel, tmp_path: Path) -> None:
    """All would be continued by the same words, so that what is written says nothing of the choice."""
    folder = write_tasks(tmp_path)
    file = folder / "choice.yaml"
    kept = [line for line in file.read_text().splitlines() if not line.startswith("doc_to_")]
    file.write_text("\n".join(kept) + CONTEXTS)
    task = load_task("own_choice", folder)
    assert task.multiple_input
    results = evaluate(loaded.model, loaded.tokenizer, ["own_choice"], include_path=folder)
    gold, arm = read_answers(task, logged_documents(results, "own_choice"))
    assert arm.greedy == arm.predicted and min(arm.greedy) >= 0
    right = sum(a == b for a, b in zip(gold, arm.predicted, strict=True)) / len(gold)
    assert right == pytest.approx(metric_value(results, "own_choice", "acc"))


def test_written_answers_that_nothing_judges_are_refused_before_there_are_any(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tasks(tmp_path)
    (file := folder / "generate.yaml").write_text(file.read_text().replace("metric: exact_match", "metric: bleu"))
    adapter = tuned(loaded, folder, task="own_generate")
    monkeypatch.setattr("tarot.evaluation.compare.evaluate", lambda *_, **__: pytest.fail("something was answered"))
    with pytest.raises(TarotError, match="expected choices or the metric exact_match in own_generate, got bleu"):
        compare(loaded.model, loaded.tokenizer, adapter, include_path=folder)
    text = (file := folder / "loglikelihood.yaml").read_text().replace("metric: acc", "metric: byte_perplexity")
    file.write_text(text.replace("output_type: loglikelihood", "output_type: loglikelihood_rolling"))
    task = load_task("own_loglikelihood", folder)
    with pytest.raises(TarotError, match=r"expected right and wrong answers in own_.*, got output type loglik"):
        check_scorable(task)


def test_errors(loaded: LoadedModel, folder: Path) -> None:
    adapter = tuned(loaded, folder)
    with pytest.raises(TarotError, match="expected an adapter that says what it was tuned on, got one without a task"):
        compare(loaded.model, loaded.tokenizer, Adapter(adapter.angles, adapter.edit, {}), include_path=folder)
    drawn = [{**sample, "id": "train/29", "key": "0"} for sample in adapter.provenance["samples_drawn"]]
    with pytest.raises(
        TarotError, match="expected the data that the adapter was tuned on in train/29, got other data; tune again"
    ):
        compare(
            loaded.model,
            loaded.tokenizer,
            Adapter(adapter.angles, adapter.edit, {**adapter.provenance, "samples_drawn": drawn}),
            include_path=folder,
        )


def test_an_edit_of_another_model_is_refused_before_the_base_answers(
    loaded: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tarot.evaluation.compare.evaluate", lambda *_, **__: pytest.fail("something was answered"))
    adapter = tuned(loaded, folder)
    other = replace(adapter, angles=adapter.angles[:, :-1])
    with pytest.raises(ShapeMismatch, match="this adapter is for another model"):
        compare(loaded.model, loaded.tokenizer, other, include_path=folder)
    with pytest.raises(ShapeMismatch, match="this adapter is for another model"):
        compare(loaded.model, loaded.tokenizer, adapter, controls={"random": other}, include_path=folder)
    with pytest.raises(
        TarotError,
        match="expected a control tuned as the edit was, on 6 samples of own_choice, 0 shots, seed 0, budget 3, "
        "got 6 samples of own_choice, 2 shots, seed 0, budget 3; tune it with the same",
    ):
        compare(
            loaded.model,
            loaded.tokenizer,
            adapter,
            controls={"random": tuned(loaded, folder, num_fewshot=2)},
            include_path=folder,
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": 5}, "expected the recipe of an adapter as tarot writes it, got task 5; tune it with tarot"),
        (
            {"bound": "wide"},
            "expected the recipe of an adapter as tarot writes it, got bound 'wide'; tune it with tarot",
        ),
        ({"search": "bayes"}, "expected a known search, got 'bayes'; known: adam, bo, paper, published, random"),
        ({"objective": "acuracy"}, "expected a known objective, got 'acuracy'; did you mean 'accuracy'?"),
        ({"num_fewshot": "many"}, "expected a number of shots from 0, or 'mix', got 'many'"),
        ({"seed": True}, "expected the recipe of an adapter as tarot writes it, got seed True; tune it with tarot"),
        ({"chat": 1}, "expected the recipe of an adapter as tarot writes it, got chat 1; tune it with tarot"),
    ],
    ids=str,
)
def test_recipes_that_nobody_can_have_tuned(
    loaded: LoadedModel, folder: Path, change: dict[str, object], message: str
) -> None:
    """An adapter may be written by anyone."""
    adapter = tuned(loaded, folder)
    with pytest.raises(TarotError) as error:
        config_of(replace(adapter, provenance={**adapter.provenance, **change}))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("task", None, "a task"),
        ("budget", None, "a budget"),
        ("samples_drawn", None, "its samples"),
        ("samples_drawn", [{"key": "k"}], "its samples"),
    ],
)
def test_what_a_recipe_cannot_lack(loaded: LoadedModel, folder: Path, name: str, value: object, words: str) -> None:
    """Told before any arm answers."""
    adapter = tuned(loaded, folder)
    said = {**adapter.provenance, name: value}
    said = {key: value for key, value in said.items() if value is not None}
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(TarotError, match=f"expected an adapter that says what .*, got one without {words}; tune it"),
    ):
        patch.setattr("tarot.evaluation.compare.evaluate", None)
        compare(loaded.model, loaded.tokenizer, replace(adapter, provenance=said), include_path=folder)


def test_the_command_repeats_the_cell(loaded: LoadedModel, folder: Path) -> None:
    named = replace(loaded, reference="a model")
    edit = tuned(loaded, folder, space="layer")
    edit = replace(edit, provenance={**edit.provenance, "seed": 5, "budget": 9})
    assert repeat_command(named, edit, 6, 0, 40, "my tasks") == (
        "tarot tune --model 'a model' --task own_choice --include-path 'my tasks' --samples 6 --space layer "
        "--seed 5 --budget 9 --output DIR && tarot compare --model 'a model' --adapter DIR --shots 6 "
        "--include-path 'my tasks' --limit 40"
    )
    assert repeat_command(named, edit, 6, 5).endswith("--adapter DIR --shots 6 --draws 5")
    control = replace(edit, provenance={**edit.provenance, "search": "paper", "budget": 8})
    with_control = repeat_command(replace(loaded, reference="m"), edit, 6, controls=[control])
    assert with_control.count("--search paper") == 1
    assert "--search paper --seed 5 --budget 8 --output DIR-paper" in with_control
    assert with_control.endswith("tarot compare --model m --adapter DIR --control DIR-paper --shots 6")
    for space, asked in (("head-gradient", ""), ("full", " --space full")):  # what is left out, is the search's own
        bo = tuned(loaded, folder, search="bo", space=space)
        assert repeat_command(loaded, bo, 6).startswith(
            f"tarot tune --model bytes --task own_choice --samples 6{asked} --search bo --budget 3 "
        )


def test_the_command_makes_the_edit_that_was_measured(loaded: LoadedModel, folder: Path) -> None:
    """Numbers of fewer bits, heads left out afterwards, names that a shell would read; and it says what it lacks."""
    edit = tuned(loaded, folder)
    said = {**edit.provenance, "dtype": "bfloat16", "task": "my choice; x", "pruned": {"keep": 0.9}}
    line = repeat_command(replace(loaded, dtype="float16"), replace(edit, provenance=said), 6)
    tune, prune, compare = line.split(" && ")
    assert "--task 'my choice; x' --dtype bfloat16 " in tune and tune.endswith("--output DIR")
    assert prune == "tarot prune --model bytes --dtype bfloat16 --adapter DIR --keep 0.9 --output DIR-pruned"
    assert compare == "tarot compare --model bytes --dtype float16 --adapter DIR-pruned --shots 6"
    assert not not_repeated(edit)
    again = replace(edit, provenance={**said, "pruned": {"keep": 0.9, "before": {"keep": 0.95, "before": None}}})
    assert not_repeated(again) == "pruned more than once" and not not_repeated(replace(edit, provenance=said))
    stopped = replace(edit, provenance={**edit.provenance, "interrupted": True, "spent": 2})
    assert not_repeated(stopped.scaled(0.5)) == "its search stopped after 2 of 3 evaluations, scaled by 0.5"
    assert compare(loaded.model, loaded.tokenizer, stopped, include_path=folder, limit=2).not_repeated.startswith(
        "its search stopped"
    )


def test_the_reference_workload_takes_time() -> None:
    assert 0 < time_reference_workload() < 60
