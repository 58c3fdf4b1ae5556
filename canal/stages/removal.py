"""`canal stage remove N`: a new stage whose model is without the cells of stage N."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from canal.config import dump_preset
from canal.errors import StageError
from canal.learn.annotator import save_annotator
from canal.learn.bank import bank_contents, bank_digest, save_bank
from canal.learn.progress import Progress, Silent
from canal.learn.removal import Relearned, relearn_without
from canal.registry.record import StageRecord
from canal.stages.add import open_stage
from canal.stages.connection import open_registry
from canal.stages.layout import Layout
from canal.stages.lineage import line_of, next_number
from canal.stages.stage_tests import FILE as TESTS
from canal.stages.stage_tests import StageTests, finite
from canal.stages.testing import compared, earlier_stages, figures_for_record, held_back, run_on_earlier, untested


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
        new = next_number(records) if number is None else number
        draft = registry.draft(_key(parent, removed))
        draft.clear()
        learned = relearn_without(
            previous, bank, removed, stage=new, seed=parent.seed, progress=progress, on_epoch=draft.log_epoch
        )
        earlier = [e for e in earlier_stages(registry, records, parent) if e.stage != removed]
        outcomes, known = run_on_earlier(learned.annotator, previous, earlier, progress)
        tests = StageTests(own=None, outcomes=tuple(outcomes), history=finite(learned.history))
        changes = compared(outcomes, known)
        why = held_back(new, parent.number, changes, previous.preset.promotion.max_fall)
        figures = figures_for_record(new, tests, earlier)
        record = _record(new, gone, parent, learned, figures, why, time.monotonic() - begin)
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
    number: int,
    gone: StageRecord,
    parent: StageRecord,
    learned: Relearned,
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
        bank=bank_contents(learned.bank) | {"digest": bank_digest(learned.bank)},
        metrics=metrics,
        seconds=round(seconds, 3),
        notes={
            "removed": [gone.number],
            "removed_types": list(learned.removed_types),
            "held_back": why or None,
            "epochs": len(learned.history),
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
