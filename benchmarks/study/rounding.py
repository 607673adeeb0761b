"""Measure what rounding the weights changes, as a yardstick for edits: `python -m benchmarks.study.rounding`.

Whoever serves a model in fewer bits accepts that some answers change. These are the columns of `retention.py` for the
unedited model with the weights of its linear layers rounded: the divergence on the same neutral text, and the answers
to the same documents of the same tasks. One small JSON file for each model and format; it can be stopped and started at
any time.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.study import grid
from benchmarks.study.records import Record, measure_records
from benchmarks.study.retention import FORMAT, NEUTRAL_TOKENS, OTHERS, answer_tasks
from tarot.analysis.divergence import measure_divergence
from tarot.analysis.neutral_text import neutral_text
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel

HERE = Path(__file__).parent
FORMATS = {
    "bfloat16": GGMLQuantizationType.BF16,
    "5 bits": GGMLQuantizationType.Q5_0,
    "4 bits": GGMLQuantizationType.Q4_0,
}


class RoundedWeights:
    """Round the weights of the linear layers, without the output layer; implements `BaselineEdit`.

    Args:
        model: whose weights; unchanged.
        kind: key of `FORMATS`. The formats are llama.cpp's; `5 bits` and `4 bits` have one scale for 32 weights.
    """

    provenance: ClassVar[Mapping[str, object]] = {}
    stored_bytes: ClassVar[int] = 0

    def __init__(self, model: PreTrainedModel, kind: str) -> None:
        self.fingerprint = kind
        output = model.get_output_embeddings()
        self.layers = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not output]
        self.rounded = [round_weight(layer.weight.data, FORMATS[kind]) for layer in self.layers]

    @contextmanager
    def apply(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """Round the weights while the context is open, then restore them bit for bit."""
        weights = [layer.weight.data for layer in self.layers]
        try:
            self.replace(self.rounded)
            yield model
        finally:
            self.replace(weights)

    def replace(self, weights: Sequence[Tensor]) -> None:
        """Give every layer another weight."""
        for layer, weight in zip(self.layers, weights, strict=True):
            layer.weight.data = weight


def round_weight(weight: Tensor, kind: GGMLQuantizationType) -> Tensor:
    """Return a weight rounded to a format of llama.cpp."""
    return torch.from_numpy(dequantize(quantize(weight.float().numpy(), kind), kind)).to(weight)


def measure(loaded: LoadedModel, model: str, kind: str) -> Record:
    """Return the record of a format."""
    rounded = RoundedWeights(loaded.model, kind)
    (divergence,) = measure_divergence(loaded.model, [rounded], neutral_text(loaded, NEUTRAL_TOKENS))
    return {
        "format": FORMAT,
        "model": model,
        "rounded": kind,
        "kl": vars(divergence.kl),
        "perplexity_ratio": divergence.perplexity / divergence.base_perplexity,
        "tasks": answer_tasks(loaded, dict.fromkeys(OTHERS, 0), rounded),
    }


def record_name(model: str, kind: str) -> str:
    """Return the name of a format's record."""
    return f"{model}-rounded-{kind.replace(' ', '_')}"


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/retention"), help="folder of the locks")
    parser.add_argument("--output", type=Path, default=HERE / "retention-records", help="folder of the records")
    options = parser.parse_args()
    load = cache(load_model)

    def make_record(model: str, kind: str) -> Record:
        return measure(load(grid.REFERENCES[model]), model, kind)

    names = {record_name(model, kind): partial(make_record, model, kind) for model in grid.MODELS for kind in FORMATS}
    measure_records(options.output, options.work, names)


if __name__ == "__main__":
    main()
