"""`canal stage remove N`: a new stage whose model holds nothing of the cells of stage N. No stage is deleted.

Exact: the analytic memory and the calibration of novelty hold nothing of stage N, and the example bank no cell of it.
The network is trained anew, from random weights, on the rest of the bank and on pseudo-cells drawn from the remaining
statistics. Nothing of stage N is in its weights, but it is not the network that would exist if stage N had never been
added. The gene panel and the temperature of the calibration stay as they are.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from canal.config import dump_preset
from canal.data.cells import CellPool
from canal.errors import StageError
from canal.files import short_digest
from canal.model.bank import bank_contents, bank_digest
from canal.model.memory import AnalyticMemory
from canal.model.model import Model
from canal.model.record import IMPORTED, RENAMED, StageRecord
from canal.model.stage_keys import free_key, has_noted, key_note
from canal.progress import Progress, Silent
from canal.stages.layout import Layout, open_registry
from canal.stages.testing.tests import (
    StageTests,
    accuracy_changes,
    earlier_stages,
    figures_for_record,
    finite_history,
    measure_earlier_stages,
    reason_to_hold_back,
    untested_warning,
)
from canal.stages.use import lineage, next_number
from canal.training.rehearsal import rehearsed_network
from canal.training.run import Run

FEWEST_TYPES = 2  # that a model can tell apart


@dataclass(frozen=True, kw_only=True)
class RemovalResult:
    """The outcome of a removal that was committed; the JSON of `canal stage remove`."""

    # The field names are the keys of that JSON and stay as they are.

    stage: int
    name: str
    version: int
    parent: int
    removed: int
    removed_types: tuple[str, ...]
    types: tuple[str, ...]
    bank: int
    metrics: dict[str, float]
    champion: bool
    tested: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def remove_stage(
    layout: Layout, removed: int, *, number: int | None = None, progress: Progress | None = None
) -> RemovalResult:
    """Commit a new stage whose model is without the cells of a stage; no stage is deleted.

    The new stage comes into use by the same rule as one of `canal stage add`.

    Parameters
    ----------
    layout
        The workspace.
    removed
        The stage to take out of the model in use.
    number
        Number of the new stage; the next free one by default. Only a replay, whose numbers may have gaps, names one.
    progress
        Told how far the training is.

    Raises
    ------
    StageError, RegistryError
        If the model in use does not hold cells of the stage, or too little would be left; nothing is written then.
    """
    begin = time.monotonic()
    progress = progress or Silent()
    with open_registry(layout).writing() as registry:
        # 1. Refuse what cannot be removed.
        records = registry.records()
        parent, target = registry.model(registry.record()), registry.record(removed)
        _refuse_removal(records, parent.stage, target)
        # 2. Learn without the stage, anew.
        draft = registry.draft(_training_key(parent.stage, removed))
        draft.clear()
        new = next_number(records) if number is None else number
        run = Run(number=new, seed=parent.stage.seed, progress=progress, draft=draft)
        learned = relearn_without(parent, removed, run)
        # 3. Test as a stage that is added, but not on the cells of the stage that is removed.
        earlier = [stage for stage in earlier_stages(registry, records, parent.stage) if stage.number != removed]
        outcomes, with_outcome_in_use = measure_earlier_stages(learned.model, parent, earlier, progress)
        tests = StageTests(own=None, outcomes=tuple(outcomes), history=finite_history(learned.history))
        changes = accuracy_changes(outcomes, with_outcome_in_use)
        held_back = reason_to_hold_back(new, parent.stage.number, changes, parent.preset.promotion)
        # 4. Commit whole. A stage that forgets too much stays a candidate.
        record = _record(run, target, parent, learned, figures_for_record(new, tests, earlier))
        notes = record.notes | {"held_back": held_back or None}
        record = record.with_fields(notes=notes, seconds=round(time.monotonic() - begin, 3))
        files = learned.model.save(draft.folder) | tests.write(draft.folder)
        committed = draft.commit(record, files, promote=not held_back)
    return RemovalResult(
        stage=new,
        name=committed.name,
        version=committed.version,
        parent=parent.stage.number,
        removed=removed,
        removed_types=learned.removed_types,
        types=committed.types,
        bank=len(learned.model.bank),
        metrics=committed.metrics,
        champion=not held_back,
        tested=tuple(asdict(change) for change in changes),
        warnings=tuple(text for text in (held_back, untested_warning(changes)) if text),
        seconds=committed.seconds,
    )


def _refuse_removal(records: Sequence[StageRecord], parent: StageRecord, target: StageRecord) -> None:
    """Refuse to remove a stage that the model in use does not hold, or whose cells cannot be told from others."""
    line = lineage(records, parent.number)
    in_model = lineage(records, parent.number, without_removed=True)
    # Stages that are themselves removals brought no cells.
    with_cells, confused = [], []
    for record in records:
        if record.number in in_model:
            # An imported one did, even if it took others out in the registry it comes from.
            if record.is_voter:
                continue
            if IMPORTED in record.notes or not (record.notes.get("removed") or record.notes.get(RENAMED)):
                with_cells.append(record.number)
            if _may_hold_cells_numbered(record, target.number):
                confused.append(record.number)
    # The first reason that holds.
    if target.number not in line:
        reason = f"stage {parent.number}, which annotates, was not learned from it"
    elif target.number not in in_model:
        reason = f"stage {parent.number}, which annotates, is without it already"
    elif target.is_voter:
        reason = "it is a voter, which no cell taught"
    elif target.number not in with_cells:
        reason = "it brought no cells of its own, for it took another stage out or renamed types"
    elif confused and not has_noted(parent):
        reason = (
            f"stage {confused[0]} was imported, its cells carry the numbers of the registry it came from, and the "
            "stages on top of it were learned by an older canal, which did not tell them from its own"
        )
    elif with_cells == [target.number]:
        reason = "nothing would be left; choose another stage with `canal stage promote N`"
    else:
        return
    known = ", ".join(map(str, with_cells))
    message = f"Stage {target.number} ({target.name}) cannot be removed: {reason}. Stages in the model: {known}."
    raise StageError(message)


def _may_hold_cells_numbered(record: StageRecord, number: int) -> bool:
    """Tell whether a stage was imported, and it or cells of its example bank bear this number."""
    if IMPORTED not in record.notes:
        return False
    return record.number == number or str(number) in {str(n) for n in record.bank.get("per_stage", {})}


def _training_key(parent: StageRecord, removed: int) -> str:
    """Return the name of the working folder: a digest of all that decides the outcome of the training."""
    inputs = [parent.artifacts, removed]
    return "without-" + short_digest(inputs)


@dataclass(frozen=True, kw_only=True)
class Relearned:
    """A model without one stage, and how it was trained.

    Attributes
    ----------
    model
        The model without the stage.
    removed_types
        Cell types that the stage alone had taught.
    history
        Figures of each epoch.
    """

    model: Model
    removed_types: tuple[str, ...]
    history: list[dict[str, float]]


def relearn_without(parent: Model, removed: int, run: Run) -> Relearned:
    """Learn a model again without one of its stages.

    Parameters
    ----------
    parent
        The model that holds the stage.
    removed
        Number of the stage to take out.
    run
        Number of the new stage, its seed, and who is told of the progress.

    Raises
    ------
    StageError
        If fewer than two types would be left.
    """
    # 1. Statistics, bank and calibration without the stage: exact. An imported model may hold several keys of it.
    keys = [key for key, stage in parent.stage_of_key.items() if stage == removed]
    memory, novelty, sure, voter = parent.memory, parent.novelty, parent.sure, parent.voter
    for key in keys:
        memory = None if memory is None else memory.without_stage(key)
        novelty = novelty.without_stage(key)
        sure = None if sure is None else sure.without_stage(key)
        voter = None if voter is None else voter.without_stage(key)
    remaining = np.flatnonzero(~np.isin(parent.bank.stage, keys))
    bank = parent.bank.take(remaining) if len(remaining) else CellPool.empty()
    types = _remaining_types(parent.types, memory, bank, removed)
    if memory is not None and not memory.statistics:
        memory = None
    split = {}
    for name, finer in parent.split.items():
        left = tuple(other for other in finer if other in types)
        if name in types and left:
            split[name] = left
    base = replace(parent, types=types, memory=memory, novelty=novelty, bank=bank, sure=sure, split=split, voter=voter)
    run = replace(run, key=free_key(run.number, parent))
    # 2. A fresh network on what is left: nothing of the stage is in its weights.
    weights, history = rehearsed_network(base, run)
    return Relearned(
        model=replace(base, weights=weights),
        removed_types=tuple(name for name in parent.types if name not in types),
        history=history,
    )


def _remaining_types(
    known: tuple[str, ...], memory: AnalyticMemory | None, bank: CellPool, removed: int
) -> tuple[str, ...]:
    """Return the cell types that the memory or the bank still knows, in their order."""
    remembered = set(bank.labels.tolist())
    if memory is not None:
        remembered.update(name for _, name in memory.counts())
    types = tuple(name for name in known if name in remembered)
    if len(types) < FEWEST_TYPES:
        message = (
            f"Without stage {removed} the model would know {len(types)} types ({', '.join(types) or 'none'}); expected "
            f"{FEWEST_TYPES} at least. Add another stage first, or go back to an earlier one: canal stage promote N."
        )
        raise StageError(message)
    return types


def _record(run: Run, target: StageRecord, parent: Model, learned: Relearned, metrics: dict[str, float]) -> StageRecord:
    """Return what the registry keeps of the new stage."""
    model = learned.model
    stages = {key: stage for key, stage in parent.stage_of_key.items() if stage != target.number}
    return StageRecord(
        number=run.number,
        name=f"without-{target.name}",
        parent=parent.stage.number,
        seed=run.seed,
        preset=dump_preset(model.preset),
        types=model.types,
        new_types=(),
        cells=0,
        genes=len(model.panel),
        bank=bank_contents(model.bank, stages) | {"digest": bank_digest(model.bank)},
        metrics=metrics,
        notes={
            "removed": [target.number],
            "removed_types": list(learned.removed_types),
            "held_back": None,
            "epochs": len(learned.history),
            **key_note(parent.stage, stages),
            **model.voter_note,
        },
    )
