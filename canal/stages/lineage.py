"""Which stages a stage was learned from, and which number the next one has."""

from collections.abc import Sequence

from canal.registry.record import StageRecord


def line_of(records: Sequence[StageRecord], number: int, *, without_removed: bool = False) -> list[int]:
    """Return the numbers of a stage and all it was learned from, the first stage first.

    Parameters
    ----------
    records
        All stages.
    number
        The last one of the line.
    without_removed
        Leave out stages that a later one of the line took out of the model.
    """
    by_number = {record.number: record for record in records}
    line: list[int] = []
    gone: set[int] = set()
    at: int | None = number
    while at is not None and at in by_number and at not in line:
        line.append(at)
        if "imported" not in by_number[at].notes:  # its numbers are those of the registry it came from
            gone |= {int(n) for n in by_number[at].notes.get("removed", ())}
        at = by_number[at].parent
    return [n for n in reversed(line) if not (without_removed and n in gone)]


def next_number(records: Sequence[StageRecord]) -> int:
    """Return the number of the next stage; a number that was used is never used again."""
    return max((record.number for record in records), default=0) + 1
