"""Exports agree: the hooked model, PEFT, stock lm-eval, a merged checkpoint and its reload."""

from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import logits, random_adapter
from checkpoint import byte_model, byte_tokenizer, save_checkpoint, write_tasks
from lm_eval import simple_evaluate
from lm_eval.tasks.manager import TaskManager
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tarot.edit.export.peft import from_peft, to_peft
from tarot.errors import TarotError
from tarot.evaluation.evaluate import evaluate
from tarot.models.formats.checkpoint import save_checkpoint as save_merged
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel

# PEFT 0.21 asks transformers 5.23 by a name that it is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

TOLERANCE = 3e-5
"""For float32 logits of 1 to 10: PEFT solves a linear system where the hook multiplies complex numbers."""


def test_hooked_merged_peft_stock_lm_eval_and_reloaded_agree(tmp_path: Path) -> None:
    """Pass one edit through all of them: logits agree within TOLERANCE, log-probabilities within 1e-4 nats."""
    tasks, base = write_tasks(tmp_path / "tasks"), save_checkpoint(tmp_path / "model")
    loaded = load_model(str(base), device="cpu")
    adapter = random_adapter(loaded.model, scale=0.4)
    to_peft(loaded.model, adapter, tmp_path / "peft", str(base))
    ids = torch.tensor(loaded.tokenizer(["item 1000\nA: redder", "item 1001\nA: blue, as"], padding=True)["input_ids"])
    bare = logits(loaded.model, ids)
    with adapter.apply(loaded.model):
        hooked = logits(loaded.model, ids)
    wrapped = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "peft")
    hops = {"peft": logits(wrapped, ids), "merged by peft": logits(wrapped.merge_and_unload(), ids)}
    hops["imported"] = logits(from_peft(loaded.model, tmp_path / "peft").merge(load_model(str(base)).model), ids)
    merged = load_model(str(base), device="cpu")
    hops["merged"] = logits(adapter.merge(merged.model), ids)
    save_merged(merged, tmp_path / "merged")
    hops["reloaded"] = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), ids)
    assert (hooked - bare).abs().max() > 1
    for hop, values in hops.items():
        assert (values - hooked).abs().max() < TOLERANCE * hooked.abs().max(), hop
    assert torch.equal(hops["merged"], hops["reloaded"])

    ours = evaluate(loaded.model, loaded.tokenizer, ["own_choice"], adapter=adapter, include_path=tasks, num_fewshot=2)
    unedited = evaluate(loaded.model, loaded.tokenizer, ["own_choice"], include_path=tasks, num_fewshot=2)
    for arguments in (f"pretrained={base},peft={tmp_path / 'peft'}", f"pretrained={tmp_path / 'merged'}"):
        stock = simple_evaluate(
            model="hf",
            model_args=arguments,
            device="cpu",
            tasks=["own_choice"],
            task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
            num_fewshot=2,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
        )
        assert answers(stock) == pytest.approx(answers(ours), abs=1e-4)
        assert stock["results"]["own_choice"]["acc,none"] == ours["results"]["own_choice"]["acc,none"]
    assert answers(ours) != pytest.approx(answers(unedited), abs=0.1)


def answers(results: dict[str, Any]) -> list[float]:
    """Return the log-probabilities of all choices of all documents, in nats."""
    documents = sorted(results["samples"]["own_choice"], key=lambda document: document["doc_id"])
    return [float(value) for document in documents for value, _ in document["filtered_resps"]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_merged_checkpoint_is_rounded_once(dtype: str, tmp_path: Path) -> None:
    """Compare with the merge in float32, cast to the model's dtype, bit for bit."""
    base = save_checkpoint(tmp_path / "model")
    edited = load_model(str(base), dtype=dtype)
    adapter = random_adapter(edited.model)
    precise = load_model(str(base), dtype=dtype).model.float()
    save_merged(LoadedModel("merged", adapter.merge(edited.model), edited.tokenizer), tmp_path / "merged")
    written = load_file(tmp_path / "merged" / "model.safetensors")
    adapter.merge(precise)
    for name, parameter in precise.named_parameters():
        if name in written:
            assert torch.equal(written[name], parameter.to(getattr(torch, dtype))), name


def test_shards_hold_the_complete_model(tmp_path: Path) -> None:
    loaded = LoadedModel("bytes", byte_model(), byte_tokenizer())
    random_adapter(loaded.model).merge(loaded.model)
    save_merged(loaded, tmp_path / "sharded", "20KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 2
    ids = torch.arange(3, 30)[None]
    for reloaded in (
        AutoModelForCausalLM.from_pretrained(tmp_path / "sharded"),
        load_model(str(tmp_path / "sharded")).model,
    ):
        assert torch.equal(logits(reloaded, ids), logits(loaded.model, ids))
    with pytest.raises(TarotError, match="expected a size of files such as 500MB or 2GB, got '0GB'"):
        save_merged(loaded, tmp_path / "none", "0GB")


# Refusals -----------------------------------------------------------------------------------------


# GGUF ---------------------------------------------------------------------------------------------
