"""Plain methods beside the annotator: logistic regression and naive fine-tuning, trained on what can still be read.

Each says which stages' cells it was trained on, so that none is taken to have seen more than it did.

What was trained before is kept beside the registry under the digests of all that went into it. To know these digests
the files must be read, which takes seconds itself. So a second, quicker key is kept that points to the first: it holds
the stamps of the files (size and time of writing). A file that was touched is read again; where cells are others than
before, or a file came or went, the references are trained again.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from canal.compare.gather import StoredTests
from canal.compare.report import ReferenceMethod
from canal.data.cells import CellPool, Cells, FileReport
from canal.errors import DataError, StageError
from canal.figures import confusion_counts, figures_of
from canal.files import file_stamp
from canal.model.bank import BANK, load_bank
from canal.model.model import Model
from canal.model.record import StageRecord
from canal.model.stage_keys import bank_stages, stages_by_key
from canal.progress import Progress
from canal.registry.cache import key_of
from canal.registry.registry import Registry
from canal.stages.declarations import recorded_preset, recorded_request
from canal.stages.evaluate import fit_logistic_regression
from canal.stages.request import read_stage_cells
from canal.stages.testing.held_out import read_held_out
from canal.stages.use import renamed_since
from canal.training.run import Run
from canal.training.stage import learn_stage

FORMAT = 1  # of what is kept; also raised where the methods themselves are changed


def references_of(
    registry: Registry, stored: StoredTests, focus: int, progress: Progress
) -> tuple[ReferenceMethod, ...]:
    """Return logistic regression and naive fine-tuning beside a stage, trained only where nothing is kept of it.

    Parameters
    ----------
    registry, stored
        The registry, and what is known of its stages.
    focus
        The last stage of the line that the methods are trained on.
    progress
        Told how far the training is.

    Raises
    ------
    DataError
        If no cells at all can be read.
    """
    memo = registry.memo
    # By the stamps of the files: nothing is read.
    asked = _asked(stored, focus)
    quick_key = key_of("files of references", format=FORMAT, asked=asked, stamps=_file_stamps(stored, focus))
    key = memo.get(quick_key)
    answer = None if key is None else memo.get(str(key))
    if answer is None:
        # By the digests of the cells: the files are read.
        readable = read_line(registry, stored, focus)
        key = _content_key(asked, readable)
        answer = memo.get(key)
        if answer is None:
            methods = train_references(stored, readable, progress)
            answer = [asdict(method) for method in methods]
            memo.put(key, answer)
        memo.put(quick_key, key)
    return tuple(_from_plain(values) for values in answer)


def _asked(stored: StoredTests, focus: int) -> dict[str, Any]:
    """Return what the answer depends on besides the cells that can be read, as plain values."""
    stages = []
    for record in _line_records(stored, focus):
        stages.append([record.number, record.data_digest, record.cells, record.seed, record.preset, dict(record.notes)])
    sets = []
    for number, held_out in stored.sets.items():
        sets.append([number, held_out.digest, held_out.kind])
    return {"stages": stages, "sets": sets, "bank": stored.records[focus].artifacts.get(BANK)}


def _file_stamps(stored: StoredTests, focus: int) -> list[Any]:
    """Return the stamps of all files that may be read: of the stages, of the held-out cells, and their label maps."""
    paths: list[Path] = []
    for record in _line_records(stored, focus):
        paths.extend(_files_of_stage(record))
    for held_out in stored.sets.values():
        if held_out.path:
            paths.append(Path(held_out.path))
    for held_out in stored.sets.values():
        if isinstance(held_out.options.label_map, str):
            paths.append(Path(held_out.options.label_map))
    return [file_stamp(path) for path in paths]


def _files_of_stage(record: StageRecord) -> list[Path]:
    try:
        request = recorded_request(record)
    except StageError:
        return []
    files = [Path(str(request.data))]
    if isinstance(request.label_map, Path):
        files.append(request.label_map)
    return files


def _line_records(stored: StoredTests, focus: int) -> list[StageRecord]:
    return [stored.records[number] for number in stored.line(focus, without_removed=True)]


@dataclass(frozen=True, kw_only=True)
class ReadableCells:
    """Cells that can still be read of the stages of a line.

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


