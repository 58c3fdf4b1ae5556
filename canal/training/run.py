"""One training of a stage: its number, seed and working folder, and who watches it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from canal.progress import Progress, Silent


class Draft(Protocol):
    """The working folder of a stage in progress; it outlives a kill."""

    @property
    def folder(self) -> Path:
        """Folder for checkpoints and whatever is large."""

    @property
    def key(self) -> str:
        """Digest of all that decides the outcome: the same key, the same training."""

    def log_epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the figures of an epoch."""


@dataclass(frozen=True)
class ReceivedDraft:
    """The folder of a helper process: a checkpoint that the first process sent is read there, none is written."""

    folder: Path
    key: str

    def log_epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep nothing: the first process keeps the figures."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of a stage.

    Attributes
    ----------
    number
        Number of the stage.
    key
        Number under which the model is to keep what it learns; `learn_stage` finds it, see `canal.model.stage_keys`.
    seed
        Its recorded seed; every use of chance draws from a generator named after it.
    progress
        Who watches; told about every batch.
    draft
        Working folder for checkpoints and the figures of epochs; without one neither is kept.
    devices, nodes
        Processes of each node, and nodes, that share the training.
    """

    number: int
    seed: int
    progress: Progress = field(default_factory=Silent)
    draft: Draft | None = None
    devices: int = 1
    nodes: int = 1
    key: int | None = None

    @property
    def kept_under(self) -> int:
        """The key, which is the number of the stage but on top of an imported model."""
        return self.number if self.key is None else self.key

    def log_epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the figures of an epoch, where there is a place for them."""
        if self.draft is not None:
            self.draft.log_epoch(step, metrics)
