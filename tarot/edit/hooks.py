"""Edit a model by hooks while a context is open: z' = z R(angles) at every site.

Source: Singh, Dutta and Chakraborty, "Mechanistic Behavior Editing of Language Models", arXiv 2410.04277.

Order of nested edits. Only edits that do not commute depend on it: two `Givens`, or two rotations of different
families. On one site,

- hooks act in the order in which their contexts were entered: `z R_first R_second`;
- merged edits wrap the projection: the later one is further from its weight. On the input of a projection (heads) it
  acts first, `z R_second R_first W^T`; on the output (MLPs) it acts last, `x W^T R_first R_second`;
- hooks are further from the weight than every merged edit, also one that was merged after the hooks were added.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from tarot.edit.context import Angles, EditContext, SiteAngles, angles_by_site
from tarot.edit.gate import GateState, PromptGate, find_gate
from tarot.edit.patch import Patch
from tarot.edit.rotation import ROTARY, Rotation
from tarot.edit.sites import Site
from tarot.errors import InvalidValueError, TarotError

Turn = Callable[[Tensor], Tensor]


class apply_rotation(EditContext):
    """Rotate the activations at every site while the context is open.

    The hooks are gone however the context is left, and no weight is touched. Contexts nest and may be closed in any
    order; the module docstring has the order in which nested edits act. Gradients reach `angles`. These are read on
    entry, so enter anew for each backward pass.

    Threads: see `tarot.edit.patch`. An edited model cannot be copied or pickled.

    Args:
        model: a causal language model of transformers.
        angles: radians, `site x head x angle`, as wide as the widest site; a narrower site ignores the rest of its row.
        sites: where to edit. Default: the heads of the first `len(angles)` layers.
        rotation: family that the angles belong to.
        gate: decides once a sequence whether the edit acts on it (`tarot.edit.gate`); None for always.

    Raises:
        ShapeMismatch: the angles or the gate do not fit the model.
        InvalidValueError: the angles are not finite, or the sites belong to another model.
        TarotError: on entry, if another thread or task has edited the model, or if another gated edit is open.

    Example:
        >>> sites = find_sites(model, "heads", [0, 1])
        >>> with apply_rotation(model, angles, sites):
        ...     output = model.generate(**tokenizer("Did Ed leave?", return_tensors="pt"), max_new_tokens=8)
    """

    def __init__(
        self,
        model: nn.Module,
        angles: Angles,
        sites: Sequence[Site] | None = None,
        rotation: Rotation = ROTARY,
        gate: PromptGate | None = None,
    ) -> None:
        super().__init__(model, angles, sites, rotation)
        self.gate = gate
        if gate:
            gate.check_fits(self._causal_model)

    def _prepare(self, patch: Patch) -> None:
        state = self._add_gate(patch, self.gate) if self.gate else None
        for site, angles in angles_by_site(self.angles, self.sites, self.rotation):
            # Zero angles need no hook, which would turn infinities into NaN, unless a gradient has to pass.
            if angles.requires_grad or angles.any():
                turn = _turn_site(site, angles, self.rotation)
                _hook(patch, site, _turn_open_rows(turn, state) if state else turn)

    @property
    def _causal_model(self) -> PreTrainedModel:
        """The model, which a gate runs; EditContext takes any module that has sites."""
        if not isinstance(self.model, PreTrainedModel):
            raise InvalidValueError("a model of transformers for a gated edit", type(self.model).__name__)
        return self.model

    def _add_gate(self, patch: Patch, gate: PromptGate) -> GateState:
        model = self._causal_model
        if find_gate(model):
            raise TarotError(
                "The model has an open gated edit, and a second gate would read an edited prompt.",
                hint="close it first",
            )
        state, decoder = GateState(model, gate), model.get_decoder()
        patch.before(decoder, state.before_pass, with_kwargs=True)
        patch.after(decoder, state.after_pass)
        return state


def _turn_site(site: Site, angles: SiteAngles, rotation: Rotation) -> Turn:
    """Return the function that edits what passes at a site."""
    turn = rotation.turn(angles, site.d_head)
    shape = (site.n_heads, site.d_head)
    return lambda z: turn(z.unflatten(-1, shape)).flatten(-2)


def _turn_open_rows(turn: Turn, state: GateState) -> Turn:
    """Return a function that edits only the rows for which the gate is open, and no number of the others."""
    return lambda z: z if state.is_closed else state.select(z, turn(z))


def _hook(patch: Patch, site: Site, turn: Turn) -> None:
    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return turn(args[0]), *args[1:]

    def after(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return turn(out)

    if site.side == "input":
        patch.before(site.module, before)
    else:
        patch.after(site.module, after)
