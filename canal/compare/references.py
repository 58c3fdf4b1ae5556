"""Plain methods beside the annotator, trained on what can still be read, and nothing else.

No reference is told to have seen more than it did: each says which stages' cells it was trained on.

References that were trained before: kept beside the registry under the digests of all that went into them.

To know these digests the files must be read, which takes seconds itself. So a second, quicker key is kept that points
to the first: it holds the stamps of the files. A file that was touched is read again; one whose cells are others than
before, or that came or went, has the references trained again.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from canal.compare.gather import Kept
from canal.compare.report import Reference
from canal.data.cells import CellPool, Cells, FileReport
from canal.errors import DataError, StageError
from canal.figures import count, figures
from canal.files import file_stamp
from canal.model.bank import load_bank
from canal.model.model import Annotator
from canal.model.record import StageRecord
from canal.model.stage_keys import bank_stages, stages_by_key
from canal.progress import Progress
from canal.registry.cache import key_of
from canal.registry.registry import Registry
from canal.stages.declarations import recorded_preset, recorded_request
from canal.stages.evaluate import fit_joint
from canal.stages.held_out import read_held_out
from canal.stages.request import cells_of
from canal.training.stage import learn_stage

Predict = Callable[[Cells], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Readable:
    """What can still be read of the stages of a line.

    Attributes
    ----------
    records
        Stages that brought cells, in order.
    cells
        Cells of their files, by stage; a stage whose file is gone or changed is missing.
    tests
        Held-out cells, by stage.
    bank
        Example bank of the last one.
    """

    records: tuple[StageRecord, ...]
    cells: dict[int, Cells]
    tests: dict[int, Cells]
    bank: CellPool


def read_all(registry: Registry, kept: Kept, focus: int) -> Readable:
    """Read what can still be read of the stages of a line.

    Parameters
    ----------
    registry, kept
        The registry, and what is known of its stages.
    focus
        The last stage of the line.

    Raises
    ------
    DataError
        If there are no cells at all to test on.
    """
    line = [kept.records[n] for n in kept.line(focus, without_removed=True)]
    tests: dict[int, Cells] = {}
    for number in (r.number for r in line if r.number in kept.sets):
        try:
            tests[number] = read_held_out(kept.sets[number])
        except DataError:
            continue  # the report says which sets are missing
    if not tests:
        message = (
            f"None of the held-out cells of the stages up to {focus} can be read: there is nothing to test references "
            "on. Put the files back where they were, or compare without --references."
        )
        raise DataError(message)
    records = tuple(r for r in line if r.data)
    cells = {r.number: c for r in records if (c := _training_cells(r)) is not None}
    return Readable(records=records, cells=cells, tests=tests, bank=_bank_of(registry, kept.records[focus]))


def train_references(kept: Kept, readable: Readable, progress: Progress) -> tuple[Reference, ...]:
    """Train logistic regression and naive fine-tuning on what can still be read.

    Parameters
    ----------
    kept
        What is known of the stages.
    readable
        What can be read of them.
    progress
        Told how far the training is.
    """
    found = [_regression(kept, readable)]
    if readable.cells:
        found.append(_fine_tuning(kept, readable, progress))
    return tuple(r for r in found if r is not None)


def _bank_of(registry: Registry, record: StageRecord) -> CellPool:
    """Return the example bank of a stage, its cells by the number of the stage they came with."""
    path = registry.file(record, "bank.safetensors")
    if path is None:
        return CellPool.empty()
    bank = load_bank(path)
    stages = stages_by_key(record, set(bank.stage.tolist()))
    return replace(bank, stage=bank_stages(bank, stages))


def _training_cells(record: StageRecord) -> Cells | None:
    """Return all labelled cells of a stage's file, ``None`` where they are not there any more."""
    try:
        request = recorded_request(record)
        cells = cells_of(request)
    except (DataError, StageError):
        return None
    return cells if cells.report.digest == record.data[0].get("digest") else None


def _regression(kept: Kept, readable: Readable) -> Reference | None:
    train, said = [], []
    for record in readable.records:
        number = record.number
        if number in readable.cells:
            cells = _trained_on(kept, readable, number)
            said.append(f"{len(cells)} of {record.cells} cells of stage {number}, from its file")
        else:
            cells = _of_bank(readable.bank, number)
            said.append(f"{len(cells)} of {record.cells} cells of stage {number}, from the bank (its file is gone)")
        if len(cells):
            train.append(cells)
    if len({name for cells in train for name in _labels(cells).tolist()}) < 2:
        return None
    predict = _fitted(train)
    whole = all(r.number in readable.cells for r in readable.records)
    return _reference(
        "joint logistic regression" if whole else "logistic regression on what is left",
        f"Trained at once on {'; '.join(said)}. Cells of the tests are left out. On the highly variable genes of each "
        "stage; genes that were not measured are zero; C = 0.1. "
        + ("No continual learner sees that much." if whole else "It has not seen all cells."),
        kept,
        readable.tests,
        predict,
    )


