"""Frozen-layer cache: hidden states of the layers below the first edited one, computed once.

    forward(ids) = upper(lower(ids)),    lower(ids) stored for each pass

A search scores the same prompts hundreds of times and edits only some of the layers. The output of the frozen layers
below is stored at the first pass, and those layers are skipped from then on.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from tarot.edit.patch import Patch


class FrozenLayerCache:
    """Cache of the frozen layers' output, one entry a forward pass.

    Layers that return more than hidden states are not cached: they run in every pass.

    Args:
        lower: the model's first decoder layers, in order. They must not change, nor may their input in passes of the
            same key.
    """

    def __init__(self, lower: Sequence[nn.Module]) -> None:
        self._lower = tuple(lower)
        self._states: dict[Hashable, Tensor] = {}

    def knows(self, key: Hashable) -> bool:
        """Whether a pass of this key skips the frozen layers."""
        return key in self._states

    @contextmanager
    def passing(self, key: Hashable) -> Iterator[None]:
        """Store the hidden states of one forward pass of the model, or skip the frozen layers if they are known.

        Nothing is kept of a pass that fails.
        """
        if not self._lower:
            yield
            return
        with Patch(*self._lower) as patch:
            if self.knows(key):
                for layer in self._lower:
                    patch.replace(layer, layer, "forward", _return_states(self._states[key]))
            else:
                patch.after(self._lower[-1], self._store(key))
            patch.apply()
            try:
                yield
            except BaseException:
                self._states.pop(key, None)
                raise

    def _store(self, key: Hashable) -> Callable[[nn.Module, object, object], None]:
        def store(module: nn.Module, args: object, output: object) -> None:
            if isinstance(output, Tensor):
                self._states[key] = output.detach()

        return store


def _return_states(states: Tensor) -> Callable[..., Tensor]:
    """Return a layer's `forward` that gives stored states whatever its input."""
    return lambda *args, **kwargs: states
