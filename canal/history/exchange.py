"""A stage that leaves its registry as one file, and comes into another, or annotates without any."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from canal.errors import RegistryError
from canal.model.record import StageRecord
from canal.registry.package import Package, open_package
from canal.registry.registry import Registry
from canal.stages.layout import Layout, open_registry
from canal.stages.use import next_number

if TYPE_CHECKING:
    pass


def export_stage(layout: Layout, number: int, path: Path) -> tuple[StageRecord, int]:
    """Write a stage to one file; return its record and the file's size in bytes.

    Raises
    ------
    RegistryError
        If there is no such stage, it is damaged, or the file exists or cannot be written.
    """
    return open_registry(layout).export(number, path)


def import_stage(
    layout: Layout, path: Path, name: str | None = None, *, number: int | None = None
) -> tuple[StageRecord, bool]:
    """Take the stage of an export into the registry, as the next stage, with no parent.

    The first stage of a registry annotates; another one waits for ``canal stage promote``.

    Parameters
    ----------
    layout
        The workspace; an empty or new folder becomes one.
    path
        The export.
    name
        Name of the stage here; the one it had by default.
    number
        Its number here; the next by default. Only a replay, which may have gaps, names one.

    Returns
    -------
    The record, and whether it annotates.

    Raises
    ------
    RegistryError
        If the export is damaged or of a newer canal, or the same model is a stage already; nothing is changed then.
    """
    layout.require(or_vacant=True)
    with open_package(path) as package:
        layout = Layout.init(layout.root, layout.server)
        with open_registry(layout, create=True).writing() as registry:
            return _take_in(registry, package, name, number)


def _take_in(registry: Registry, package: Package, name: str | None, number: int | None) -> tuple[StageRecord, bool]:
    records = registry.records()
    _refuse_again(records, package)
    source = package.record
    origin = {
        "model": package.model,
        "stage": source.number,
        "name": source.name,
        "digest": package.digest,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    record = source.with_fields(
        number=next_number(records) if number is None else number,
        name=name or source.name,
        parent=None,
        new_types=source.types,
        notes=source.notes | {"imported": origin},
    )
    draft = registry.draft(f"import-{package.digest.removeprefix('sha256:')[:16]}")
    files = {n: package.folder / n for n in source.artifacts}
    first = registry.champion() is None
    return draft.commit(record, files, promote=first), first


def _refuse_again(records: Sequence[StageRecord], package: Package) -> None:
    for record in records:
        if record.artifacts == package.record.artifacts:
            message = (
                f"The same model is stage {record.number} ({record.name}) already: no file differs. "
                f"Use that one: canal stage promote {record.number}."
            )
            raise RegistryError(message)
