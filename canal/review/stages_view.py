"""The stages of the workspace as a review shows them: which annotates and why, and what a roll back would do."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from canal.model.record import StageRecord
from canal.review.values import StagesView
from canal.workspace import Workspace

if TYPE_CHECKING:
    from canal.compare.report import StageRow


def stages_view(workspace: Workspace) -> StagesView:
    """Return the stages of a workspace; see `StagesView`."""
    records = {record.number: record for record in workspace.stages()}
    in_use = workspace.champion()
    report = workspace.compare()
    stages = []
    for row in report.stages:
        stages.append(_row(row, records[row.number], in_use))
    record = records.get(in_use) if in_use is not None else None
    untested = [int(entry["set"]) for entry in report.untested if entry["stage"] == in_use]
    return StagesView(
        in_use=in_use,
        why=why_in_use(record, records, untested),
        stages=tuple(stages),
        compare=report.to_dict(),
        rollback_to=record.parent if record is not None and record.parent in records else None,
    )


def _row(row: "StageRow", record: StageRecord, in_use: int | None) -> dict[str, Any]:
    return {
        "number": row.number,
        "name": row.name,
        "parent": row.parent,
        "created": row.created,
        "in_use": row.in_use,
        # Later than the stage in use: it can be brought into use.
        "candidate": in_use is not None and row.number > in_use,
        "held_back": row.held_back,
        "types": row.types,
        "new_types": list(row.new_types),
        "cells": row.cells,
        "average": row.average,
        "forgetting": row.forgetting,
        "removed": list(record.notes.get("removed") or ()),
    }


def why_in_use(record: StageRecord | None, records: Mapping[int, StageRecord], untested: Sequence[int]) -> str:
    """Return a sentence on how a stage came into use.

    Parameters
    ----------
    record
        Of the stage in use.
    records
        Of all stages, by number.
    untested
        Stages whose held-out cells it was not tested on.
    """
    if record is None:
        return "No stage is in use: teach one, or promote one."
    if held_back := record.notes.get("held_back"):
        why = f"Somebody brought it into use although the rule of promotion held it back: {held_back}"
    elif record.parent is None:
        why = "It is the first of its line."
    else:
        why = (
            f"The rule of promotion does not hold it back: on the held-out cells that it was tested on, it is not "
            f"clearly worse than stage {record.parent}, which it was learned from."
        )
        if untested:
            why += f" It was not tested on those of stage {', '.join(map(str, untested))}."
    later = [number for number in sorted(records) if number > record.number]
    if later:
        why += f" Later stages are kept and not in use: {', '.join(map(str, later))}."
    return why
