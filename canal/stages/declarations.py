"""A request as it goes into the record of a stage, and back again.

The declarations of a workspace, ``stages/NNN-name.toml``, read back: what each stage was learned from and how.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from canal.config import Preset, parse_preset
from canal.errors import StageError
from canal.model.record import StageRecord
from canal.stages.request import StageRequest


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


def _path(value: Any) -> Path | None:
    return Path(value) if value else None


SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What one declaration says.

    Attributes
    ----------
    number, name, parent
        Of the stage.
    request
        How it was learned; ``None`` where it was not, or its cells stand in no file.
    removed
        The stage it took out, where it did.
    imported
        Digest of the export it came from, where it did.
    preset
        Every value of its preset.
    digest
        Of its cells.
    artifacts
        Digest of every file that came of it, by name.
    canal
        Version that learned it.
    reason
        Why it can never be learned again; empty where it can.
    """

    number: int
    name: str
    parent: int | None
    request: StageRequest | None
    removed: int | None
    imported: str | None
    preset: dict[str, Any]
    digest: str
    artifacts: dict[str, str]
    canal: str
    reason: str = ""


def read_declarations(folder: Path) -> list[Declared]:
    """Read all declarations of a folder, by number.

    Raises
    ------
    StageError
        If there is none, one does not fit, or a number is there twice.
    """
    paths = sorted(folder.glob("*.toml")) if folder.is_dir() else []
    if not paths:
        message = f"{folder} holds no declarations; expected files like 001-name.toml, as in a workspace's stages/."
        raise StageError(message)
    found = sorted((_parse(path) for path in paths), key=lambda d: d.number)
    numbers = [d.number for d in found]
    if len(set(numbers)) < len(numbers):
        message = (
            f"{folder} declares the stages {', '.join(map(str, numbers))}; expected each number once. "
            "Take out those that are there twice."
        )
        raise StageError(message)
    return found


def _parse(path: Path) -> Declared:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if table["schema"] > SCHEMA:
            message = f"{path} was written by a newer canal (schema {table['schema']}); update canal to replay it."
            raise StageError(message)
        stage, options = table["stage"], table["options"]
        removed, imported = options.get("removed", [None])[0], options.get("imported", {}).get("digest")
        source = {} if removed is not None or imported is not None else table["data"][0]
        request, reason = _request(table, source) if source else (None, "")
        return Declared(
            number=int(stage["number"]),
            name=str(stage["name"]),
            parent=stage.get("parent"),
            request=request,
            removed=None if imported is not None else removed,
            imported=imported,
            preset=table["preset"],
            digest=str(source.get("digest", "")),
            artifacts=dict(table["outcome"]["artifacts"]),
            canal=str(stage["canal"]),
            reason=reason,
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        message = f"{path} is not the declaration of a stage ({error!r}). Put it back from a backup."
        raise StageError(message) from error


def _request(table: Mapping[str, Any], source: Mapping[str, Any]) -> tuple[StageRequest | None, str]:
    """Return the request, or why there is none."""
    stage, options = table["stage"], table["options"]
    try:
        request = declared_request(
            number=int(stage["number"]),
            name=str(stage["name"]),
            seed=int(stage["seed"]),
            preset=str(table["preset"]["name"]),
            source=source,
            options=options,
        )
    except StageError as error:
        return None, str(error)
    return replace(request, overrides=tuple(options.get("overrides", ()))), ""
