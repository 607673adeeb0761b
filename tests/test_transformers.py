"""transformers' Trainer and pipeline see an edit while it is applied, and no trace of it afterwards."""

import os

import pytest
import torch
from checkpoint import byte_model, byte_tokenizer
from torch.utils.data import Dataset
from transformers import LlamaForCausalLM, Trainer, TrainingArguments, pipeline

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites

IDS = torch.arange(3, 30)
STEPS = 3


class Texts(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": IDS + index, "labels": IDS + index}


def random_adapter(model: LlamaForCausalLM) -> Adapter:
    sites = find_sites(model, "heads", 0.5)
    angles = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    return Adapter(angles, Edit.from_sites(model, "heads", sites, ROTARY), {})


def train(model: LlamaForCausalLM, folder: os.PathLike[str], *, learning_rate: float = 1e-2) -> list[float]:
    """Train a few steps with the stock Trainer and return the losses."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        learning_rate=learning_rate,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        seed=0,
    )
    trainer = Trainer(model=model.requires_grad_(True), args=arguments, train_dataset=Texts())
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")  # its data loader warns without an accelerator
def test_trainer_trains_the_edited_model(tmp_path: os.PathLike[str]) -> None:
    """The first loss is that of the merged model, and the trained weights work without the edit afterwards."""
    model, merged = byte_model(), byte_model()
    adapter = random_adapter(model)
    before = [parameter.clone() for parameter in model.parameters()]
    with adapter.apply(model):
        # Later losses may differ: Adam scales each weight, and merging mixes weights.
        losses = train(model, tmp_path)
    assert losses[0] == pytest.approx(train(adapter.merge(merged), tmp_path)[0], abs=1e-3)
    assert losses[0] != pytest.approx(train(byte_model(), tmp_path)[0], abs=1e-2)
    assert losses[-1] < losses[0]
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_pipeline_generates_from_the_edited_model() -> None:
    model, merged, tokenizer = byte_model(), byte_model(), byte_tokenizer()
    adapter = random_adapter(model)
    adapter.merge(merged)

    def texts(pipeline_model: LlamaForCausalLM) -> list[str]:
        generate = pipeline("text-generation", model=pipeline_model, tokenizer=tokenizer, device="cpu")
        prompts = ["item 1: ", "another, longer item 2: "]
        outputs = generate(prompts, max_new_tokens=12, do_sample=False, batch_size=2)
        return [output[0]["generated_text"] for output in outputs]

    bare = texts(model)
    with adapter.apply(model):
        edited = texts(model)
    assert edited == texts(merged) != bare == texts(model)
