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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from canal.config import Preset, dump_preset
from canal.data.cells import CellPool
from canal.errors import StageError
from canal.model.bank import bank_contents, bank_digest, save_bank
from canal.model.memory import AnalyticMemory
from canal.model.model import Annotator, save_annotator
from canal.model.network import new_network, weights_of
from canal.model.record import IMPORTED, StageRecord
from canal.model.stage_keys import free_key, has_noted, key_note, stages_by_key, used_keys
from canal.progress import Progress, Silent
from canal.seeds import numpy_generator
from canal.stages.add import open_stage
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
from canal.training.fitting import draw_cells, fit_network

FEWEST_TYPES = 2


@dataclass(frozen=True, kw_only=True)
class Relearned:
    """A model without one stage.

    Attributes
    ----------
    annotator, bank
        The model and its example bank.
    removed_types
        Types that nothing is known of any more.
    history
        One dict of figures an epoch.
    """

    annotator: Annotator
    bank: CellPool
    removed_types: tuple[str, ...]
    history: list[dict[str, float]]


def relearn_without(
    previous: Annotator,
    bank: CellPool,
    removed: Collection[int],
    *,
    stage: int,
    seed: int,
    progress: Progress,
    checkpoint: tuple[Path, str] | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] = lambda _epoch, _figures: None,
) -> Relearned:
    """Return the model without one of its stages.

    Parameters
    ----------
    previous, bank
        The model and its example bank.
    removed
        Keys of the stage to take out: its number, or all that an imported model brought.
    stage, seed
        Number of the new stage and its recorded seed.
    progress, checkpoint, on_epoch
        As for `train_network`.

    Raises
    ------
    StageError
        If fewer than two types would be left.
    """
    memory, novelty = previous.memory, previous.novelty
    for key in removed:
        memory = None if memory is None else memory.without_stage(key)
        novelty = novelty.without_stage(key)
    kept = ~np.isin(bank.stage, list(removed))
    left = bank.take(np.flatnonzero(kept)) if kept.any() else CellPool.empty()
    types = _types_left(previous.types, memory, left)
    if memory is not None and not memory.statistics:
        memory = None
    base = replace(previous, types=types, memory=memory, novelty=novelty)
    network = new_network(previous.preset, len(base.panel), len(types), seed)
    pool = _rehearsed(base, left, seed)
    history = fit_network(
        network, base, pool, _validation(pool, base.preset, seed), base.panel, types, _fresh(base.preset),
        stage=stage, key=free_key(stage, previous, bank), seed=seed,
        progress=progress, checkpoint=checkpoint, on_epoch=on_epoch,
    )  # fmt: skip
    gone = tuple(name for name in previous.types if name not in types)
    return Relearned(
        annotator=replace(base, weights=weights_of(network)), bank=left, removed_types=gone, history=history
    )


def _types_left(known: tuple[str, ...], memory: AnalyticMemory | None, bank: CellPool) -> tuple[str, ...]:
    """Return the types that the memory or the bank still knows, in their order."""
    found = set(bank.labels.tolist()) | ({name for _, name in memory.counts()} if memory is not None else set())
    types = tuple(name for name in known if name in found)
    if len(types) < FEWEST_TYPES:
        message = (
            f"Without this stage the model would know {len(types)} types ({', '.join(types) or 'none'}); expected "
            f"{FEWEST_TYPES} at least. Add another stage first, or go back to an earlier one: canal stage promote N."
        )
        raise StageError(message)
    return types


