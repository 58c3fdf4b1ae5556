"""Take a stage out of a model again.

What is exact: analytic memory and calibration of novelty hold nothing of this stage, and the bank no cell of it.
The network is trained anew, from random weights, on what is left of the bank and on pseudo-cells of the remaining
statistics: nothing of the stage is in its weights, and it is not the network that would have come about had the stage
never been. The gene panel and the temperature of the calibration stay as they are.

`canal stage remove N`: a new stage whose model is without the cells of stage N.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from canal.config import Preset, dump_preset
from canal.data.cells import CellPool
from canal.errors import StageError
from canal.model.bank import bank_contents, bank_digest
from canal.model.memory import AnalyticMemory
from canal.model.model import Model
from canal.model.network import new_network, weights_of
from canal.model.record import StageRecord
from canal.progress import Progress, Silent
from canal.seeds import numpy_generator
from canal.stages.layout import Layout, open_registry
from canal.stages.tests import FILE as TESTS
from canal.stages.tests import (
    StageTests,
    compared,
    earlier_stages,
    figures_for_record,
    finite,
    held_back,
    run_on_earlier,
    untested,
)
from canal.stages.use import line_of, next_number
from canal.training.batches import stratified_split
from canal.training.fitting import NetworkSpec, draw_pseudo_cells, fit_network
from canal.training.run import Run

FEWEST_TYPES = 2


@dataclass(frozen=True, kw_only=True)
class Relearned:
    """A model without one stage.

    Attributes
    ----------
    model
        The model with its example bank.
    removed_types
        Types that nothing is known of any more.
    history
        One dict of figures an epoch.
    """

    model: Model
    removed_types: tuple[str, ...]
    history: list[dict[str, float]]


def relearn_without(parent: Model, removed: int, run: Run) -> Relearned:
    """Return the model without one of its stages.

    Parameters
    ----------
    parent
        The model with its example bank.
    removed
        Number of the stage to take out.
    run
        Number of the new stage, its seed and who watches.

    Raises
    ------
    StageError
        If fewer than two types would be left.
    """
    # 1. Statistics, bank and calibration without the stage: exact.
    memory = None if parent.memory is None else parent.memory.without_stage(removed)
    others = parent.bank.stage != removed
    bank = parent.bank.take(np.flatnonzero(others)) if others.any() else CellPool.empty()
    types = _types_left(parent.types, memory, bank, removed)
    if memory is not None and not memory.statistics:
        memory = None
    base = replace(parent, types=types, memory=memory, novelty=parent.novelty.without_stage(removed), bank=bank)
    # 2. A fresh network on what is left: nothing of the stage is in its weights.
    network = new_network(parent.preset, len(base.panel), len(types), run.seed)
    pool = _rehearsed(base, run.seed)
    goal = NetworkSpec(preset=_fresh(base.preset), panel=base.panel, types=types)
    history = fit_network(network, base, pool, _validation(pool, base.preset, run.seed), goal, run)
    return Relearned(
        model=replace(base, weights=weights_of(network)),
        removed_types=tuple(name for name in parent.types if name not in types),
        history=history,
    )


def _types_left(known: tuple[str, ...], memory: AnalyticMemory | None, bank: CellPool, removed: int) -> tuple[str, ...]:
    """Return the types that the memory or the bank still knows, in their order."""
    found = set(bank.labels.tolist()) | ({name for _, name in memory.counts()} if memory is not None else set())
    types = tuple(name for name in known if name in found)
    if len(types) < FEWEST_TYPES:
        message = (
            f"Without stage {removed} the model would know {len(types)} types ({', '.join(types) or 'none'}); expected "
            f"{FEWEST_TYPES} at least. Add another stage first, or go back to an earlier one: canal stage promote N."
        )
        raise StageError(message)
    return types


def _rehearsed(base: Model, seed: int) -> CellPool:
    """Return the cells to train and validate on beside the pseudo-cells: the bank, or more of these if it is too small.

    Raises
    ------
    StageError
        If there is neither.
    """
    bank = base.bank
    if len(bank) > len(set(bank.labels.tolist())):  # of some type two cells: one to train on, one to validate on
        return bank
    if base.memory is None:
        message = (
            f"The example bank without this stage has {len(bank)} cells: too few to learn from. Add a stage first."
        )
        raise StageError(message)
    n = max(base.preset.analytic.pseudo_cells, 10 * len(base.types))
    return draw_pseudo_cells(base.memory, n, base.panel, numpy_generator(seed, "removal"))


def _validation(pool: CellPool, preset: Preset, seed: int) -> np.ndarray:
    """Return rows to validate on where no stage has two cells of a type, of which `fit_network` would take one."""
    groups = set(zip(pool.stage.tolist(), pool.labels.tolist(), strict=True))
    if len(pool) > len(groups):
        return np.zeros(0, dtype=np.int64)
    share = preset.training.validation_share
    return stratified_split(pool.labels, share, numpy_generator(seed, "removal validation"))[1]


def _fresh(preset: Preset) -> Preset:
    """Return the preset for a network that starts from random weights: there is nothing to distil from."""
    return preset.model_copy(update={"training": preset.training.model_copy(update={"start": "fresh"})})


@dataclass(frozen=True, kw_only=True)
class RemovalResult:
    """What the model without a stage turned out to be; the JSON of `canal stage remove`."""

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
    tested: tuple[dict[str, Any], ...] = field(default=())
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def remove_stage(
    layout: Layout, removed: int, *, number: int | None = None, progress: Progress | None = None
) -> RemovalResult:
    """Commit a new stage without the cells of a stage; no stage is deleted.

    The new stage comes into use by the same rule as one of `canal stage add`.

    Parameters
    ----------
    layout
        The workspace.
    removed
        The stage to take out of the model in use.
    number
        Number of the new stage; the next by default. Only a replay, which may have gaps, names one.
    progress
        Told how far the training is.

    Raises
    ------
    StageError, RegistryError
        If the model in use does not hold the stage, or too little would be left; nothing is written then.
    """
    begin = time.monotonic()
    progress = progress or Silent()
    with open_registry(layout).writing() as registry:
        # 1. What must not be removed is refused.
        records = registry.records()
        parent, gone = registry.model(registry.record()), registry.record(removed)
        _check(records, parent.stage, gone)
        # 2. Learn without the stage, anew.
        draft = registry.draft(_key(parent.stage, removed))
        draft.clear()
        new = next_number(records) if number is None else number
        run = Run(number=new, seed=parent.stage.seed, progress=progress, draft=draft)
        learned = relearn_without(parent, removed, run)
        # 3. Test as a stage that is added, without the cells of the one that goes.
        earlier = [e for e in earlier_stages(registry, records, parent.stage) if e.stage != removed]
        outcomes, known = run_on_earlier(learned.model, parent, earlier, progress)
        tests = StageTests(own=None, outcomes=tuple(outcomes), history=finite(learned.history))
        changes = compared(outcomes, known)
        why = held_back(new, parent.stage.number, changes, parent.preset.promotion.max_fall)
        # 4. Commit.
        metrics = figures_for_record(new, tests, earlier)
        record = _record(run, gone, parent.stage, learned, metrics)
        record = record.with_fields(
            notes=record.notes | {"held_back": why or None}, seconds=round(time.monotonic() - begin, 3)
        )
        committed = draft.commit(record, _write(learned, tests, draft.folder), promote=not why)
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
        champion=not why,
        tested=tuple(asdict(c) for c in changes),
        warnings=tuple(text for text in (why, untested(changes)) if text),
        seconds=committed.seconds,
    )


def _check(records: Sequence[StageRecord], parent: StageRecord, gone: StageRecord) -> None:
    line = line_of(records, parent.number)
    left = line_of(records, parent.number, without_removed=True)
    with_cells = [r.number for r in records if r.number in left and not r.notes.get("removed")]
    known = ", ".join(map(str, with_cells))
    if gone.number not in line:
        why = f"stage {parent.number}, which annotates, was not learned from it"
    elif gone.number not in left:
        why = f"stage {parent.number}, which annotates, is without it already"
    elif gone.number not in with_cells:
        why = "it brought no cells of its own, for it took another stage out"
    elif clash := [r.number for r in records if r.number in left and _has_cells_called(r, gone.number)]:
        why = (
            f"stage {clash[0]} was imported, and its cells carry the numbers of the registry it came from; "
            "they cannot be told from those of this stage"
        )
    elif with_cells == [gone.number]:
        why = "nothing would be left; choose another stage with `canal stage promote N`"
    else:
        return
    message = f"Stage {gone.number} ({gone.name}) cannot be removed: {why}. Stages in the model: {known}."
    raise StageError(message)


def _has_cells_called(record: StageRecord, number: int) -> bool:
    """Tell whether a stage was imported, and it or its cells bear this number."""
    return "imported" in record.notes and (
        record.number == number or str(number) in {str(n) for n in record.bank.get("per_stage", {})}
    )


def _key(parent: StageRecord, number: int) -> str:
    what = [parent.artifacts, number]
    return "without-" + hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _record(
    run: Run, gone: StageRecord, parent: StageRecord, learned: Relearned, metrics: dict[str, float]
) -> StageRecord:
    model = learned.model
    return StageRecord(
        number=run.number,
        name=f"without-{gone.name}",
        parent=parent.number,
        seed=run.seed,
        preset=dump_preset(model.preset),
        types=model.types,
        new_types=(),
        cells=0,
        genes=len(model.panel),
        bank=bank_contents(model.bank) | {"digest": bank_digest(model.bank)},
        metrics=metrics,
        notes={
            "removed": [gone.number],
            "removed_types": list(learned.removed_types),
            "held_back": None,
            "epochs": len(learned.history),
        },
    )


def _write(learned: Relearned, tests: StageTests, folder: Path) -> dict[str, Path]:
    files = learned.model.save(folder)
    files[TESTS] = folder / TESTS
    tests.write(files[TESTS])
    return files
