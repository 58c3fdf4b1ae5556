"""Which stage annotates (promote, roll back), which stages it was learned from, and the number of the next one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from canal.errors import RegistryError
from canal.model.record import IMPORTED, RENAMED, StageRecord
from canal.registry.registry import Registry
from canal.stages.layout import Layout, open_registry


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """Which stage annotates now, and which did before.

    Attributes
    ----------
    record
        Record of the stage in use now.
    before
        Number of the stage that was in use, ``None`` if none was.
    """

    record: StageRecord
    before: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "champion": self.record.number,
            "name": self.record.name,
            "version": self.record.version,
            "before": self.before,
            "changed": self.before != self.record.number,
        }


def promote(layout: Layout, number: int) -> Promotion:
    """Bring a stage into use: it annotates from now on.

    Raises
    ------
    RegistryError
        If there is no such stage, or its files are missing or altered; nothing is changed then.
    """
    with open_registry(layout).writing() as registry:
        return _promote(registry, registry.record(number))


def roll_back(layout: Layout) -> Promotion:
    """Bring the parent of the stage in use into use again.

    Raises
    ------
    RegistryError
        If no stage is in use, it has no parent, or the parent cannot be used; nothing is changed then.
    """
    with open_registry(layout).writing() as registry:
        return _promote(registry, _parent(registry))


def _parent(registry: Registry) -> StageRecord:
    """Return the record of the parent of the stage in use."""
    record = registry.record()
    if record.parent is None:
        message = (
            f"Stage {record.number} ({record.name}) is in use and the first of its line: there is none before it to "
            "go back to. Choose another with `canal stage promote N`; `canal stage list` shows them."
        )
        raise RegistryError(message)
    known = [r.number for r in registry.records()]
    if record.parent not in known:
        message = (
            f"Stage {record.number} ({record.name}) came from stage {record.parent}, which does not exist any more. "
            f"Stages: {', '.join(map(str, known))}. Choose one of them: canal stage promote N."
        )
        raise RegistryError(message)
    return registry.record(record.parent)


def _promote(registry: Registry, record: StageRecord) -> Promotion:
    """Bring a stage into use, once its files are known to be whole."""
    # Every file is compared with its hash: a stage that cannot be loaded must not come into use.
    registry.artifacts(record)
    before = registry.champion()
    return Promotion(record=registry.set_champion(record.number), before=before)


def lineage(records: Sequence[StageRecord], number: int, *, without_removed: bool = False) -> list[int]:
    """Return the numbers of a stage and of all stages it was learned from, the first stage first.

    Parameters
    ----------
    records
        All stages.
    number
        The last stage of the lineage.
    without_removed
        Leave out stages that a later one of the lineage took out of the model.
    """
    by_number = {record.number: record for record in records}
    line: list[int] = []
    removed: set[int] = set()
    # From parent to parent; a parent that does not exist any more ends the lineage.
    current: int | None = number
    while current is not None and current in by_number and current not in line:
        record = by_number[current]
        line.append(current)
        # The removals of an imported stage are numbered as in the registry it came from: they mean nothing here.
        if IMPORTED not in record.notes:
            removed.update(int(n) for n in record.notes.get("removed", ()))
        current = record.parent
    line.reverse()
    return [n for n in line if n not in removed] if without_removed else line


def renamed_since(records: Sequence[StageRecord], number: int) -> dict[int, dict[str, str]]:
    """Return how the types that each stage of a lineage taught are called in its last stage, where they were renamed.

    Parameters
    ----------
    records
        All stages.
    number
        The last stage of the lineage.

    Returns
    -------
    For each stage before a renaming: the name of then, and the name in stage ``number``.
    """
    by_number = {record.number: record for record in records}
    line = lineage(records, number)
    names: dict[int, dict[str, str]] = {}
    for position, current in enumerate(line):
        record = by_number[current]
        # The renamings of an imported stage happened in the registry it comes from: its types have the new names.
        new = {} if IMPORTED in record.notes else dict(record.notes.get(RENAMED, {}))
        if not new:
            continue
        for earlier in line[:position]:
            before = names.setdefault(earlier, {})
            for old, middle in before.items():
                before[old] = new.get(middle, middle)
            for old, name in new.items():
                before.setdefault(old, name)
    return names


def next_number(records: Sequence[StageRecord]) -> int:
    """Return the number of the next stage; a number that was used is never used again."""
    return max((record.number for record in records), default=0) + 1