def _rehearsed(base: Annotator, bank: CellPool, seed: int) -> CellPool:
    """Return the cells to train and validate on beside the pseudo-cells: the bank, or more of these if it is too small.

    Raises
    ------
    StageError
        If there is neither.
    """
    if len(bank) > len(set(bank.labels.tolist())):  # of some type two cells: one to train on, one to validate on
        return bank
    if base.memory is None:
        message = (
            f"The example bank without this stage has {len(bank)} cells: too few to learn from. Add a stage first."
        )
        raise StageError(message)
    n = max(base.preset.analytic.pseudo_cells, 10 * len(base.types))
    return draw_cells(base.memory, n, base.panel, numpy_generator(seed, "removal"))


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
        records = registry.records()
        parent, gone = registry.record(), registry.record(removed)
        _check(records, parent, gone)
        previous, bank = open_stage(registry, parent)
        assert previous is not None
        stages = stages_by_key(parent, used_keys(previous, bank))
        keys = [key for key, stage in stages.items() if stage == removed]
        new = next_number(records) if number is None else number
        draft = registry.draft(_key(parent, removed))
        draft.clear()
        learned = relearn_without(
            previous, bank, keys, stage=new, seed=parent.seed, progress=progress, on_epoch=draft.log_epoch
        )
        stages = {key: stage for key, stage in stages.items() if stage != removed}
        earlier = [e for e in earlier_stages(registry, records, parent) if e.stage != removed]
        outcomes, known = run_on_earlier(learned.annotator, previous, earlier, progress)
        tests = StageTests(own=None, outcomes=tuple(outcomes), history=finite(learned.history))
        changes = compared(outcomes, known)
        why = held_back(new, parent.number, changes, previous.preset.promotion.max_fall)
        figures = figures_for_record(new, tests, earlier)
        record = _record(new, gone, parent, learned, stages, figures, why, time.monotonic() - begin)
        committed = draft.commit(record, _write(learned, tests, draft.folder), promote=not why)
    return RemovalResult(
        stage=new,
        name=committed.name,
        version=committed.version,
        parent=parent.number,
        removed=removed,
        removed_types=learned.removed_types,
        types=committed.types,
        bank=len(learned.bank),
        metrics=committed.metrics,
        champion=not why,
        tested=tuple(asdict(c) for c in changes),
        warnings=tuple(text for text in (why, untested(changes)) if text),
        seconds=committed.seconds,
    )


def _check(records: Sequence[StageRecord], parent: StageRecord, gone: StageRecord) -> None:
    line = line_of(records, parent.number)
    left = line_of(records, parent.number, without_removed=True)
    with_cells = [r.number for r in records if r.number in left and _has_cells(r)]
    known = ", ".join(map(str, with_cells))
    if gone.number not in line:
        why = f"stage {parent.number}, which annotates, was not learned from it"
    elif gone.number not in left:
        why = f"stage {parent.number}, which annotates, is without it already"
    elif gone.number not in with_cells:
        why = "it brought no cells of its own, for it took another stage out"
    elif not has_noted(parent) and (
        clash := [r.number for r in records if r.number in left and _has_cells_called(r, gone.number)]
    ):
        why = (
            f"stage {clash[0]} was imported, its cells carry the numbers of the registry it came from, and the stages "
            "on top of it were learned by an older canal, which did not tell them from its own"
        )
    elif with_cells == [gone.number]:
        why = "nothing would be left; choose another stage with `canal stage promote N`"
    else:
        return
    message = f"Stage {gone.number} ({gone.name}) cannot be removed: {why}. Stages in the model: {known}."
    raise StageError(message)


def _has_cells(record: StageRecord) -> bool:
    """Tell whether a stage brought cells of its own; an imported one did, even if it took others out where it was."""
    return IMPORTED in record.notes or not record.notes.get("removed")


def _has_cells_called(record: StageRecord, number: int) -> bool:
    """Tell whether a stage was imported, and it or its cells bear this number."""
    return IMPORTED in record.notes and (
        record.number == number or str(number) in {str(n) for n in record.bank.get("per_stage", {})}
    )


def _key(parent: StageRecord, number: int) -> str:
    what = [parent.artifacts, number]
    return "without-" + hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _record(
    number: int,
    gone: StageRecord,
    parent: StageRecord,
    learned: Relearned,
    stages: Mapping[int, int],
    metrics: dict[str, float],
    why: str,
    seconds: float,
) -> StageRecord:
    annotator = learned.annotator
    return StageRecord(
        number=number,
        name=f"without-{gone.name}",
        parent=parent.number,
        seed=parent.seed,
        preset=dump_preset(annotator.preset),
        types=annotator.types,
        new_types=(),
        cells=0,
        genes=len(annotator.panel),
        bank=bank_contents(learned.bank, stages) | {"digest": bank_digest(learned.bank)},
        metrics=metrics,
        seconds=round(seconds, 3),
        notes={
            "removed": [gone.number],
            "removed_types": list(learned.removed_types),
            "held_back": why or None,
            "epochs": len(learned.history),
            **key_note(parent, stages),
        },
    )


def _write(learned: Relearned, tests: StageTests, folder: Path) -> dict[str, Path]:
    files = save_annotator(learned.annotator, folder)
    files[TESTS] = folder / TESTS
    tests.write(files[TESTS])
    if len(learned.bank):
        files["bank.safetensors"] = folder / "bank.safetensors"
        save_bank(learned.bank, files["bank.safetensors"])
    return files
