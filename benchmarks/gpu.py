"""Check every path of an edit on a GPU against the CPU, then time models of 1B, 3B and 8B shape.

    python -m benchmarks.gpu --output gpu.json

Needs no download: weights and tokens are random, made on the device. Correctness is checked with a tiny model in
float32. Times are those of one evaluation of an edit on 20 six-shot prompts and of one gradient step, beside the plain
loop (one prompt a pass, with hooks) and bare forward passes of the same tokens without an edit. The file is written
after each model, so a run that is cut short keeps what it has measured.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from tarot.edit.hooks import apply_rotation
from tarot.edit.merge import merge_temporarily
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import angle_mask, find_sites
from tarot.evaluation.cost.peak_memory import PeakMemory
from tarot.models.scoring.scorer import Request, Scorer
from tarot.objectives.answers import AnswerObjective
from tarot.objectives.tasks.samples import Sample

# Shapes of Llama 3.2 1B, Llama 3.2 3B and Llama 3.1 8B: width, MLP's width, layers, heads, key-value heads.
SHAPES = {
    "1B": (2048, 8192, 16, 32, 8),
    "3B": (3072, 8192, 28, 24, 8),
    "8B": (4096, 14336, 32, 32, 8),
}
TINY = (48, 64, 3, 6, 2)
VOCABULARY, TINY_VOCABULARY = 128_256, 97
PROMPTS, SHOTS, QUESTION, ANSWER = 20, 6, 60, 2  # tokens of a question, and of an answer
REPEATS = 3
TOLERANCE = 2e-3
"""Largest difference in log-probability or logits, in nats, between float32 on the CPU and on a GPU."""


@dataclass(frozen=True)
class Check:
    """The largest difference between two devices on one path; None where the device cannot run it."""

    path: str
    difference: float | None

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.difference is None or self.difference <= TOLERANCE


def make_model(shape: tuple[int, int, int, int, int], vocabulary: int, dtype: torch.dtype, device: str) -> Any:
    """Make a model with random weights on a device."""
    width, inner, layers, heads, groups = shape
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.generation_config.eos_token_id = None
    return model.eval().requires_grad_(False)


def make_samples(vocabulary: int, question: int = QUESTION, n: int = PROMPTS) -> list[Sample]:
    """Make samples of random tokens, written as numbers: six shared shots, a question, and two answers."""
    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> str:
        return " ".join(map(str, torch.randint(3, vocabulary, (length,), generator=generator).tolist()))

    shots = tokens(SHOTS * (question + ANSWER))
    answers = [f" {tokens(ANSWER)}" for _ in range(2)]
    return [
        Sample(f"train/{i}", str(i), tuple((f"{shots} {text}", answer) for answer in answers), i % 2, SHOTS)
        for i, text in enumerate(tokens(question) for _ in range(n))
    ]


def read_tokens(context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Read the numbers of a context and of a continuation."""
    return [int(token) for token in context.split()], [int(token) for token in continuation.split()]


def make_objective(model: PreTrainedModel, samples: list[Sample]) -> tuple[AnswerObjective, Tensor]:
    """Return an objective over all heads, and random angles for it."""
    sites = find_sites(model, "heads", 1.0)
    shape = angle_mask(sites, ROTARY.n_angles).shape
    angles = 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return AnswerObjective(model, samples, read_tokens, sites=sites), angles


def run_paths(model: Any) -> dict[str, Tensor]:
    """Return what each path of an edit computes with this model, copied to the CPU."""
    samples = make_samples(TINY_VOCABULARY, question=7, n=6)
    objective, angles = make_objective(model, samples)
    sites, tokens = objective.sites, torch.tensor([read_tokens(*samples[0].pairs[0])[0]], device=model.device)
    requests = [Request(tuple(c), tuple(t)) for c, t in (read_tokens(*pair) for s in samples for pair in s.pairs)]
    on_device = angles.to(model.device)
    results = {}
    with torch.no_grad():
        with apply_rotation(model, on_device, sites, ROTARY):
            results["hooks"] = model(tokens).logits
            results["generation"] = model.generate(tokens, max_new_tokens=8, do_sample=False)
        with merge_temporarily(model, angles, sites, ROTARY):
            results["merge"] = model(tokens).logits
            results["scorer"] = Scorer(model, requests).log_probabilities()[0]
    score, gradient = objective.value_and_grad(angles)
    results["objective"] = torch.tensor([objective(angles), score])
    results["gradient"] = gradient
    return {name: value.float().cpu() for name, value in results.items()}


