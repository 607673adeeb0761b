"""An adapter's documents and answers are those of an evaluation."""

from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint import write_tasks

from tarot.analysis.tuned_documents import answer_documents, tuned_documents
from tarot.edit.adapter import Adapter
from tarot.evaluation.compare import compare
from tarot.evaluation.evaluate import evaluate
from tarot.evaluation.options import EvaluationOptions
from tarot.evaluation.results.comparison import EDITED, ZERO_SHOT
from tarot.models.loaded_model import LoadedModel
from tarot.search.config import TaRotConfig
from tarot.search.tune import tune


def test_documents_equal_those_of_an_evaluation(
    loaded: LoadedModel, tuned_adapter: Adapter, tasks_folder: Path
) -> None:
    shots = replace(tuned_adapter, provenance={**tuned_adapter.provenance, "num_fewshot": 2})
    for edit, k in ((tuned_adapter, 0), (shots, 2)):
        results = evaluate(loaded.model, loaded.tokenizer, ["own_choice"], include_path=tasks_folder, num_fewshot=k)
        logged = results["samples"]["own_choice"]
        pairs = [tuple(tuple(arguments) for arguments in document["arguments"]) for document in logged]
        documents = tuned_documents(loaded, edit, include_path=tasks_folder)
        assert [sample.pairs for sample in documents] == pairs
        assert len(tuned_documents(loaded, edit, include_path=tasks_folder, limit=3)) == 3


@pytest.mark.parametrize("name", ["choice", "generate", "loglikelihood"])
def test_answers_equal_those_of_a_comparison(loaded: LoadedModel, tmp_path: Path, name: str) -> None:
    tasks_folder = write_tasks(tmp_path / "tasks")
    config = TaRotConfig(f"own_{name}", num_samples=6, search="random", space="head", layers=0.5, bound=2.0)
    edit = tune(
        loaded.model, loaded.tokenizer, config, output_dir=tmp_path / "edit", budget=3, include_path=tasks_folder
    )
    comparison = compare(loaded.model, loaded.tokenizer, edit, include_path=tasks_folder, limit=5)
    for arm, of in ((ZERO_SHOT, None), (EDITED, edit)):
        answers = answer_documents(loaded, edit, of, EvaluationOptions(tasks_folder, limit=5))
        assert answers.greedy == comparison.arm(arm).greedy
