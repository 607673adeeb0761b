"""z' = z R: the edit applied to a model, by hooks while it runs or folded into its weights.

With `out = z W^T` (rows; `W` is `out x in`), editing a projection's input is the same as the weight `W R^T`, and
editing its output the same as `R^T W` with the bias `b R`. transformers' Conv1D keeps `W^T`.

Source of the edit: Singh, Dutta and Chakraborty, "Mechanistic Behavior Editing of Language Models", arXiv 2410.04277.
"""

from typing import Any

from torch import Tensor, nn

from tarot.edit.context import EditContext, SiteAngles, angles_by_site
from tarot.edit.patch import Patch
from tarot.edit.rotation import Rotation
from tarot.edit.sites import Site


class apply_rotation(EditContext):
    """z' = z R(angles) at every site, while the context is open.

    Args:
        model: a causal language model of transformers.
        angles: radians, `(site, head, angle)`, as wide as the widest site; a narrower site leaves the rest unread.
        sites: where; if not given, the heads of the first `len(angles)` layers.
        rotation: the family of R.

    Contexts nest, the first entered acting first; they may be closed in any order. However one is left, its hooks are
    gone and no weight was touched. Gradients reach `angles`, which are read on entering: enter anew for each backward
    pass.

    Only one thread, or one asyncio task, at a time edits a model: another one that opens an edit of the same model, or
    runs the model while the edit is open, gets a TarotError. Give each thread a model of its own. An edited model
    cannot be copied or pickled.

    Raises ShapeMismatch for angles of another shape, TarotError for angles that are not finite, sites of another model,
    or a model that another thread or task has edited.
    """

    def _prepare(self, patch: Patch) -> None:
        for site, angles in angles_by_site(self.angles, self.sites, self.rotation):
            # Zero angles leave even infinities alone, at no cost; but their gradient has to pass.
            if angles.requires_grad or angles.any():
                _hook(patch, site, angles, self.rotation)


def _hook(patch: Patch, site: Site, angles: SiteAngles, rotation: Rotation) -> None:
    turn = rotation.turn(angles, site.d_head)
    shape = (site.n_heads, site.d_head)

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return turn(args[0].unflatten(-1, shape)).flatten(-2), *args[1:]

    def after(_: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return turn(out.unflatten(-1, shape)).flatten(-2)

    if site.side == "input":
        patch.before(site.module, before)
    else:
        patch.after(site.module, after)
