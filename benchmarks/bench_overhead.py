"""Time what an edit adds to a forward pass and to generation, and what it takes to change from one edit to another."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from itertools import cycle
from typing import Any

import pytest
import torch
from alternatives import Alternatives

from tarot.edit.adapter import Adapter, Edit
from tarot.edit.composition import compose
from tarot.edit.fingerprint import weights_fingerprint
from tarot.edit.hooks import apply_rotation
from tarot.edit.merge import merge_temporarily
from tarot.edit.rotation import ROTARY
from tarot.edit.sites import find_sites
from tarot.models.load import load_model
from tarot.models.loaded_model import LoadedModel

ROUNDS = 7
SWITCHES = 20  # even, so that the model ends with the adapter that it began with
IDS = torch.arange(100, 200).repeat(4, 1)

EDITS: Mapping[str, Callable[..., Any]] = {
    "unedited": lambda model, angles, sites: nullcontext(),
    "hooked": apply_rotation,
    "merged": merge_temporarily,
}


def forward(model: Any) -> None:
    """Run 400 tokens through the model."""
    with torch.no_grad():
        model(IDS, use_cache=False)


def generate(model: Any) -> None:
    """Generate 16 tokens after a prompt of 100."""
    prompt = IDS[:1]
    lengths = {"max_new_tokens": 16, "min_new_tokens": 16}
    with torch.no_grad():
        model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, **lengths)


WORK = {"forward": forward, "generate": generate}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("work", WORK)
def bench_overhead(
    benchmark: Any,
    tarot_model: LoadedModel,
    bounded: bool,
    alternatives: Alternatives,
    work: str,
    edit: str,
) -> None:
    """Time a forward pass or generation, unedited, hooked or merged."""
    model = tarot_model.model
    sites = find_sites(model, "heads", 0.5)
    angles = torch.rand(len(sites), sites[0].n_heads, sites[0].d_head // 2, generator=torch.Generator().manual_seed(0))
    benchmark.group = f"{work} {tarot_model.reference}"
    with EDITS[edit](model, angles, sites):
        benchmark.pedantic(WORK[work], args=(model,), rounds=ROUNDS, warmup_rounds=1)
    alternatives.add(benchmark, edit)
    benchmark.extra_info.update(model=tarot_model.reference)
    ratio = alternatives.ratio(benchmark.group, edit, "unedited")
    if edit == "unedited" or ratio is None:
        return
    benchmark.extra_info["over_unedited"] = round(ratio, 3)
    if bounded:
        assert ratio < 1.05 if edit == "merged" else ratio <= 1.05


@pytest.fixture(scope="module")
def own_model(tarot_model: LoadedModel) -> Any:
    """Load a second copy: merging in place leaves rounding errors in the weights."""
    return load_model(tarot_model.reference).model


@pytest.mark.parametrize("how", ["forward", "hooked", "merged"])
def bench_switch(
    benchmark: Any,
    tarot_model: LoadedModel,
    own_model: Any,
    bounded: bool,
    alternatives: Alternatives,
    how: str,
) -> None:
    """Change from one adapter to another without loading a model, beside a forward pass of 400 tokens."""
    sites = find_sites(own_model, "heads", 0.5)
    edit = Edit.from_sites(own_model, "heads", sites, ROTARY)
    shape = (len(sites), sites[0].n_heads, sites[0].d_head // 2)
    tuned_on = {"model_weights": weights_fingerprint(own_model)}  # as every tuned adapter has; `apply` compares it
    first, second = (
        Adapter(torch.rand(shape, generator=torch.Generator().manual_seed(seed)), edit, tuned_on) for seed in (0, 1)
    )

    def hook(adapter: Adapter) -> None:
        with adapter.apply(own_model):
            pass

    def merge(difference: Adapter) -> None:
        difference.merge(own_model)

    benchmark.group = f"switch {tarot_model.reference}"
    if how == "forward":
        benchmark.pedantic(forward, args=(own_model,), rounds=ROUNDS, warmup_rounds=1)
    elif how == "hooked":
        adapters = cycle([first, second])
        benchmark.pedantic(hook, setup=lambda: ((next(adapters),), {}), rounds=SWITCHES)
    else:
        # The difference of two adapters is an adapter: one merge leads from the one to the other, and one back.
        there, back = compose(own_model, second, first.scaled(-1.0)), compose(own_model, first, second.scaled(-1.0))
        differences = cycle([there, back])
        benchmark.pedantic(merge, setup=lambda: ((next(differences),), {}), rounds=SWITCHES)
    alternatives.add(benchmark, how)
    benchmark.extra_info.update(model=tarot_model.reference)
    ratio = alternatives.ratio(benchmark.group, how, "forward")
    if how == "forward" or ratio is None:
        return
    benchmark.extra_info["over_forward"] = round(ratio, 4)
    if bounded:
        assert ratio < (0.05 if how == "hooked" else 0.1)
