"""A script as a user writes it: it imports tarot and transformers, and nothing private.

`python -m nox -s lint` checks its types with `mypy --strict`, and `test_user_script.py` runs it.
"""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import tarot


def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model by transformers."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return model, tokenizer


def measure(folder: Path, task: str, tasks: Path, output: Path) -> tarot.Comparison:
    """Tune an edit, save it, use it, and compare it with the unedited model."""
    model, tokenizer = load(folder)
    config = tarot.TaRotConfig(task, num_samples=6, search="random", space="head", max_kl=None)
    tarot.tune(model, tokenizer, config, budget=3, output_dir=output, include_path=tasks)
    adapter = tarot.Adapter.from_pretrained(output)
    results = tarot.evaluate(model, tokenizer, [task], adapter=adapter, include_path=tasks, limit=4)
    print(sorted(results["results"][task]))
    with adapter.apply(model, strength=0.5):
        print(type(model).__name__, "is edited")
    return tarot.compare(model, tokenizer, adapter, num_fewshot=0, limit=4, include_path=tasks)


def main(arguments: list[str]) -> int:
    """Print the gain, or what is wrong in one line."""
    folder, task, tasks, output = arguments
    try:
        comparison = measure(Path(folder), task, Path(tasks), Path(output))
    except tarot.TarotError as error:
        print(error, file=sys.stderr)
        return 2
    gain = comparison.gain("greedy_f1")
    print(f"{comparison.task}: {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
