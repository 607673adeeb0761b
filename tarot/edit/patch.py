"""Temporary changes of a model: hooks and attributes that a context sets, and undoes whatever interrupts it.

Interrupts. Python raises KeyboardInterrupt between two bytecode instructions. Changes are therefore prepared first,
then applied in one instruction, and undone in one. `is_open` inspects the model; there is no separate
flag. A context that is interrupted before its exit began is undone when it is garbage-collected.

Threads. Safe: any number of threads may run a model that nobody edits, edit different models, or take turns in editing
one model. Refused with a TarotError: opening an edit of a model that another thread or asyncio task has edited, running
such a model from another thread or task, and copying or pickling an edited model. The refusal comes before the second
thread changes anything. Autograd's own threads may run parts of an edited model again (checkpointing). Not detected: a
pass in another thread that is inside an edited module when the edit opens, and weights that are changed by other means.
"""

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from operator import call, setitem
from typing import Any, NoReturn

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tarot.errors import TarotError

Step = Callable[[], object]
_HINT = "open the edit where the model runs, or give each thread its own model"


class Patch(AbstractContextManager["Patch"]):
    """Changes of a model that begin together and end with the context.

    Enter the patch, prepare its changes, then `apply` them. A patch is entered once. Patches nest. Patches with hooks
    only may be closed in any order. Patches that replace attributes of the same modules are closed in the reverse order
    of their opening. The module docstring says what is safe with threads.

    Args:
        module: the first of the modules that are changed; it is marked while the patch is open.
        scope: modules which, with all they contain, no other thread or task may have patched.

    Raises:
        TarotError: on entry, if another thread or task has patched a module in scope; on exit, if a patch of the same
            modules was opened later and is still open. The patch then stays open; close it after that one.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> with Patch(layer) as patch:
        ...     patch.after(layer, lambda module, args, out: out * 0)
        ...     patch.apply()
        ...     output = layer(torch.ones(1, 2))
        >>> output.count_nonzero().item()
        0
    """

    def __init__(self, module: nn.Module, *scope: nn.Module) -> None:
        self._scope = (module, *scope)
        self._state = _State(weakref.ref(self))
        self._state.insert(module._forward_pre_hooks, None)
        self._beneath: list[Patch] = []
        weakref.finalize(self, self._state.undo).atexit = False

    def before(self, module: nn.Module, hook: Callable[..., Any], *, with_kwargs: bool = False) -> None:
        """Prepare a forward pre-hook of `module`, which may be given the keyword arguments too."""
        key = self._state.insert(module._forward_pre_hooks, hook)
        if with_kwargs:
            self._state.mark(module._forward_pre_hooks_with_kwargs, key)

    def after(self, module: nn.Module, hook: Callable[..., Any]) -> None:
        """Prepare a forward hook of `module`."""
        self._state.insert(module._forward_hooks, hook)

    def replace(self, module: nn.Module, owner: object, name: str, value: object) -> None:
        """Prepare `owner.name = value`, where `owner` is `module` or belongs to it."""
        self.step(module, *_make_assignment(owner, name, value))

    def step(self, module: nn.Module, apply: Step, undo: Step) -> None:
        """Prepare a change of `module`; `undo` may run more than once."""
        self._state.replace(module, apply, undo)

    def apply(self) -> None:
        """Make the prepared changes."""
        self._state.run_prepared()

    @property
    def is_open(self) -> bool:
        """Whether the patch is in the model."""
        return self._state.is_open

    @property
    def is_nested(self) -> bool:
        """Whether it was opened inside another patch."""
        return bool(self._beneath)

    def __enter__(self) -> "Patch":
        try:
            # Mark the module before looking for others: of two threads that enter at once, at least one is refused.
            self._state.run_prepared()
            others = [state for state in _open_states(self._scope) if state is not self._state]
            if any(state.is_foreign for state in others):
                raise TarotError("Another thread or task has edited this model.", hint=_HINT)
            # Keep them alive while this patch is open, so that garbage collection closes them in order.
            self._beneath = [patch for state in others if (patch := state.patch()) is not None]
            return self
        except BaseException:
            self._state.undo()
            raise

    def __exit__(self, *exception: object) -> None:
        try:
            if self._state.is_covered:
                raise TarotError(
                    "A later edit of the same weights is still open.",
                    hint="close edits in reverse order, the last first",
                )
            self._state.undo()
        except BaseException:
            self._state.undo()
            raise
        self._beneath = []


@contextmanager
def unpatched(module: nn.Module, *scope: nn.Module) -> Iterator[None]:
    """Keep every thread from patching a model while the body changes it permanently.

    Args:
        module: the first of the modules that are changed.
        scope: as for `Patch`.

    Raises:
        TarotError: the model has an open patch, which would undo the change or act in addition to it.
    """
    with Patch(module, *scope) as patch:
        if patch.is_nested:
            raise TarotError("The model has an open edit.", hint="close it before changing the weights permanently")
        yield