def read_line(registry: Registry, stored: StoredTests, focus: int) -> ReadableCells:
    """Read what can still be read of the stages of a line.

    Parameters
    ----------
    registry, stored
        The registry, and what is known of its stages.
    focus
        The last stage of the line.

    Raises
    ------
    DataError
        If there are no cells at all to test on.
    """
    line = _line_records(stored, focus)
    renamed = renamed_since(list(stored.records.values()), focus)
    # The cells to test on; the report says which sets are missing.
    tests: dict[int, Cells] = {}
    for record in line:
        if record.number not in stored.sets:
            continue
        try:
            held_out = read_held_out(stored.sets[record.number])
            tests[record.number] = held_out.renamed(renamed.get(record.number, {}))
        except DataError:
            continue
    if not tests:
        message = (
            f"None of the held-out cells of the stages up to {focus} can be read: there is nothing to test references "
            "on. Put the files back where they were, or compare without --references."
        )
        raise DataError(message)
    # The cells to train on: those of the files, and the bank for stages whose files are gone.
    records = []
    cells: dict[int, Cells] = {}
    for record in line:
        if not record.data:
            continue
        records.append(record)
        of_file = _cells_of_file(record)
        if of_file is not None:
            cells[record.number] = of_file.renamed(renamed.get(record.number, {}))
    bank = _bank_of(registry, stored.records[focus])
    return ReadableCells(records=tuple(records), cells=cells, tests=tests, bank=bank)


def _bank_of(registry: Registry, record: StageRecord) -> CellPool:
    """Return the example bank of a stage, its cells by the number of the stage they came with."""
    path = registry.file(record, BANK)
    if path is None:
        return CellPool.empty()
    bank = load_bank(path)
    stages = stages_by_key(record, set(bank.stage.tolist()))
    return replace(bank, stage=bank_stages(bank, stages))


def _cells_of_file(record: StageRecord) -> Cells | None:
    """Return all labelled cells of a stage's file, ``None`` where they are not there any more."""
    try:
        request = recorded_request(record)
        cells = read_stage_cells(request)
    except (DataError, StageError):
        return None
    return cells if cells.report.digest == record.data[0].get("digest") else None


def _content_key(asked: dict[str, Any], readable: ReadableCells) -> str:
    """Return the key: everything that was asked for, and which of the cells were there, by their digests."""
    return key_of(
        "references",
        format=FORMAT,
        asked=asked,
        trained=_digests(readable.cells),
        tested=_digests(readable.tests),
    )


def _digests(cells_of_stages: Mapping[int, Cells]) -> dict[str, str]:
    return {str(number): cells.report.digest for number, cells in cells_of_stages.items()}


def _from_plain(values: dict[str, Any]) -> ReferenceMethod:
    return ReferenceMethod(
        name=values["name"],
        how=values["how"],
        accuracy=tuple(values["accuracy"]),
        macro_f1=tuple(values["macro_f1"]),
    )


Predict = Callable[[Cells], np.ndarray]  # cells -> a type for each of them


def train_references(stored: StoredTests, readable: ReadableCells, progress: Progress) -> tuple[ReferenceMethod, ...]:
    """Train logistic regression and naive fine-tuning on what can still be read.

    Parameters
    ----------
    stored
        What is known of the stages.
    readable
        What can be read of them.
    progress
        Told how far the training is.
    """
    methods = []
    regression = _logistic_regression(stored, readable)
    if regression is not None:
        methods.append(regression)
    if readable.cells:
        methods.append(_fine_tuning(stored, readable, progress))
    return tuple(methods)


