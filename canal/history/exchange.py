"""A stage that leaves its registry as one file, and comes into another, or annotates without any."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from canal.errors import RegistryError
from canal.model.record import IMPORTED, STAGE_KEYS, StageRecord
from canal.registry.flavour import without_flavour
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
        If the export is damaged, of a newer canal or holds other files than a stage has, or the same model is a stage
        already; nothing is changed then.
    """
    layout.require(or_vacant=True)
    with open_package(path) as package:
        # What could not be annotated with is not taken in: every part is read, and the network made.
        model = package.load()
        _ = model.network if model.is_taught else None
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
    number = next_number(records) if number is None else number
    # All that the model holds belongs to one stage here: what its registry noted of its own stages says nothing here.
    notes = {key: value for key, value in source.notes.items() if key != STAGE_KEYS}
    record = source.with_fields(
        number=number,
        name=name or source.name,
        parent=None,
        new_types=source.types,
        metrics=_metrics_here(source, number),
        notes=notes | {IMPORTED: origin},
    )
    draft = registry.draft(f"import-{package.digest.removeprefix('sha256:')[:16]}")
    # What MLflow reads is written anew with the commit: nothing of the package tells it what to load.
    files = {n: package.folder / n for n in without_flavour(source.artifacts)}
    first = registry.champion() is None
    return draft.commit(record, files, promote=first), first


def _metrics_here(source: StageRecord, number: int) -> dict[str, float]:
    """Return the figures of an imported stage, those on its own cells under its number here.

    Figures on the cells of other stages stay out: the numbers of these are other stages' here.
    """
    own = f"test/{source.number}/"
    metrics = {}
    for name, value in source.metrics.items():
        if name.startswith(own):
            metrics[f"test/{number}/{name.removeprefix(own)}"] = value
        elif not name.startswith("test/"):
            metrics[name] = value
    return metrics


def _refuse_again(records: Sequence[StageRecord], package: Package) -> None:
    files = without_flavour(package.record.artifacts)
    for record in records:
        if without_flavour(record.artifacts) == files:
            message = (
                f"The same model is stage {record.number} ({record.name}) already: no file differs. "
                f"Use that one: canal stage promote {record.number}."
            )
            raise RegistryError(message)
