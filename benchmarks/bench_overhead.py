"""What the edit costs, as ratios in one run: passes and generation hooked and merged, and changing to another edit."""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch

from tarot.adapter import Adapter, Edit
from tarot.composition import compose
from tarot.intervention import merge_, rotated, unmerge_
from tarot.models import load_model
from tarot.rotation import ROTARY
from tarot.sites import find_sites

ROUNDS = 7


def ratios(work: Callable[[], object], *contexts: Callable[[], object]) -> list[float]:
    """Median over rounds of each context's time over the first's, all of a round in turn."""
    found: list[list[float]] = [[] for _ in contexts]
    for _ in range(ROUNDS):
        times = []
        for context in contexts:
            with context():
                started = time.perf_counter()
                work()
                times.append(time.perf_counter() - started)
        for each, value in zip(found, times, strict=True):
            each.append(value / times[0])
    return [statistics.median(each) for each in found]


@pytest.mark.parametrize("what", ["forward", "generate"])
@pytest.mark.parametrize("reference", ["wheel:smollm2-135m", "wheel:gemma3-270m"])
def bench_overhead(benchmark: object, reference: str, what: str) -> None:
    model = load_model(reference).model
    sites = find_sites(model, "heads", 0.5)
    angles = torch.rand(len(sites), sites[0].n_heads, sites[0].d_head // 2, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(100, 200).repeat(4, 1)

    def work() -> None:
        with torch.no_grad():
            if what == "forward":
                model(ids, use_cache=False)
            else:
                model.generate(
                    ids[:1],
                    attention_mask=torch.ones_like(ids[:1]),
                    max_new_tokens=16,
                    min_new_tokens=16,
                    do_sample=False,
                )

    class folded:
        def __enter__(self) -> None:
            merge_(model, angles, sites)

        def __exit__(self, *_: object) -> None:
            unmerge_(model, angles, sites)

    work()
    _, hooked, merged = ratios(work, nullcontext, lambda: rotated(model, angles, sites), folded)
    benchmark.extra_info.update(model=reference, what=what, hooked=round(hooked, 3), merged=round(merged, 3))
    benchmark.pedantic(lambda: None, rounds=1)
    assert merged < 1.05
    assert hooked <= 1.05


@pytest.mark.parametrize("reference", ["wheel:smollm2-135m"])
def bench_switch(benchmark: object, reference: str) -> None:
    """Seconds from one adapter to the next without loading anything, over those of a forward pass of 400 tokens."""
    model = load_model(reference).model
    sites = find_sites(model, "heads", 0.5)
    edit = Edit.of(model, "heads", sites, ROTARY)
    shape = (len(sites), sites[0].n_heads, sites[0].d_head // 2)
    first, second = (
        Adapter(torch.rand(shape, generator=torch.Generator().manual_seed(seed)), edit, {}) for seed in (0, 1)
    )
    ids = torch.arange(100, 200).repeat(4, 1)
    # The difference of two adapters is an adapter: one merge leads from the one to the other, and one back.
    there, back = compose(model, second, first.scaled(-1.0)), compose(model, first, second.scaled(-1.0))

    def forward() -> None:
        with torch.no_grad():
            model(ids, use_cache=False)

    def hook() -> None:
        for adapter in (first, second):
            with adapter.applied(model):
                pass

    def merge() -> None:
        for adapter in (there, back):
            adapter.merge(model)

    forward()
    seconds = {work: statistics.median(timed(work) for _ in range(ROUNDS)) for work in (forward, hook, merge)}
    hooked, merged = (seconds[switched] / 2 / seconds[forward] for switched in (hook, merge))  # there and back
    benchmark.extra_info.update(model=reference, what="switch", hooked=round(hooked, 4), merged=round(merged, 4))
    benchmark.pedantic(lambda: None, rounds=1)
    assert hooked < 0.05
    assert merged < 0.1


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