def _fine_tuning(kept: Kept, readable: Readable, progress: Progress) -> Reference:
    annotator: Annotator | None = None
    for record in (r for r in readable.records if r.number in readable.cells):
        preset = recorded_preset(record)
        naive = preset.model_copy(
            update={
                "bank": preset.bank.model_copy(update={"size": 0}),
                "training": preset.training.model_copy(update={"distillation": 0.0}),
                "analytic": preset.analytic.model_copy(update={"enabled": False}),
            }
        )
        annotator = learn_stage(
            annotator, CellPool.empty(), readable.cells[record.number], naive,
            stage=record.number, seed=record.seed, progress=progress,
        ).annotator  # fmt: skip
    assert annotator is not None
    trained = ", ".join(str(n) for n in sorted(readable.cells))
    missing = [str(r.number) for r in readable.records if r.number not in readable.cells]
    gap = f" Stages {', '.join(missing)} are left out: their files are gone or changed." if missing else ""
    model = annotator
    return _reference(
        "naive fine-tuning",
        f"The network of the preset, trained on the files of stages {trained} one after the other, without bank, "
        f"distillation and analytic memory.{gap} The stages' own held-out cells are not trained on.",
        kept,
        readable.tests,
        lambda cells: model.reader(cells.genes, cells.ensembl).best_types(cells.expression),
    )


def _reference(name: str, how: str, kept: Kept, tests: Mapping[int, Cells], predict: Predict) -> Reference:
    found = {}
    for number, cells in tests.items():
        found[number] = figures(count(_labels(cells), predict(cells)))
    of = list(kept.sets)
    return Reference(
        name=name,
        how=how,
        accuracy=tuple(found[n].accuracy if n in found else None for n in of),
        macro_f1=tuple(found[n].macro_f1 if n in found else None for n in of),
    )


def _fitted(train: Sequence[Cells]) -> Predict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an optimiser that stops at its limit
        return fit_joint(list(train))


def _trained_on(kept: Kept, readable: Readable, number: int) -> Cells:
    """Return the cells of a stage's file without those it is tested on."""
    cells = readable.cells[number]
    if number not in readable.tests or kept.sets[number].kind != "share":
        return cells
    return cells.take(np.flatnonzero(~np.isin(cells.names, readable.tests[number].names)))


def _labels(cells: Cells) -> np.ndarray:
    assert cells.labels is not None
    return cells.labels


def _of_bank(bank: CellPool, stage: int) -> Cells:
    pool = bank.take(np.flatnonzero(bank.stage == stage))
    report = FileReport(
        path="example bank", digest="", cells=len(pool), genes=len(pool.panel.genes), where="bank", scale="ln",
        scale_evidence="", gene_ids="symbol", gene_key="",
    )  # fmt: skip
    return Cells(
        expression=pool.expression,
        genes=pool.panel.genes,
        ensembl=pool.panel.ensembl,
        names=pool.names,
        labels=pool.labels,
        report=report,
    )


FORMAT = 1  # of the answer; also raised where the methods themselves are changed


def references_of(registry: Registry, kept: Kept, focus: int, progress: Progress) -> tuple[Reference, ...]:
    """Return logistic regression and naive fine-tuning beside a stage, trained only where nothing is kept of it.

    Parameters
    ----------
    registry, kept, focus, progress
        As for `canal.compare.references.train_references`.

    Raises
    ------
    DataError
        If no cells at all can be read.
    """
    quick = key_of("files of references", format=FORMAT, asked=_asked(kept, focus), stamps=_stamps(kept, focus))
    key = registry.memo.get(quick)
    found = None if key is None else registry.memo.get(str(key))
    if found is None:
        readable = read_all(registry, kept, focus)
        key = _content(kept, focus, readable)
        found = registry.memo.get(key)
        if found is None:
            found = [asdict(r) for r in train_references(kept, readable, progress)]
            registry.memo.put(key, found)
        registry.memo.put(quick, key)
    return tuple(_kept_reference(one) for one in found)


def _content(kept: Kept, focus: int, readable: "Readable") -> str:
    """Return the key: everything that was asked for, and which of the cells were there, by their digests."""
    return key_of(
        "references",
        format=FORMAT,
        asked=_asked(kept, focus),
        trained={str(n): cells.report.digest for n, cells in readable.cells.items()},
        tested={str(n): cells.report.digest for n, cells in readable.tests.items()},
    )


def _asked(kept: Kept, focus: int) -> dict[str, Any]:
    """Return what does not depend on the state of the files."""
    line = _line(kept, focus)
    return {
        "stages": [[r.number, r.data_digest, r.cells, r.seed, r.preset, dict(r.notes)] for r in line],
        "sets": [[n, held.digest, held.kind] for n, held in kept.sets.items()],
        "bank": kept.records[focus].artifacts.get("bank.safetensors"),
    }


def _stamps(kept: Kept, focus: int) -> list[Any]:
    paths = [path for record in _line(kept, focus) for path in _files(record)]
    paths += [Path(held.path) for held in kept.sets.values() if held.path]
    maps = [held.options.label_map for held in kept.sets.values()]
    return [file_stamp(path) for path in [*paths, *(Path(m) for m in maps if m)]]


def _files(record: StageRecord) -> Sequence[Path]:
    try:
        request = recorded_request(record)
    except StageError:
        return ()
    return [Path(str(request.data)), *([request.label_map] if request.label_map else [])]


def _line(kept: Kept, focus: int) -> list[StageRecord]:
    return [kept.records[n] for n in kept.line(focus, without_removed=True)]


def _kept_reference(values: dict[str, Any]) -> Reference:
    return Reference(
        name=values["name"],
        how=values["how"],
        accuracy=tuple(values["accuracy"]),
        macro_f1=tuple(values["macro_f1"]),
    )
