"""Pictures of the mechanism: what an edit changes inside the model, layer by layer and head by head."""

from tarot.analysis.folder import analyse
from tarot.analysis.heads import HeadMaps, Pruned, check_keep, head_maps, prune
from tarot.analysis.protocol import check_tuned, documents, objective_of, pruned

__all__ = [
    "HeadMaps",
    "Pruned",
    "analyse",
    "check_keep",
    "check_tuned",
    "documents",
    "head_maps",
    "objective_of",
    "prune",
    "pruned",
]
