"""A stage in progress: a working folder that outlives a kill."""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from canal.registry.record import StageRecord

_EPOCHS = "epochs.jsonl"


class Committer(Protocol):
    """What a registry does to commit a draft."""

    def __call__(
        self,
        draft: "StageDraft",
        record: StageRecord,
        files: Mapping[str, Path],
        declarations: Path | None,
        *,
        promote: bool,
    ) -> StageRecord:
        """Commit the stage whole, or leave the registry as it was."""


class StageDraft:
    """The working folder of one stage; nobody sees it in the registry.

    Attributes
    ----------
    key
        Names what is being learned; the same key finds the same folder again.
    folder
        Belongs to the caller: checkpoints, files to be. Names that begin with a dot are the draft's.
    """

    def __init__(self, folder: Path, key: str, commit: Committer) -> None:
        self.folder, self.key = folder, key
        self._commit = commit
        self.folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Forget everything so far: the stage begins anew."""
        shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)

    def log_epoch(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the figures of an epoch for the curves; an epoch told twice counts once."""
        line = {"step": step, "time": int(time.time() * 1000), "metrics": dict(metrics)}
        with (self.folder / _EPOCHS).open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(line, default=float))  # ends a line that a kill cut off

    def epochs(self) -> list[tuple[str, float, int, int]]:
        """Return the curves: name, value, time in ms, step; a half-written last line is left out."""
        path = self.folder / _EPOCHS
        curves: dict[tuple[str, int], tuple[float, int]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                found = json.loads(line)
            except ValueError:
                continue  # the process was killed while it wrote this line
            for name, value in found["metrics"].items():
                curves[name, found["step"]] = (value, found["time"])
        return [(name, value, ms, step) for (name, step), (value, ms) in curves.items()]

    def commit(
        self,
        record: StageRecord,
        files: Mapping[str, Path],
        declarations: Path | None = None,
        *,
        promote: bool = True,
    ) -> StageRecord:
        """Commit the stage whole, or leave the registry as it was; the folder is gone after it.

        Parameters
        ----------
        record
            All but ``version``, ``run_id`` and ``artifacts``, which are filled in.
        files
            Files of the model by the names they are kept under.
        declarations
            Folder of ``NNN-name.toml``; the workspace's ``stages/`` by default.
        promote
            Make it the champion; a candidate otherwise.

        Raises
        ------
        RegistryError
            If the number is taken, a file is missing, or the registry refuses.
        """
        return self._commit(self, record, files, declarations, promote=promote)
