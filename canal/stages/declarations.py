"""From what was kept of a stage back to the request that led to it: what it was learned from, and how.

Two sources: the record of a committed stage, and its declaration ``stages/NNN-name.toml``, which outlives the registry.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from canal.config import Preset, parse_preset
from canal.data.reading_rules import ReadingRules
from canal.errors import StageError
from canal.files import refuse_newer
from canal.model.record import RENAMED, StageRecord
from canal.stages.request import StageRequest

SCHEMA = 1  # of the declarations; a higher one was written by a newer canal


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
    return _request_of(
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


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The content of one declaration.

    Attributes
    ----------
    number, name, parent
        Of the stage.
    request
        How it was learned; ``None`` where it was not learned from cells, or these stand in no file.
    removed
        Number of the stage that it took out, if it is the result of a removal.
    renamed
        New names of types by the old ones, if it renamed or merged some.
    imported
        Digest of the export it came from, if it was imported.
    preset
        Every value of its preset.
    digest
        Digest of its cells.
    artifacts
        Digest of every file that it left behind, by name.
    canal
        Version of canal that learned it.
    reason
        Why it can never be learned again; empty where it can.
    """

    number: int
    name: str
    parent: int | None
    request: StageRequest | None
    removed: int | None
    renamed: dict[str, str] | None
    imported: str | None
    preset: dict[str, Any]
    digest: str
    artifacts: dict[str, str]
    canal: str
    reason: str = ""


def read_declarations(folder: Path) -> list[Declaration]:
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
    # By what the files say, not by their names: a copy under another name is found out.
    declarations = sorted((_parse(path) for path in paths), key=lambda declaration: declaration.number)
    numbers = [declaration.number for declaration in declarations]
    if len(set(numbers)) < len(numbers):
        message = (
            f"{folder} declares the stages {', '.join(map(str, numbers))}; expected each number once. "
            "Take out those that are there twice."
        )
        raise StageError(message)
    return declarations


def _parse(path: Path) -> Declaration:
    """Read one declaration."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        # A newer file is told from a damaged one.
        refuse_newer(path, table["schema"], SCHEMA, StageError)
        stage, options = table["stage"], table["options"]
        # A stage was imported, or took another stage out, or renamed types, or was learned from cells.
        imported, removed = options.get("imported", {}).get("digest"), options.get("removed", [None])[0]
        source: Mapping[str, Any] = {}
        request, reason = None, ""
        renamed = options.get(RENAMED)
        if imported is None and removed is None and not renamed:
            source = table["data"][0]
            request, reason = _request_or_reason(table, source)
        return Declaration(
            number=int(stage["number"]),
            name=str(stage["name"]),
            parent=stage.get("parent"),
            request=request,
            # The removals of an imported stage happened in the registry it came from.
            removed=None if imported is not None else removed,
            renamed=dict(renamed) if renamed and imported is None else None,
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


def _request_or_reason(table: Mapping[str, Any], source: Mapping[str, Any]) -> tuple[StageRequest | None, str]:
    """Return the request of a declaration, or ``None`` and why there is none."""
    stage, options = table["stage"], table["options"]
    try:
        request = _request_of(
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


def _request_of(
    *, number: int, name: str, seed: int, preset: str, source: Mapping[str, Any], options: Mapping[str, Any]
) -> StageRequest:
    """Return the request that led to a stage, from what `recorded_source` and `recorded_options` gave.

    Raises
    ------
    StageError
        If the cells were given in memory and stand in no file.
    """
    # Records from before the absolute path was kept have the path as it was given.
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
        label_map=_label_map(options.get("label_map")),
        drop_labels=tuple(options.get("drop_labels", ())),
        # Records from before labels were left out by name took every label for a type.
        keep_labels=tuple(options.get("keep_labels", ("*",))),
        rules=_rules(options),
        gene_key=source.get("gene_key_given"),
        test=_path(options.get("test")),
        weights=(options.get("weights") or {}).get("folder"),
        ontology=options.get("ontology_from"),
        split=options.get("split"),
    )


def _rules(options: Mapping[str, Any]) -> ReadingRules:
    """Return the rules by which the file was read; older records do not name them."""
    if "reading" in options:
        return ReadingRules(int(options["reading"]))
    return ReadingRules.SPELLING if "keep_labels" in options else ReadingRules.FIRST


def _label_map(value: Any) -> Path | dict[str, str] | None:
    return dict(value) if isinstance(value, Mapping) else _path(value)


def _path(value: Any) -> Path | None:
    return Path(value) if value else None
