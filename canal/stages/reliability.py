"""How well the confidence of each stage's model met its accuracy: kept as ``reliability.json`` and drawn beside it."""

import json
from pathlib import Path

from canal.detect.reliability import Reliability
from canal.errors import RegistryError
from canal.registry.record import StageRecord
from canal.registry.registry import Registry
from canal.report.reliability import reliability_figure

FILE, PICTURE = "reliability.json", "reliability.svg"


def write_reliability(found: Reliability, title: str, folder: Path) -> dict[str, Path]:
    """Write figures and picture of a stage into a folder and return them by name."""
    (folder / FILE).write_text(json.dumps(found.to_dict()), encoding="utf-8")
    (folder / PICTURE).write_text(reliability_figure([(title, found)]), encoding="utf-8")
    return {name: folder / name for name in (FILE, PICTURE)}


def read_reliability(registry: Registry, record: StageRecord) -> Reliability | None:
    """Return what was kept of a committed stage; ``None`` for one that held out no cell, or of an older canal.

    Raises
    ------
    RegistryError
        If the file is missing, altered, or of a newer canal.
    """
    path = registry.file(record, FILE)
    if path is None:
        return None
    try:
        return Reliability.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path} does not hold the reliability of a stage: {error}. Restore it from a backup."
        raise RegistryError(message) from error
