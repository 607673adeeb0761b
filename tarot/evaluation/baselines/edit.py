"""Protocol of the edits that model-changing baselines make."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from transformers import PreTrainedModel


@runtime_checkable
class BaselineEdit(Protocol):
    """A change of a model that `tarot.evaluate` accepts in place of an adapter."""

    @property
    def provenance(self) -> Mapping[str, object]:
        """The origin of the change, as plain JSON values."""

    @property
    def stored_bytes(self) -> int:
        """Bytes that the method has to store."""

    @property
    def fingerprint(self) -> str:
        """Digest of the change."""

    def apply(self, model: PreTrainedModel) -> AbstractContextManager[PreTrainedModel]:
        """Change a model while the context is open."""
