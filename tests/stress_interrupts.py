"""Interrupt every way of changing a model or the process at every instruction, and count the changes that are left.

    python tests/stress_interrupts.py --rounds 10000

A round opens and closes one context and raises KeyboardInterrupt at one instruction, as Ctrl-C does. All instructions
of tarot and contextlib are interrupted, so that rounds depend on neither timers nor chance.
"""

import argparse
import contextlib
import gc
import itertools
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from math import gcd
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from checkpoint import byte_model
from gates import constant_gate
from huggingface_hub import constants
from torch import nn
from transformers.utils import logging as transformers_logging

import tarot
from tarot.analysis.attention import eager_attention
from tarot.edit.hooks import apply_rotation
from tarot.edit.merge import merge_rotation, merge_temporarily
from tarot.edit.patch import unpatched
from tarot.edit.rope import initial_rope
from tarot.evaluation.baselines.weights import WeightEdit
from tarot.models.evaluation_mode import evaluation_mode
from tarot.models.offline import hub_offline, quiet_loggers, quiet_transformers
from tarot.models.scoring.frozen_layers import FrozenLayerCache
from tarot.models.scoring.scorer import predictions_at
from tarot.models.template_limit import limited_template

INTERRUPTED_FILES = (str(Path(tarot.__file__).parent), contextlib.__file__)
ANGLES = torch.full((2, 3, 4), 0.5)
Change = Callable[[nn.Module], None]


def enter(context: Any) -> None:
    """Open a context and close it."""
    with context:
        pass


def skip_lower(model: nn.Module) -> None:
    """Run the frozen layers once, then open a pass that skips them."""
    below = FrozenLayerCache([model.model.layers[0]])
    below._states["key"] = torch.zeros(1)
    enter(below.passing("key"))


def nest(model: nn.Module) -> None:
    """Open hooks inside merged weights."""
    with merge_temporarily(model, ANGLES), apply_rotation(model, ANGLES):
        pass


def run_gated(model: nn.Module) -> None:
    """Run a pass of a gated edit, for which the gate reads the prompt."""
    with apply_rotation(model, ANGLES, gate=constant_gate(model, True)):
        model(torch.tensor([[0, 1]]))


def run_beyond(model: nn.Module) -> None:
    """Change the rotary frequencies as a pass beyond the model's own length does."""
    with initial_rope(model):
        embedding = model.model.rotary_emb
        embedding.max_seq_len_cached = 2 * embedding.original_max_seq_len
        embedding.register_buffer("inv_freq", embedding.inv_freq / 2, persistent=False)


CHANGES: dict[str, Change] = {
    "apply_rotation": lambda model: enter(apply_rotation(model, ANGLES)),
    "gated edit": run_gated,
    "merge_temporarily": lambda model: enter(merge_temporarily(model, ANGLES)),
    "nested": nest,
    "weight edit": lambda model: enter(
        WeightEdit({name: each.detach() + 1 for name, each in model.named_parameters()}, 0, {}).apply(model)
    ),
    "predictions_at": lambda model: enter(predictions_at(model, torch.tensor([0]), torch.tensor([0]))),
    "frozen layers": skip_lower,
    "eager": lambda model: enter(eager_attention(model)),
    "merge_rotation": lambda model: merge_rotation(model, ANGLES),
    "unpatched": lambda model: enter(unpatched(model.model.layers[0], model)),
    "evaluation_mode": lambda model: enter(evaluation_mode(model)),
    "initial_rope": run_beyond,
    "hub_offline": lambda model: enter(hub_offline()),
    "quiet": lambda model: enter(quiet_transformers()),
    "quiet loggers": lambda model: enter(quiet_loggers("tarot.stress")),
    "template limit": lambda model: enter(limited_template()),
}


def interrupt(change: Callable[[], None], instruction: int) -> int:
    """Raise KeyboardInterrupt at the instruction of that number, and return how many were executed.

    Raises:
        AssertionError: the change left a trace function.
    """
    executed = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal executed
        if not frame.f_code.co_filename.startswith(INTERRUPTED_FILES):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event in ("opcode", "call"):
            executed += 1
            if executed == instruction + 1:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    traced, report = sys.gettrace(), sys.unraisablehook
    # While a generator is closed, Python drops the interrupt; the change then runs to its end.
    sys.unraisablehook = lambda ignored: None
    try:
        sys.settrace(trace)
        change()
    except KeyboardInterrupt:
        pass
    finally:
        left = sys.gettrace()
        sys.settrace(traced)
        sys.unraisablehook = report
    assert left in (None, trace), "the change left a trace function"
    return executed


def fresh_model() -> nn.Module:
    """Return a model as a user trains it."""
    return byte_model(layers=2).train().requires_grad_(True)


def state(model: nn.Module) -> list[object]:
    """Return what a change may leave behind, in the model but for its weights and in the process."""
    values: list[object] = [model.config._attn_implementation, [each.requires_grad for each in model.parameters()]]
    for module in model.modules():
        values += [len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module)]
        values += [module.training, vars(module).get("max_seq_len_cached")]
    values += [each.tolist() for name, each in model.named_buffers(remove_duplicate=False) if "inv_freq" in name]
    values += [resource.getrlimit(resource.RLIMIT_AS), constants.HF_HUB_OFFLINE, transformers_logging.get_verbosity()]
    values += [transformers_logging.is_progress_bar_enabled(), logging.getLogger("tarot.stress").level]
    return values


def weights(model: nn.Module) -> list[torch.Tensor]:
    """Return the tensors of the parameters."""
    return [parameter.data for parameter in model.parameters()]


def is_unchanged(model: nn.Module, before: tuple[list[object], list[torch.Tensor]]) -> bool:
    """Return whether the model is unchanged, after garbage collection of the interrupted change if needed."""
    same = state(model) == before[0] and all(map(torch.equal, weights(model), before[1]))
    if not same:
        gc.collect()
        same = state(model) == before[0] and all(map(torch.equal, weights(model), before[1]))
    return same


def rounds(change: Change) -> Iterator[bool]:
    """Interrupt each instruction of a change, again and again; yield whether the model is unchanged.

    Few rounds are spread over all instructions. A permanent change may also be complete.
    """
    model, complete = fresh_model(), fresh_model()
    before = state(model), [each.clone() for each in weights(model)]
    total = interrupt(partial(change, complete), sys.maxsize)
    after = state(complete), weights(complete)
    stride = next(each for each in range(int(0.618 * total), total) if gcd(each, total) == 1)
    for instruction in itertools.count(0, stride):
        interrupt(partial(change, model), instruction % total)
        yield is_unchanged(model, before) or is_unchanged(model, after)
        if not is_unchanged(model, before):
            model = fresh_model()


def main() -> int:
    """Run the rounds, shared out over the changes, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10000, help="total number of interrupts")
    share = -(-parser.parse_args().rounds // len(CHANGES))
    torch.set_num_threads(1)
    gc.freeze()
    begin, total, changed = time.perf_counter(), 0, 0
    for name, change in CHANGES.items():
        left = sum(not same for same in itertools.islice(rounds(change), share))
        print(f"{name:16} {share:6} interrupts, {left} left a change", flush=True)
        total, changed = total + share, changed + left
    print(f"{'all':16} {total:6} interrupts, {changed} left a change, {time.perf_counter() - begin:.0f} s")
    return int(changed > 0)


if __name__ == "__main__":
    sys.exit(main())
