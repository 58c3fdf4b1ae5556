"""A request as it goes into the record of a stage, and back again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from canal.config import Preset, parse_preset
from canal.errors import StageError
from canal.registry.record import StageRecord
from canal.stages.request import StageRequest


def source_of(request: StageRequest) -> dict[str, Any]:
    """Return where the cells of a request are and how they are read, for the record's ``data``."""
    file = _absolute(request.data) if isinstance(request.data, str | Path) else None
    return {"file": file, "labels": request.labels, "gene_key_given": request.gene_key}


def options_of(request: StageRequest) -> dict[str, Any]:
    """Return the other options of a request, for the record's ``notes``."""
    return {
        "overrides": list(request.overrides),
        "label_map": _absolute(request.label_map) if request.label_map else None,
        "drop_rare": request.drop_rare,
        "test": _absolute(request.test) if request.test else None,
    }


def declared_request(
    *, number: int, name: str, seed: int, preset: str, source: Mapping[str, Any], options: Mapping[str, Any]
) -> StageRequest:
    """Return the request that led to a stage.

    Parameters
    ----------
    number, name, seed
        Of the stage.
    preset
        Name or path of a preset that holds every value.
    source, options
        What `source_of` and `options_of` gave.

    Raises
    ------
    StageError
        If its cells were in memory and stand in no file.
    """
    # Stages from before the absolute path was kept have the path as it was named.
    file = source.get("file") or source.get("path")
    if not file or ("file" in source and source["file"] is None) or file == "AnnData":
        message = f"The cells of stage {number} ({name}) were given in memory: there is no file to read them from."
        raise StageError(message)
    return StageRequest(
        data=Path(file),
        labels=str(source["labels"]),
        name=name,
        preset=preset,
        seed=seed,
        again=True,
        drop_rare=bool(options.get("drop_rare", False)),
        label_map=_path(options.get("label_map")),
        gene_key=source.get("gene_key_given"),
        test=_path(options.get("test")),
        weights=(options.get("weights") or {}).get("folder"),
    )


def recorded_request(record: StageRecord) -> StageRequest:
    """Return the request that led to a committed stage; its preset stands in the record.

    Raises
    ------
    StageError
        If it was learned from no file.
    """
    if not record.data:
        message = f"Stage {record.number} ({record.name}) was learned from no file."
        raise StageError(message)
    return declared_request(
        number=record.number,
        name=record.name,
        seed=record.seed,
        preset=str(record.preset.get("name")),
        source=record.data[0],
        options=record.notes,
    )


def recorded_preset(record: StageRecord) -> Preset:
    """Return the preset of a committed stage."""
    return parse_preset(record.preset, f"the record of stage {record.number}")


def _absolute(path: str | Path) -> str:
    return str(Path(path).absolute())


def _path(value: Any) -> Path | None:
    return Path(value) if value else None
