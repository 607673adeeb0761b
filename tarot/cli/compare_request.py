"""What `tarot compare` was asked for, whatever its adapters were tuned for."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tarot.cli.console import out

if TYPE_CHECKING:
    from tarot.edit.adapter import Adapter


@dataclass(frozen=True)
class CompareRequest:
    """Adapters and options of one command.

    Attributes:
        edits: adapters by their reference.
        controls: adapters of other searches.
        include_path: folder of further task files.
        limit: evaluate only the first documents: a number, or a fraction below 1.
        batch_size: largest number of sequences in a forward pass.
        output: file of the comparisons.
        logs: folder for a log of each arm.
        num_fewshot: shots of the few-shot arm.
        draws: number of draws of its shots.
        baselines: further arms.
        metric: what the tables show.
        reward: scores the texts; None for the adapter's own.
    """

    edits: "Mapping[str, Adapter]"
    controls: "Mapping[str, Adapter]"
    include_path: Path | None
    limit: float | None
    batch_size: int | None
    output: Path | None
    logs: Path | None
    num_fewshot: int
    draws: int
    baselines: tuple[str, ...]
    metric: str
    reward: str | None

    def print_logs(self) -> None:
        """Print the command that shows the logs, if there are any."""
        if self.logs:
            out.print(f"logs of each arm: inspect view --log-dir {shlex.quote(str(self.logs))}")
