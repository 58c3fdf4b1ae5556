"""Stages on several devices and nodes: who reads and writes, and who only helps.

`canal stage add`: from a file of labelled cells to a committed stage.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from canal.config import Preset, dump_preset
from canal.data.cells import CellPool, Cells
from canal.data.labels import LabelWarning, called_known, similar_names
from canal.data.panel import check_overlap
from canal.errors import StageError
from canal.figures import score
from canal.model.bank import bank_contents, bank_digest, load_bank, save_bank
from canal.model.model import Annotator, load_annotator, save_annotator
from canal.model.record import StageRecord
from canal.model.stage_keys import key_note, stages_by_key, used_keys
from canal.progress import Progress, Silent
from canal.registry.registry import Registry
from canal.stages.declarations import options_of, source_of
from canal.stages.examination import Examination, examine, given_cells, refuse_trained
from canal.stages.layout import Layout, has_registry, open_registry
from canal.stages.request import StageRequest, StageResult, cells_of
from canal.stages.starting import Start, check_lineage, find_start, weights_warnings
from canal.stages.tests import FILE as TESTS
from canal.stages.tests import earlier_stages, write_reliability
from canal.stages.use import next_number
from canal.training.processes import started_outside
from canal.training.stage import LearnedStage, check_places, learn_stage
from canal.training.together import help_training, trainer


def trainer_of(request: StageRequest) -> Callable[..., list[dict[str, float]]]:
    """Return how the stage's network is trained; a process that was started to help does so and does not return.

    Raises
    ------
    ConfigError
        If torchrun or SLURM started another number of processes than is asked for.
    StageError
        If a helper loses the others.
    SystemExit
        In a helper that has done its part: it touches neither data nor registry.
    """
    rank = started_outside(request.devices, request.nodes)
    if rank:
        help_training(request.devices, request.nodes)
        raise SystemExit(0)
    return trainer(request.devices, request.nodes)


def add_stage(
    layout: Layout, request: StageRequest, progress: Progress | None = None, *, number: int | None = None
) -> StageResult:
    """Learn a stage and commit it whole, or change nothing.

    Parameters
    ----------
    layout
        The workspace; it is made where there is none.
    request
        What to learn, and how.
    progress
        Told how far the training is.
    number
        Number of the stage; the next by default. Only a replay, which may have gaps, names one.

    Raises
    ------
    ConfigError, DataError, StageError, RegistryError
        If the preset, the file, the request or the registry does not allow it; nothing is written then.
    """
    train = trainer_of(request)
    begin = time.monotonic()
    start = find_start(layout, request)
    preset = start.preset
    cells = cells_of(request, require_two=not has_registry(layout))
    assert cells.labels is not None
    check_places(preset, tuple(set(cells.labels.tolist())))
    given = given_cells(request, cells)
    layout = Layout.init(layout.root, layout.server)
    with open_registry(layout, create=True).writing() as registry:
        records = registry.records()
        champion = registry.champion()
        parent = registry.record(champion) if champion is not None else None
        _refuse_again(request, cells, records)
        check_lineage(start, records, parent)
        refuse_trained(given, records)
        previous, bank = open_stage(registry, parent)
        number = next_number(records) if number is None else number
        overlap = _check_genes(previous, cells, preset)
        earlier = earlier_stages(registry, records, parent)
        label_warnings = _check_labels(request, previous, cells)
        key = _key(cells, start, request, parent)
        draft = registry.draft(key)
        if not request.resume:
            draft.clear()
        learned = learn_stage(
            previous, bank, cells, preset,
            stage=number, seed=request.seed, weights=start.weights, progress=progress or Silent(),
            checkpoint=(draft.folder / "checkpoint.safetensors", key), on_epoch=draft.log_epoch, train=train,
        )  # fmt: skip
        exam = examine(number, request, cells, learned, given, previous, champion, earlier, progress or Silent())
        record = _record(
            number, request, start, cells, parent, learned, exam, label_warnings, time.monotonic() - begin
        )  # fmt: skip
        files = _write(learned, exam, f"{number} {record.name}", draft.folder)
        committed = draft.commit(record, files, promote=not exam.held_back)
        champion = registry.champion()
    return _result(committed, overlap, cells, exam, champion)


def open_stage(registry: Registry, record: StageRecord | None) -> tuple[Annotator | None, CellPool]:
    """Return model and bank of a stage; no model and an empty bank where there is no stage yet."""
    if record is None:
        return None, CellPool.empty()
    folder = registry.artifacts(record)
    bank = folder / "bank.safetensors"
    return load_annotator(folder), load_bank(bank) if bank.is_file() else CellPool.empty()


def _refuse_again(request: StageRequest, cells: Cells, records: list[StageRecord]) -> None:
    for record in records:
        if cells.report.digest in {source.get("digest") for source in record.data} and not request.again:
            message = (
                f"{cells.report.path} holds the cells of stage {record.number} ({record.name}): the same content was "
                "added before. Choose another file, or add it once more with --again."
            )
            raise StageError(message)


def _check_genes(previous: Annotator | None, cells: Cells, preset: Preset) -> dict[str, Any]:
    if previous is None:
        return {"panel_genes": 0, "measured": 0, "share": 1.0}
    match = previous.panel.match(cells.genes, cells.ensembl)
    check_overlap(match, preset.genes.min_overlap, cells.report.path)
    return {
        "panel_genes": len(previous.panel),
        "measured": int(match.measured.sum()),
        "share": round(match.share, 4),
    }


def _check_labels(request: StageRequest, previous: Annotator | None, cells: Cells) -> list[LabelWarning]:
    if previous is None or cells.labels is None:
        return []
    known = previous.types
    new = sorted(set(cells.labels.tolist()) - set(known))
    found = similar_names(new, known)
    rows = np.flatnonzero(np.isin(cells.labels, new))
    if len(rows):
        predicted = previous.reader(cells.genes, cells.ensembl).best_types(cells.expression[rows])
        found += called_known(cells.labels[rows], predicted, known)
    if found and request.strict_labels:
        message = " ".join(w.message for w in found) + " Refused because of --strict-labels."
        raise StageError(message)
    return found


def _key(cells: Cells, start: Start, request: StageRequest, parent: StageRecord | None) -> str:
    """Name a training by all that decides its outcome, so that only the same one is resumed."""
    what = [cells.report.digest, dump_preset(start.preset), request.seed, parent.artifacts if parent else None]
    what += [start.digest] if start.digest else []
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _write(learned: LearnedStage, exam: Examination, title: str, folder: Path) -> dict[str, Path]:
    files = save_annotator(learned.annotator, folder) | write_reliability(learned.reliability, title, folder)
    files[TESTS] = folder / TESTS
    exam.tests.write(files[TESTS])
    if len(learned.bank):
        files["bank.safetensors"] = folder / "bank.safetensors"
        save_bank(learned.bank, files["bank.safetensors"])
    return files


def _record(
    number: int,
    request: StageRequest,
    start: Start,
    cells: Cells,
    parent: StageRecord | None,
    learned: LearnedStage,
    exam: Examination,
    label_warnings: list[LabelWarning],
    seconds: float,
) -> StageRecord:
    annotator, bank = learned.annotator, learned.bank
    known = set(parent.types) if parent is not None else set()
    # All that the new model holds: what its parent held under the same keys, and its own cells.
    keys = used_keys(annotator, bank)
    stages = ({} if parent is None else stages_by_key(parent, keys)) | {learned.key: number}
    return StageRecord(
        number=number,
        name=request.name or _name_of(request),
        parent=parent.number if parent is not None else None,
        seed=request.seed,
        preset=dump_preset(start.preset),
        types=annotator.types,
        new_types=tuple(t for t in annotator.types if t not in known),
        cells=len(cells),
        genes=len(annotator.panel),
        data=(asdict(cells.report) | source_of(request),),
        bank=bank_contents(bank, stages) | {"digest": bank_digest(bank)},
        metrics=_metrics(cells, learned) | exam.metrics,
        label_warnings=tuple(asdict(w) for w in label_warnings),
        seconds=round(seconds, 3),
        notes={
            **options_of(request),
            **start.note(learned.taken),
            "held_back": exam.held_back or None,
            "epochs": len(learned.history),
            **key_note(parent, stages),
        },
    )


def _name_of(request: StageRequest) -> str:
    if isinstance(request.data, str | Path):
        return Path(request.data).name.split(".")[0]
    return "stage"


def _metrics(cells: Cells, learned: LearnedStage) -> dict[str, float]:
    held = cells.take(learned.held_out)
    assert held.labels is not None
    figures = score(held.labels, learned.held_out_types)
    return {
        "validation_accuracy": figures["accuracy"],
        "validation_macro_f1": figures["macro_f1"],
        "validation_cells": float(len(held)),
        "expected_calibration_error": learned.reliability.error,
    }


def _result(
    record: StageRecord, overlap: dict[str, Any], cells: Cells, exam: Examination, champion: int | None
) -> StageResult:
    return StageResult(
        stage=record.number,
        name=record.name,
        version=record.version,
        parent=record.parent,
        champion=record.number == champion,
        types=tuple(record.types),
        new_types=tuple(record.new_types),
        cells=record.cells,
        genes=record.genes,
        gene_report=overlap,
        bank={k: record.bank[k] for k in ("size", "per_type")},
        metrics=record.metrics,
        warnings=(*cells.report.warnings, *weights_warnings(record), *exam.warnings),
        tested=tuple(exam.to_list()),
        label_warnings=tuple(record.label_warnings),
        seconds=record.seconds,
    )