def _logistic_regression(stored: StoredTests, readable: ReadableCells) -> ReferenceMethod | None:
    # The cells of each stage: from its file, or those that are left in the bank.
    train, sources = [], []
    types: set[str] = set()
    for record in readable.records:
        number = record.number
        if number in readable.cells:
            cells = _without_tested(stored, readable, number)
            source = "from its file"
        else:
            cells = _bank_cells(readable.bank, number)
            source = "from the bank (its file is gone)"
        sources.append(f"{len(cells)} of {record.cells} cells of stage {number}, {source}")
        if len(cells):
            train.append(cells)
            types.update(_labels(cells).tolist())
    # One type alone is nothing to tell apart.
    if len(types) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an optimiser that stops at its limit
        predict = fit_logistic_regression(train)
    # It says how much it has seen.
    whole = len(readable.cells) == len(readable.records)
    name = "joint logistic regression" if whole else "logistic regression on what is left"
    seen = "No continual learner sees that much." if whole else "It has not seen all cells."
    description = (
        f"Trained at once on {'; '.join(sources)}. Cells of the tests are left out. On the highly variable genes of "
        f"each stage; genes that were not measured are zero; C = 0.1. {seen}"
    )
    return _tested_method(name, description, stored, readable.tests, predict)


def _without_tested(stored: StoredTests, readable: ReadableCells, number: int) -> Cells:
    """Return the cells of a stage's file without those it is tested on."""
    cells = readable.cells[number]
    if number not in readable.tests or stored.sets[number].kind != "share":
        return cells  # the tests are cells of another file
    return cells.take(np.flatnonzero(~np.isin(cells.names, readable.tests[number].names)))


def _bank_cells(bank: CellPool, stage: int) -> Cells:
    """Return the cells of a stage in the example bank, in the gene space of those files that they come from."""
    pool = bank.take(np.flatnonzero(bank.stage == stage))
    report = FileReport(
        path="example bank",
        digest="",
        cells=len(pool),
        genes=len(pool.panel.genes),
        where="bank",
        scale="ln",
        scale_evidence="",
        gene_ids="symbol",
        gene_key="",
    )
    return Cells(
        expression=pool.expression,
        genes=pool.panel.genes,
        names=pool.names,
        labels=pool.labels,
        report=report,
    )


def _fine_tuning(stored: StoredTests, readable: ReadableCells, progress: Progress) -> ReferenceMethod:
    # One stage after the other with nothing that keeps the earlier ones.
    model: Model | None = None
    missing = []
    for record in readable.records:
        if record.number not in readable.cells:
            missing.append(str(record.number))
            continue
        preset = recorded_preset(record)
        naive = preset.model_copy(
            update={
                "bank": preset.bank.model_copy(update={"size": 0}),
                "training": preset.training.model_copy(update={"distillation": 0.0}),
                "analytic": preset.analytic.model_copy(update={"enabled": False}),
            }
        )
        run = Run(number=record.number, seed=record.seed, progress=progress)
        model = learn_stage(model, readable.cells[record.number], naive, run).model
    assert model is not None
    # It says which stages it has seen.
    trained = ", ".join(map(str, sorted(readable.cells)))
    gap = f" Stages {', '.join(missing)} are left out: their files are gone or changed." if missing else ""
    description = (
        f"The network of the preset, trained on the files of stages {trained} one after the other, without bank, "
        f"distillation and analytic memory.{gap} The stages' own held-out cells are not trained on."
    )
    return _tested_method("naive fine-tuning", description, stored, readable.tests, model.types_of)


def _tested_method(
    name: str, description: str, stored: StoredTests, tests: Mapping[int, Cells], predict: Predict
) -> ReferenceMethod:
    """Test a trained method on all sets that can be read; the others stay without a figure."""
    accuracy: list[float | None] = []
    macro_f1: list[float | None] = []
    for number in stored.sets:
        if number in tests:
            cells = tests[number]
            figures = figures_of(confusion_counts(_labels(cells), predict(cells)))
            accuracy.append(figures.accuracy)
            macro_f1.append(figures.macro_f1)
        else:
            accuracy.append(None)
            macro_f1.append(None)
    return ReferenceMethod(name=name, how=description, accuracy=tuple(accuracy), macro_f1=tuple(macro_f1))


def _labels(cells: Cells) -> np.ndarray:
    assert cells.labels is not None
    return cells.labels
