"""Valid files that `fuzz_readers.py` changes: gated adapters, recipes, prompts, draws, answers, side effects."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

PROVENANCE: dict[str, object] = {
    "model": "folder/model",
    "dtype": "auto",
    "task": "own_choice",
    "num_fewshot": 2,
    "num_samples": 4,
    "space": "head",
    "search": "adam",
    "objective": "log_probability",
    "sites": "heads",
    "layers": 0.5,
    "bound": 0.785,
    "rotation": "rotary",
    "seed": 0,
    "apply_chat_template": True,
    "trials_per_step": 1,
    "fluency_floor": None,
    "budget": 9,
    "trials": 3,
    "spent": 9,
    "interrupted": False,
    "scores": {"identity": -3.5, "best": -0.25},
    "seconds": {"evaluating": 1.5, "proposing": 0.25},
    "samples_drawn": [{"id": f"train/{i}", "key": f"{i:016x}", "num_fewshot": 2} for i in range(4)],
    "versions": {"torch": "2.13"},
    "pruned": {"keep": 0.9, "before": None, "heads": 2, "of": 6, "scores": {"identity": -3.5}},
}
GATE_RECORD: Mapping[str, Any] = MappingProxyType(
    {"layer": 1, "task_prompts": 4, "retained_prompts": 9, "opened_left_out": 0.75, "closed_left_out": 1.0}
)
LIMITED: Mapping[str, Any] = MappingProxyType(
    {
        "max_kl": 0.03,
        "retain": ["other_task", "my.jsonl"],
        "retention": {
            "kl": 0.01,
            "strength": 0.5,
            "contexts": {"bundled": 9, "other_task": 4},
            "tokens": 120,
            "left_out_probability": 0.001,
        },
        "pick": "2",
        "gate": dict(GATE_RECORD),
        "shots_left_out": 1,
    }
)
"""Provenance of an adapter that was tuned under a limit of divergence, picked by hand and gated."""

TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m.role == 'system' %}<system>{{ m.content | trim }}"
    "{% elif loop.index < 10 * 2 %}<{{ m['role'] }}>{{ m.content }}{% else %}{{ raise_exception('role') }}{% endif %}"
    "{% for i in range(2) %}{{ '-' * i }}{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
TUNE_RECIPE = b"""# tarot tune recipe.yml
model: folder/model
task: own_choice
budget: 9
num_fewshot: mix
layers: [0, 2]
bound: 0.785
apply_chat_template: true
max_kl: auto
retain: [other_task, my.jsonl]
fluency_floor: "0.5"
"""
BENCH_RECIPE = b"""model: [one, "two: three"]
tasks: own_choice
num_fewshot: [0, mix, 4]
search:
  - adam
  - bo
limit: 0.25
seeds: [0, 1]
"""
PROMPTS_TEXT = "What is the capital of France?\n\nTranslate: gr\u00fcn\r\nItem 7\n".encode()
PROMPTS_JSON = (
    b'{"prompt": "Is it red?"}\n'
    b'{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Was it?"}]}\n'
    b'{"text": "Once upon a time"}\n'
)
ANSWERED: Mapping[str, tuple[tuple[Any, ...], Any]] = MappingProxyType(
    {
        "loglikelihood": (("item 7", " red"), (-1.5, True)),
        "loglikelihood_rolling": (("item 7",), -20.25),
        "generate_until": (("item 7", {"until": ["\n"]}), " gr\u00fcn"),
    }
)
EFFECTS = b"""adapter,fingerprint,task,tuned_on,base,edited,change,low,high,p,documents,without_number
mine,1f,own_choice,True,0.25,0.75,0.5,0.25,0.75,0.001,12,
mine,1f,other_task,False,0.5,0.25,-0.25,-0.5,-0.125,0.01,12,3 7
"""
TRADE_OFF = b"""adapter,fingerprint,strength,score,gain,kl_nats,kl_low,kl_high,base_perplexity,perplexity,without_number
mine,1f,0.0,0.25,0.0,0.0,0.0,0.0,12.5,12.5,
mine,1f,1.0,0.75,0.5,0.125,0.1,0.15,12.5,14.0,3
"""


DIVERGENCES = json.dumps(
    {
        "retained": "0123456789abcdef",
        "notes": {"contexts": {"prompts": 540, "own text": 16}, "tokens": 1270, "left_out_probability": 0.01},
        "points": {"0123456789abcdef": {"kl": 0.01, "stop_above": None}, "f" * 16: {"kl": 0.03, "stop_above": 0.02}},
    }
).encode()


def draw_sets() -> bytes:
    """Return the file of the draws of two trials."""
    from tarot.objectives.policy import Draw, DrawSet

    draws = (Draw("so good", (5, 6, 7), 0.5, -3.5, -3.25), Draw("", (1,), 0.0, -1.0, -1.5))
    sets = {str(trial): asdict(DrawSet(trial + 7, 0.25 * trial, (draws, draws[::-1]))) for trial in range(2)}
    return json.dumps(sets).encode()
