"""Comparisons: every arm on the same documents, with the labels that it may see."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer, write_tasks
from lm_eval.api import task as lm_eval_task

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.errors import InvalidValueError, ShapeMismatch, TarotError
from tarot.evaluation.baselines.setting import Setting
from tarot.evaluation.compare import check_compare, compare
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.lm_eval_results import check_scorable, read_answers
from tarot.evaluation.results.comparison import Arm, Comparison
from tarot.evaluation.results.results_file import comparisons_to_json, load_comparisons
from tarot.models import lm_eval_model
from tarot.models.lm_eval_model import TarotLM
from tarot.models.loaded_model import LoadedModel
from tarot.objectives.tasks.prompts import get_chat_template
from tarot.objectives.tasks.samples import document_key, draw_samples
from tarot.objectives.tasks.task_loading import load_task
from tarot.search.config import TaRotConfig

SAMPLES = 6


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return LoadedModel("bytes", byte_model(), byte_tokenizer())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write tasks whose answers have one length: the tiny model then answers differently to different prompts."""
    folder = write_tasks(tmp_path_factory.mktemp("tasks"), test=20)
    for path in folder.glob("*.jsonl"):
        path.write_text(path.read_text().replace('"redder"', '"tan"').replace('"blue"', '"sky"'))
    return folder


def tuned(loaded: LoadedModel, folder: Path, seed: int = 1, **change: object) -> Adapter:
    """Return an adapter with random angles that records how it was tuned, without tuning it."""
    config = TaRotConfig(**{"task": "own_choice", "num_samples": SAMPLES, **change})
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