def is_patched(module: nn.Module) -> bool:
    """Whether a patch of a module, or of one inside it, is open.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> with Patch(layer) as patch:
        ...     is_patched(nn.Sequential(layer))
        True
    """
    return any(True for _ in _open_states((module,)))


@contextmanager
def restoring(restore: Callable[[], object]) -> Iterator[None]:
    """Call `restore` when the body ends, and again if Ctrl-C interrupts that; the body first changes what it restores.

    For state that no `Patch` holds: training flags, settings of libraries, limits of the process.

    Example:
        >>> settings = {"verbose": True}
        >>> with restoring(lambda: settings.update(verbose=True)):
        ...     settings["verbose"] = False
        >>> settings
        {'verbose': True}
    """
    try:
        try:
            yield
        finally:
            restore()
    except BaseException:
        restore()
        raise


def run_at_once(steps: Iterable[Step]) -> None:
    """Run steps, which are implemented in C, within one bytecode instruction: no signal is handled between them."""
    deque(map(call, steps), maxlen=0)


class _State:
    """Changes of a patch. The model refers to this object, so it must not keep the patch alive."""

    def __init__(self, patch: "weakref.ref[Patch]") -> None:
        self.patch = patch
        self._prepared: list[Step] = []
        self._undo: list[Step] = []
        self._thread, self._task = threading.current_thread(), _current_task()
        self._first: tuple[MutableMapping[int, Any], int] | None = None
        self._replaced: dict[nn.Module, int] = {}

    def insert(self, hooks: MutableMapping[int, Any], hook: Callable[..., Any] | None) -> int:
        """Prepare a hook, and return its key."""
        key = RemovableHandle(hooks).id
        self._first = self._first or (hooks, key)
        self._prepared.append(partial(setitem, hooks, key, _Hook(self, hook)))
        self._undo.insert(0, partial(hooks.pop, key, None))
        return key

    def mark(self, marks: MutableMapping[int, bool], key: int) -> None:
        """Prepare a mark of a hook."""
        self._prepared.append(partial(setitem, marks, key, True))
        self._undo.insert(0, partial(marks.pop, key, None))

    def replace(self, module: nn.Module, apply: Step, undo: Step) -> None:
        """Prepare a change of `module`, and mark the module."""
        if module not in self._replaced:
            self._replaced[module] = self.insert(module._forward_pre_hooks, None)
        self._prepared.append(apply)
        self._undo.insert(0, undo)

    @property
    def is_open(self) -> bool:
        """Whether the changes are in the model."""
        # The first hook goes in before all else, and comes out last.
        return self._first is not None and self._first[1] in self._first[0]

    @property
    def is_covered(self) -> bool:
        """Whether a patch that was opened later replaces attributes of the same modules."""
        if not self.is_open:
            return False
        for module, key in self._replaced.items():
            later = [
                hook.state
                for other, hook in module._forward_pre_hooks.items()
                if other > key and isinstance(hook, _Hook)
            ]
            if any(module in state._replaced for state in later if state is not self):
                return True
        return False

    @property
    def is_foreign(self) -> bool:
        """Whether another thread, or another asyncio task that is not done, opened the patch."""
        if threading.current_thread() is not self._thread:
            # On accelerators, autograd's own threads run a checkpointed part of the pass again.
            return torch._C._current_graph_task_id() == -1
        return self._task is not None and not self._task.done() and _current_task() is not self._task

    def run_prepared(self) -> None:
        """Make the prepared changes."""
        steps, self._prepared = self._prepared, []
        run_at_once(steps)

    def undo(self) -> None:
        """Undo all changes, unless a later patch covers them."""
        if self.is_open and not self.is_covered:
            run_at_once(self._undo)


class _Hook:
    """Hook that knows its patch; without a function it only marks the module."""

    def __init__(self, state: _State, hook: Callable[..., Any] | None) -> None:
        self.state = state
        self.hook = hook

    def __call__(self, *args: Any) -> Any:
        if self.state.is_foreign:
            raise TarotError(
                "Another thread or task has edited this model, which therefore cannot run here.", hint=_HINT
            )
        return self.hook(*args) if self.hook else None

    def __reduce__(self) -> NoReturn:
        raise TarotError("A model with an open edit cannot be copied or pickled.", hint="close it, or merge the edit")


def _make_assignment(owner: object, name: str, value: object) -> tuple[Step, Step]:
    """Return `owner.name = value` and its reverse, both in C; a module's own `__setattr__` is Python."""
    if not isinstance(owner, nn.Module):
        return partial(setattr, owner, name, value), partial(setattr, owner, name, getattr(owner, name))
    own = vars(owner)
    undo = partial(setitem, own, name, own[name]) if name in own else partial(own.pop, name, None)
    return partial(setitem, own, name, value), undo


def _open_states(scope: Iterable[nn.Module]) -> Iterator[_State]:
    """Yield the open patches on these modules and all they contain."""
    seen: set[_State] = set()
    for root in scope:
        for module in root.modules():
            if module._forward_pre_hooks or module._forward_hooks:
                for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
                    if isinstance(hook, _Hook) and hook.state not in seen:
                        seen.add(hook.state)
                        yield hook.state


def _current_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None