def check_paths(device: str) -> list[Check]:
    """Compare every path on a device with the same path on the CPU, then a model that accelerate places."""
    on_cpu = make_model(TINY, TINY_VOCABULARY, torch.float32, "cpu")
    expected = run_paths(on_cpu)
    with TemporaryDirectory() as folder:
        on_cpu.save_pretrained(folder)
        moved: Any = AutoModelForCausalLM.from_pretrained(folder)
        found = run_paths(moved.to(device).eval().requires_grad_(False))
        checks = [Check(name, float((found[name] - value).abs().max())) for name, value in expected.items()]
        if torch.device(device).type == "cpu":
            return [*checks, Check("device_map", None)]
        spread: Any = AutoModelForCausalLM.from_pretrained(folder, device_map="auto")
        placed = run_paths(spread.eval().requires_grad_(False))
    return [*checks, Check("device_map", max(float((placed[n] - value).abs().max()) for n, value in expected.items()))]


def least_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the least seconds of some repeats, after one that is not counted."""
    seconds = []
    for _ in range(1 + REPEATS):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return round(min(seconds[1:]), 5)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_model(model: PreTrainedModel, samples: list[Sample]) -> dict[str, float]:
    """Time an evaluation and a gradient step, the plain loop, and bare passes; peak memory in bytes."""
    objective, angles = make_objective(model, samples)
    pairs = [read_tokens(*sample.pairs[sample.gold]) for sample in samples]
    batch = torch.tensor([[*context, *continuation] for context, continuation in pairs], device=model.device)
    on_device = angles.to(model.device)

    @torch.no_grad()
    def run_plain_loop() -> None:
        with apply_rotation(model, on_device, objective.sites, ROTARY):
            for row in batch:
                model(row[None], logits_to_keep=ANSWER + 1).logits.float().log_softmax(-1)

    @torch.no_grad()
    def run_bare() -> None:
        for part in batch.split(max(1, PROMPTS // 4)):
            model(part, logits_to_keep=ANSWER + 1)

    times: dict[str, float] = {"parameters": sum(p.numel() for p in model.parameters())}
    works: dict[str, Callable[[], object]] = {
        "evaluation": lambda: objective(angles),
        "gradient_step": lambda: objective.value_and_grad(angles),
        "plain_loop": run_plain_loop,
        "bare_passes": run_bare,
    }
    for name, work in works.items():
        with PeakMemory(model.device) as peak:
            times[f"{name}_seconds"] = least_seconds(work, model.device)
            times[f"{name}_peak_bytes"] = peak.read()
    return times


def main() -> None:
    """Check, time, and write the file; exit code 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="one tiny model instead of the shapes: tries the script")
    options = parser.parse_args()
    device = torch.device(options.device)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    checks = check_paths(options.device)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": {name: version(name) for name in ("torch", "transformers", "tarot-lm")},
        "tolerance": TOLERANCE,
        "checks": [{**asdict(check), "passed": check.passed} for check in checks],
        "prompts": {"number": PROMPTS, "shots": SHOTS, "question_tokens": QUESTION, "answer_tokens": ANSWER},
        "models": {},
    }
    shapes = {"tiny": TINY} if options.tiny else SHAPES
    vocabulary, dtype = (TINY_VOCABULARY, torch.float32) if options.tiny else (VOCABULARY, torch.bfloat16)
    for name, shape in shapes.items():
        model = make_model(shape, vocabulary, dtype, options.device)
        result["models"][name] = time_model(model, make_samples(vocabulary))
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {result['models'][name]}", file=sys.stderr, flush=True)
        del model
    if failed := [check.path for check in checks if not check.passed]:
        sys.exit(f"differs from the CPU: {', '.join(failed)}")


if __name__ == "__main__":
    main()
