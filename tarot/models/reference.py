"""References to models: whether one names a model, without loading it."""

from pathlib import Path

from tarot.models.gguf import check_gguf_file
from tarot.models.hub_cache import find_model
from tarot.models.wheels import installed_wheel


def check_reference(reference: str) -> None:
    """Check that a hub id, folder, `PATH.gguf` or `wheel:NAME` names a model; nothing is loaded or downloaded.

    Raises:
        UnknownName: No wheel has that name.
        TarotError: The wheel is not installed, the file is no GGUF file, or the hub has no such model.

    Example:
        >>> check_reference("wheel:smollm2-135m")
    """
    kind, _, name = reference.partition(":")
    path = Path(reference).expanduser()
    if kind == "wheel":
        installed_wheel(name)
    elif path.suffix.lower() == ".gguf":
        check_gguf_file(path)
    elif not path.is_dir():
        find_model(reference)