def test_calls_of_the_library_draw_no_bars(
    loaded: LoadedModel, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, before = tuned(loaded, folder), [module.tqdm for module in (lm_eval_task, lm_eval_model)]
    capsys.readouterr()  # the library datasets shows that it reads the files
    evaluate(loaded.model, loaded.tokenizer, ["own_choice", "openings"], include_path=folder, limit=2)
    compare(
        loaded.model,
        loaded.tokenizer,
        edit,
        include_path=folder,
        limit=2,
        num_fewshot=2,
        draws=1,
        baselines=["all-shots"],
    )
    assert capsys.readouterr().err == ""
    assert [module.tqdm for module in (lm_eval_task, lm_eval_model)] == before


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


def test_the_searches_of_cross_validation_count_in_the_budget(loaded: LoadedModel, folder: Path) -> None:
    """Baselines get the budget of the comparison. The command repeats the option of `tarot tune`."""
    adapter = tuned(loaded, folder, cross_validate=True)
    compared = compare(loaded.model, loaded.tokenizer, adapter, include_path=folder, limit=2)
    assert compared.budget == 6 and "--budget 3 " in compared.command


def test_a_second_run_continues_from_the_answers_of_the_first(
    loaded: LoadedModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, scored, score = tuned(loaded, folder), [], TarotLM._scores
    monkeypatch.setattr(
        TarotLM, "_scores", lambda lm, pairs, *rest: scored.append(len(pairs)) or score(lm, pairs, *rest)
    )

    def run(answers: Path | None, last: str = "") -> tuple[list[Arm], int]:
        def stop(name: str, *_: int) -> None:
            if name == last:
                raise TarotError("stopped")

        scored.clear()
        compared = compare(
            loaded.model,
            loaded.tokenizer,
            adapter,
            include_path=folder,
            limit=4,
            answers=answers,
            on_arm=stop,
        )
        return [replace(arm, seconds=0.0) for arm in compared.arms], sum(scored)

    arms, n_scored = run(None)
    with pytest.raises(TarotError, match="stopped"):
        run(tmp_path / "answers.jsonl", last="zero-shot calibrated")
    again, n_again = run(tmp_path / "answers.jsonl")
    assert again == arms
    assert n_scored - n_again == 3 * 4 * 3  # arms, documents, choices


def test_a_control_may_be_a_folder_and_a_baseline_one_name(loaded: LoadedModel, folder: Path, tmp_path: Path) -> None:
    adapter = tuned(loaded, folder)
    adapter.save_pretrained(tmp_path / "control")
    arguments = {"include_path": folder, "limit": 2, "baselines": "all-shots"}
    compared = compare(
        loaded.model, loaded.tokenizer, adapter, controls={"other": str(tmp_path / "control")}, **arguments
    )
    assert {"other", "all-shots"} <= set(names(compared))
    assert compared.arm("other").predicted == compared.arm("edited").predicted
    for controls in ({"other": 123}, [adapter], {"edited": adapter}, {"all-shots": adapter}):
        with pytest.raises(TarotError, match=r"adapter|controls|Two arms"):
            compare(loaded.model, loaded.tokenizer, adapter, controls=controls, **arguments)
    with pytest.raises(TarotError, match="baselines must be a name or a list of names, not 123"):
        compare(loaded.model, loaded.tokenizer, adapter, include_path=folder, baselines=123)
    for options in ({"adapter": 123}, {"tasks": 123}):
        with pytest.raises(TarotError, match="123"):
            evaluate(loaded.model, loaded.tokenizer, **{"tasks": "own_choice", "include_path": folder, **options})


def test_accuracies_are_those_of_lm_eval(comparison: Comparison, loaded: LoadedModel, folder: Path) -> None:
    for name, edit in (("zero-shot", None), ("edited", tuned(loaded, folder))):
        results = evaluate(
            loaded.model, loaded.tokenizer, ["own_choice"], adapter=edit, include_path=folder, num_fewshot=0
        )
        right = sum(p == g for p, g in zip(comparison.arm(name).predicted, comparison.gold, strict=True))
        assert right / 20 == pytest.approx(results["results"]["own_choice"]["acc,none"])
    task = load_task("own_choice", folder)
    assert comparison.gold == tuple(doc["gold"] for doc in task.eval_docs)
    assert comparison.keys == tuple(document_key(task, doc) for doc in task.eval_docs)


def test_a_description_that_moves_into_the_question_is_recorded(loaded: LoadedModel, folder: Path) -> None:
    """Chat templates without a system role move it; the comparison must say so, as an evaluation does."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    )
    moving = LoadedModel("bytes", loaded.model, tokenizer)
    moved = compare(loaded.model, tokenizer, tuned(moving, folder), include_path=folder, num_fewshot=0, limit=2)
    assert moved.description == "in the first user message"
    assert load_comparisons_from(moved, folder).description == moved.description


def load_comparisons_from(comparison: Comparison, folder: Path) -> Comparison:
    (folder / "moved.json").write_text(comparisons_to_json([comparison]))
    (loaded,) = load_comparisons(folder / "moved.json")
    return loaded


def test_draws_are_named_by_rank(comparison: Comparison) -> None:
    ranked = [sum(a == g for a, g in zip(arm.greedy, comparison.gold, strict=True)) for arm in comparison.draws]
    assert ranked == sorted(ranked, reverse=True)
    assert [arm.name for arm in comparison.draws] == [name for name in names(comparison) if " of 3" in name]
    assert [arm.draw for arm in comparison.draws] == [1, 2, 3]
    assert all(arm.draw == 0 for arm in comparison.arms if arm not in comparison.draws)


def test_draws_count_the_shots_that_are_shown(loaded: LoadedModel, folder: Path) -> None:
    edit = tuned(loaded, folder, num_samples=3, num_fewshot=4)
    comparison = compare(loaded.model, loaded.tokenizer, edit, include_path=folder, limit=2, draws=2)
    assert [arm.labels for arm in comparison.draws] == [3, 3] and comparison.arm("few-shot").labels == 4


def test_a_comparison_survives_a_file(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "cells.json").write_text(comparisons_to_json([comparison]))
    assert load_comparisons(tmp_path / "cells.json") == [comparison]


def test_the_base_has_the_shots_of_the_search(loaded: LoadedModel, folder: Path) -> None:
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


def test_shots_that_are_drawn_for_each_prompt_all_count(loaded: LoadedModel, folder: Path, tmp_path: Path) -> None:
    """lm-eval's default sampler: the prompts in the log show more labelled documents than one prompt does."""
    task = (folder / "choice.yaml").read_text()
    (tmp_path / "choice.yaml").write_text(task.replace("sampler: first_n", "sampler: default"))
    edit, logged = tuned(loaded, tmp_path, num_fewshot=2), {}
    comparison = compare(loaded.model, loaded.tokenizer, edit, include_path=tmp_path, limit=6, logged=logged)
    prompts = [document["arguments"][0][0] for document in logged["few-shot"]]
    shown = {item for prompt in prompts for item in re.findall(r"item (\d+)", prompt)[:-1]}
    assert comparison.arm("few-shot").labels == len(shown) > 2
    assert comparison.arm("edited").labels > SAMPLES + 2


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
    base_answers: dict = {}
    first = compare(
        loaded.model, loaded.tokenizer, tuned(loaded, folder), include_path=folder, limit=3, base_answers=base_answers
    )
    second = compare(
        loaded.model,
        loaded.tokenizer,
        tuned(loaded, folder, seed=2),
        include_path=folder,
        limit=3,
        base_answers=base_answers,
    )
    assert len(base_answers) == 1
    assert first.arm("zero-shot") == second.arm("zero-shot")
    assert first.arm("edited") != second.arm("edited")


@pytest.mark.parametrize("name", ["own_generate", "own_loglikelihood"])
def test_tasks_without_choices(loaded: LoadedModel, folder: Path, name: str) -> None:
    comparison = compare(loaded.model, loaded.tokenizer, tuned(loaded, folder, task=name), include_path=folder, limit=3)
    assert names(comparison) == ["zero-shot", "few-shot", "edited"]
    assert comparison.gold == (0, 0, 0)
    assert all(set(arm.predicted) <= {-1, 0} and arm.predicted == arm.greedy for arm in comparison.arms)


def test_without_shots_there_is_no_few_shot_arm(loaded: LoadedModel, folder: Path) -> None:
    comparison = compare(
        loaded.model, loaded.tokenizer, tuned(loaded, folder), include_path=folder, limit=2, num_fewshot=0
    )
    assert names(comparison) == ["zero-shot", "edited", "zero-shot calibrated"]
    with pytest.raises(TarotError, match="expected shots to draw, got 0 shots; leave the draws out"):
        compare(loaded.model, loaded.tokenizer, tuned(loaded, folder), include_path=folder, num_fewshot=0, draws=2)


def test_tasks_without_right_answers_are_refused_before_any_is_answered(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tasks(tmp_path)
    (file := folder / "generate.yaml").write_text(file.read_text().replace("metric: exact_match", "metric: bleu"))
    adapter = tuned(loaded, folder, task="own_generate")
    monkeypatch.setattr(Setting, "answer_as_tuned", lambda *_: pytest.fail("answered"))
    with pytest.raises(TarotError, match="expected choices or the metric exact_match in own_generate, got bleu"):
        compare(loaded.model, loaded.tokenizer, adapter, include_path=folder)
    text = (file := folder / "loglikelihood.yaml").read_text().replace("metric: acc", "metric: byte_perplexity")
    file.write_text(text.replace("output_type: loglikelihood", "output_type: loglikelihood_rolling"))
    task = load_task("own_loglikelihood", folder)
    with pytest.raises(TarotError, match=r"expected right and wrong answers in own_.*, got output type loglik"):
        check_scorable(task)


def test_adapters_without_a_record_of_their_tuning(loaded: LoadedModel, folder: Path) -> None:
    adapter = tuned(loaded, folder)
    with pytest.raises(TarotError, match="does not record the task"):
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


@pytest.mark.parametrize("counts", [{"num_fewshot": -1}, {"num_fewshot": 2.7}, {"draws": -2}, {"draws": "2"}])
def test_counts_that_are_none_are_refused_before_anything_is_answered(
    counts: dict[str, Any], loaded: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Setting, "answer_as_tuned", lambda *_: pytest.fail("answered"))
    with pytest.raises(InvalidValueError, match=next(iter(counts))):
        compare(loaded.model, loaded.tokenizer, tuned(loaded, folder), include_path=folder, **counts)


def test_an_adapter_of_another_model_is_refused_before_the_base_answers(
    loaded: LoadedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Setting, "answer_as_tuned", lambda *_: pytest.fail("answered"))
    adapter = tuned(loaded, folder)
    other = replace(adapter, angles=adapter.angles[:, :-1])
    with pytest.raises(ShapeMismatch, match="this adapter is for another model"):
        compare(loaded.model, loaded.tokenizer, other, include_path=folder)
    with pytest.raises(ShapeMismatch, match="this adapter is for another model"):
        compare(loaded.model, loaded.tokenizer, adapter, controls={"random": other}, include_path=folder)
    with pytest.raises(
        TarotError,
        match="expected a control tuned as the edit was, on 6 samples of own_choice, 0 shots, with the chat template, "
        "seed 0, budget 3, got 6 samples of own_choice, 2 shots, with the chat template, seed 0, budget 3; tune it",
    ):
        compare(
            loaded.model,
            loaded.tokenizer,
            adapter,
            controls={"random": tuned(loaded, folder, num_fewshot=2)},
            include_path=folder,
        )
    with pytest.raises(TarotError, match="without chat template"):
        check_compare(adapter, controls=[tuned(loaded, folder, apply_chat_template=False)], include_path=folder)
