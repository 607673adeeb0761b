"""Hidden states below the first edited layer, which no edit changes: computed once, and put in from then on.

    forward(ids) = upper(lower(ids)),    lower(ids) remembered for each pass

A search scores the same prompts hundreds of times and edits only the layers from some layer on. What the layers below
make of a prompt is kept, and they are passed over.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from tarot.edit.patch import Patch


class FrozenLayerCache:
    """What the last of some lower layers hands on, remembered by pass.

    Models whose layers return more than hidden states are left to run them: nothing is remembered then.

    Args:
        lower: the model's first decoder layers, in order. Nothing may change them, nor what they are given in passes
            of the same key.
    """

    def __init__(self, lower: Sequence[nn.Module]) -> None:
        self._lower = tuple(lower)
        self._states: dict[Hashable, Tensor] = {}

    def knows(self, key: Hashable) -> bool:
        """Whether a pass of this key needs no lower layers any more."""
        return key in self._states

    @contextmanager
    def passing(self, key: Hashable) -> Iterator[None]:
        """Around one forward pass of the model: remembers its hidden states, or passes over the lower layers.

        A pass that fails is forgotten.
        """
        if not self._lower:
            yield
            return
        with Patch(*self._lower) as patch:
            if self.knows(key):
                for layer in self._lower:
                    patch.replace(layer, layer, "forward", _handing_on(self._states[key]))
            else:
                patch.after(self._lower[-1], self._remembering(key))
            patch.apply()
            try:
                yield
            except BaseException:
                self._states.pop(key, None)  # the pass has no result, so nothing goes on from there
                raise

    def _remembering(self, key: Hashable) -> Callable[[nn.Module, object, object], None]:
        def remember(module: nn.Module, args: object, output: object) -> None:
            if isinstance(output, Tensor):
                self._states[key] = output.detach()

        return remember


def _handing_on(states: Tensor) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: states
