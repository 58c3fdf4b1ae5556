"""`canal stage add`: from a file of labelled cells to a committed stage.

`add_stage` is the whole of it, top to bottom; what it calls stands below it in the order of the calls.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from canal.config import Preset, dump_preset
from canal.data.cells import Cells, FileReport
from canal.data.labels import NOVEL, LabelWarning, called_known, coarser_names, similar_names
from canal.data.panel import check_overlap, symbols_note
from canal.errors import StageError
from canal.figures import score
from canal.files import short_digest
from canal.model.bank import bank_contents, bank_digest
from canal.model.completion import uncomparable_types
from canal.model.model import Model
from canal.model.record import VOTER_NOTE, StageRecord
from canal.model.stage_keys import key_note
from canal.model.sure import SureCalibration
from canal.model.voter import Voter, VoterReader, measured_threshold
from canal.ontology.placement import BROAD, Place, Placement
from canal.progress import Progress, Silent
from canal.registry.commit import StageDraft
from canal.registry.registry import Registry
from canal.stages.layout import Layout, has_registry, open_registry
from canal.stages.placing import ONTOLOGY, check_places, place_types
from canal.stages.request import StageRequest, StageResult, read_stage_cells, recorded_options, recorded_source
from canal.stages.starting import Start, check_weights_lineage, find_start, weights_warnings
from canal.stages.testing.examination import Examination, TestCells, examine, read_test_file, refuse_trained_on
from canal.stages.testing.incoming import (
    IncomingAnswers,
    IncomingFigures,
    answer_by_voter,
    answer_incoming,
    incoming_figures,
)
from canal.stages.testing.tests import earlier_stages, write_reliability
from canal.stages.use import lineage, next_number
from canal.training.distributed import help_training
from canal.training.fitting import type_index
from canal.training.processes import launched_rank
from canal.training.run import Run
from canal.training.stage import LearnedStage, check_bank_size, learn_stage

MOST_KINDS = 4  # names of kinds that a sentence lists
FEWEST_FINER = 2  # names that a type is split into


def add_stage(
    layout: Layout, request: StageRequest, progress: Progress | None = None, *, number: int | None = None
) -> StageResult:
    """Learn a stage and commit it, whole or not at all.

    Parameters
    ----------
    layout
        The workspace; it is made where there is none.
    request
        What to learn, and how.
    progress
        Told how far the training is.
    number
        Number of the stage; the next free one by default. Only a replay, whose numbers may have gaps, names one.

    Raises
    ------
    ConfigError, DataError, StageError, RegistryError
        If the preset, the file, the request or the registry does not allow it; nothing is written then.
    """
    help_if_started_to(request)
    begin = time.monotonic()
    # 1. Preset, cells and test cells: all that can be refused before there is a registry. The file is read once.
    start = find_start(layout, request)
    cells = read_stage_cells(request, require_two=not has_registry(layout), keep_stored=True)
    assert cells.labels is not None
    check_bank_size(start.preset, tuple(set(cells.labels.tolist())))
    test_file = read_test_file(request, cells)
    check_places(request.ontology)
    # 2. One writer at a time.
    layout = Layout.init(layout.root, layout.server)
    with open_registry(layout, create=True).writing() as registry:
        base, records = registry.model_in_use(), registry.records()
        # 3. Everything that is refused with the registry in sight.
        accepted = check_stage(request, start, cells, test_file, base, records)
        parent = accepted.parent
        accepted = accepted if number is None else replace(accepted, number=number)
        placement, unplaced = _placement(layout, request, cells, parent)
        earlier = earlier_stages(registry, records, None if base is None else base.stage)
        # 4. Learn; a killed run goes on from its last epoch.
        run, draft = begin_run(registry, request, accepted, progress or Silent())
        learned = learn_stage(parent, cells, start.preset, run, start.weights, placement, request.split)
        if placement is not None:
            learned = with_sure_answers(learned, parent, cells, placement)
        if base is not None and base.voter is not None:
            learned = with_voter(learned, base.voter, cells)
        # 5. Test on the held-out cells of this stage and of those before it.
        exam = examine(request, cells, learned, test_file, parent, earlier, run)
        # 6. Commit whole. A stage that forgets too much stays a candidate.
        record = _record(request, accepted, learned, exam, run, time.monotonic() - begin)
        files = _files(learned, exam, f"{record.number} {record.name}", draft.folder)
        committed = draft.commit(record, files, promote=request.promote and not exam.held_back)
        in_use = registry.champion() == committed.number
    warned = (*exam.warnings, *uncomparable_warnings(learned), *unplaced, *kinds_warnings(learned.model, parent))
    return _result(committed, accepted, exam, warned, in_use=in_use)


def help_if_started_to(request: StageRequest) -> None:
    """In a process that torchrun or SLURM started to train along with others: do so and exit; else return at once.

    Raises
    ------
    ConfigError
        If torchrun or SLURM started another number of processes than is asked for.
    StageError
        If a helping process loses the others.
    SystemExit
        In a helping process that has done its part: it touches neither data nor registry.
    """
    if launched_rank(request.devices, request.nodes):
        help_training(request.devices, request.nodes)
        raise SystemExit(0)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A request that passed every check, and what the checks found.

    Attributes
    ----------
    start, cells
        Preset and weights; the labelled cells.
    base
        Model in use, ``None`` at the first stage.
    parent
        The same, ``None`` where it is a voter alone: nothing of that is trained further.
    number
        Number of the new stage.
    gene_report
        How many genes of the parent's gene panel the cells measure.
    warnings
        What the person is told of the genes.
    label_warnings
        Names of new types that may be known types under another name.
    incoming
        What the parent reaches on the cells of known types; ``None`` without a parent or such cells.
    """

    start: Start
    cells: Cells
    base: Model | None
    parent: Model | None
    number: int
    gene_report: dict[str, Any]
    warnings: tuple[str, ...]
    label_warnings: tuple[LabelWarning, ...]
    incoming: IncomingFigures | None


def check_stage(
    request: StageRequest,
    start: Start,
    cells: Cells,
    test_file: TestCells | None,
    base: Model | None,
    records: Sequence[StageRecord],
) -> Accepted:
    """Refuse a stage that does not fit the stages so far; ``base`` is the model in use.

    Raises
    ------
    DataError, StageError
        If the cells were added before, the parent's network comes from other weights, an earlier stage was trained on
        the test cells, too few genes are measured, or ``--strict-labels`` finds a name that looks like a known type.
    """
    parent = None if base is None or not base.is_taught else base
    _refuse_repeated(request, cells, base, records)
    _check_split(request, cells, parent)
    check_weights_lineage(start, records, None if parent is None else parent.stage)
    refuse_trained_on(test_file, records)
    gene_report, warnings = _check_genes(parent, cells, start.preset)
    # What the model in use answers on these cells, while it has not learned them.
    answers = _incoming(base, cells)
    return Accepted(
        start=start,
        cells=cells,
        base=base,
        parent=parent,
        number=next_number(records),
        gene_report=gene_report,
        warnings=warnings,
        label_warnings=tuple(_check_labels(request, base, cells, answers)),
        incoming=None if base is None or answers is None else incoming_figures(answers, base.answers),
    )


def _incoming(base: Model | None, cells: Cells) -> IncomingAnswers | None:
    """Return what the model in use answers on the cells of a new file; ``None`` before the first stage."""
    if base is None:
        return None
    if base.is_taught:
        return answer_incoming(base, cells)
    assert base.voter is not None
    return answer_by_voter(base.voter, cells)


def _refuse_repeated(request: StageRequest, cells: Cells, parent: Model | None, records: Sequence[StageRecord]) -> None:
    """Refuse cells that a stage was learned from already, unless the request says that this is meant."""
    if request.again:
        return
    learned_from = [] if parent is None else lineage(records, parent.stage.number)
    for record in records:
        if cells.report.digest not in {source.get("digest") for source in record.data}:
            continue
        stage = f"stage {record.number} ({record.name})"
        if record.number in learned_from or parent is None:
            message = (
                f"{cells.report.path} holds the cells of {stage}: the same content was added before. Choose another "
                "file, or add it once more with --again."
            )
        else:
            # Rolled back, or held back when it was added.
            message = (
                f"{cells.report.path} holds the cells of {stage}, which is kept but not in use: stage "
                f"{parent.stage.number} annotates, and was not learned from it. Bring it back with `canal stage "
                f"promote {record.number}`, or learn the cells anew on top of stage {parent.stage.number} with --again."
            )
        raise StageError(message)


def _check_split(request: StageRequest, cells: Cells, parent: Model | None) -> None:
    """Refuse to split what is no type, and into what are not at least two new ones."""
    if request.split is None:
        return
    assert cells.labels is not None
    finer = sorted(set(cells.labels.tolist()))
    where = f"{cells.report.path} has the labels {', '.join(map(repr, finer[:MOST_KINDS]))}"
    if parent is None:
        message = f"There is no model yet whose type {request.split!r} could be split. Teach one: canal stage add."
    elif request.split not in parent.types:
        message = f"The model in use knows no type {request.split!r}. Its types: {', '.join(parent.types)}."
    elif known := [name for name in finer if name in parent.types]:
        message = (
            f"{where}; {known[0]!r} is a type already. Expected cells of {request.split!r} alone, under new, finer "
            "names: leave the others out, or name them anew with --label-map."
        )
    elif len(finer) < FEWEST_FINER:
        message = f"{where}: expected {FEWEST_FINER} finer names at least. To give one other name: canal labels rename."
    else:
        return
    raise StageError(message)


def _check_genes(parent: Model | None, cells: Cells, preset: Preset) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return how many genes of the parent's panel the cells measure, and warnings; refuse too few."""
    if parent is None:
        return {"panel_genes": 0, "measured": 0, "share": 1.0}, ()
    match = parent.panel.match(cells.genes)
    in_memory = 0 if parent.memory is None else int(parent.memory.panel.match(cells.genes).measured.sum())
    check_overlap(match, preset.genes.min_overlap, cells.report.path, in_memory)
    report = {
        "panel_genes": len(parent.panel),
        "measured": int(match.measured.sum()),
        "share": round(match.share, 4),
    }
    note = symbols_note(match, cells.report.path)
    return report, () if note is None else (note,)


def _check_labels(
    request: StageRequest, base: Model | None, cells: Cells, answers: IncomingAnswers | None
) -> list[LabelWarning]:
    """Return which names of new types may stand for known types; refuse them with ``--strict-labels``."""
    if base is None or answers is None or cells.labels is None:
        return []
    known = base.answers
    new = sorted(set(cells.labels.tolist()) - set(known))
    # By their spelling, and by what the model in use calls the cells that bear them. What it calls a cell that it takes
    # for novel says nothing of the name.
    warnings = similar_names(new, known)
    rows = np.flatnonzero(np.isin(answers.labels, new))
    called = np.where(answers.looks_known, answers.predicted, NOVEL)[rows]
    warnings += called_known(answers.labels[rows], called, known)
    warnings += coarser_names(answers.labels[rows], called, known)
    if warnings and request.strict_labels:
        message = " ".join(warning.message for warning in warnings) + " Refused because of --strict-labels."
        raise StageError(message)
    return warnings


def _placement(
    layout: Layout, request: StageRequest, cells: Cells, parent: Model | None
) -> tuple[Placement | None, tuple[str, ...]]:
    """Return where the types of the model will stand in the Cell Ontology, if that is asked for, and warnings."""
    if request.ontology is None:
        return None, ()
    assert cells.labels is not None
    before = None if parent is None or parent.sure is None else parent.sure.placement
    names = sorted(set(cells.labels.tolist()))
    placement, unplaced = place_types(layout, request.ontology, names, before)
    if request.split is None or placement.node(request.split) is None:
        return placement, unplaced
    # Finer names without a term hang below the type that is split.
    below = {}
    for name in names:
        if placement.node(name) is None:
            below[name] = Place(name, "", "", BROAD, request.split)
    return placement.joined(Placement(placement.release, below)), ()


def with_sure_answers(learned: LearnedStage, parent: Model | None, cells: Cells, placement: Placement) -> LearnedStage:
    """Return what was learned with a model that answers as specifically as it is sure of.

    Its network and memory stay as they are: the held-out cells say from which probability on a term above some types is
    as good as certain.
    """
    assert cells.labels is not None
    before = None if parent is None else parent.sure
    nodes_only = (before or SureCalibration(placement=placement)).with_stage(learned.key, placement, np.zeros(0))
    model = replace(learned.model, sure=nodes_only)
    assert model.nodes is not None
    truth = type_index(cells.labels[learned.held_out], model.types)
    highest_wrong = model.nodes.highest_wrong(learned.held_out_probabilities, truth)
    sure = nodes_only.with_stage(learned.key, placement, highest_wrong)
    return replace(learned, model=replace(model, sure=sure))


def with_voter(learned: LearnedStage, voter: Voter, cells: Cells) -> LearnedStage:
    """Return what was learned with the voter that the line started from, for the types that nobody taught.

    The held-out cells are of taught types: they say from which odds on the voter may take a cell from these.
    """
    held = cells.take(learned.held_out)
    reader = VoterReader(voter, learned.model.types, held.genes)
    threshold = measured_threshold(reader, held.expression[:, reader.columns], learned.held_out_probabilities)
    return replace(learned, model=replace(learned.model, voter=voter.with_stage(learned.key, threshold)))


def kinds_warnings(model: Model, parent: Model | None) -> list[str]:
    """Return a sentence for every type that answers as one of its kinds from this stage on, or as one of others."""
    before = {} if parent is None else parent.kinds
    warnings = []
    for coarse, kinds in model.kinds.items():
        if before.get(coarse) != kinds:
            shown = ", ".join(map(repr, kinds[:MOST_KINDS])) + (", ..." if len(kinds) > MOST_KINDS else "")
            otherwise = "" if coarse in model.split else " Teach without --ontology to keep it a type beside them."
            warnings.append(
                f"{coarse!r} is a name for {len(kinds)} of the types ({shown}): its cells teach these, and are "
                f"answered as one of them.{otherwise}"
            )
    return warnings


def begin_run(
    registry: Registry, request: StageRequest, accepted: Accepted, progress: Progress
) -> tuple[Run, StageDraft]:
    """Return the training to do and its working folder; it begins anew unless the request says to resume."""
    # What a run that was killed left behind lies in the folder of the same key.
    draft = registry.draft(_training_key(request, accepted))
    if not request.resume:
        draft.clear()
    run = Run(
        number=accepted.number,
        seed=request.seed,
        progress=progress,
        draft=draft,
        devices=request.devices,
        nodes=request.nodes,
    )
    return run, draft


def _training_key(request: StageRequest, accepted: Accepted) -> str:
    """Return a digest of all that decides the outcome of a training, so that only the same training is resumed."""
    start, parent = accepted.start, accepted.parent
    parent_files = None if parent is None else parent.stage.artifacts
    inputs = [accepted.cells.report.digest, dump_preset(start.preset), request.seed, parent_files]
    # Only with weights, so that the keys of runs without any stay those of older versions.
    if start.digest:
        inputs.append(start.digest)
    return short_digest(inputs)


def _record(
    request: StageRequest,
    accepted: Accepted,
    learned: LearnedStage,
    exam: Examination,
    run: Run,
    seconds: float,
) -> StageRecord:
    """Return what the registry keeps of the stage."""
    model, parent, start = learned.model, accepted.parent, accepted.start
    base = accepted.base
    known = set() if base is None else {*base.stage.types, *base.answers}
    # All that the new model holds: what its parent held under the same keys, and its own cells.
    stages = ({} if parent is None else parent.stage_of_key) | {learned.key: run.number}
    notes = {
        **recorded_options(request),
        **start.note(learned.pretrained_genes),
        "held_back": exam.held_back or None,
        "epochs": len(learned.history),
        **key_note(None if base is None else base.stage, stages),
        **model.voter_note,
    }
    if model.sure is not None:
        notes[ONTOLOGY] = model.sure.placement.to_dict()
    return StageRecord(
        number=run.number,
        name=request.name or _default_name(request),
        parent=base.stage.number if base is not None else None,
        seed=run.seed,
        preset=dump_preset(start.preset),
        types=model.types,
        new_types=tuple(name for name in model.types if name not in known),
        cells=len(accepted.cells),
        genes=len(model.panel),
        data=(asdict(accepted.cells.report) | recorded_source(request),),
        bank=bank_contents(model.bank, stages) | {"digest": bank_digest(model.bank)},
        metrics=_metrics(accepted, learned) | exam.metrics,
        label_warnings=tuple(asdict(warning) for warning in accepted.label_warnings),
        seconds=round(seconds, 3),
        notes=notes,
    )


def _default_name(request: StageRequest) -> str:
    """Return the name of the file without its endings."""
    if isinstance(request.data, str | Path):
        return Path(request.data).name.split(".")[0]
    return "stage"


def _metrics(accepted: Accepted, learned: LearnedStage) -> dict[str, float]:
    """Return the figures on the held-out cells, as they were annotated before the memory learned them, too.

    Beside them stands what the model in use reached on all cells of known types before any of them was learned.
    """
    held_out = accepted.cells.take(learned.held_out)
    assert held_out.labels is not None
    figures = score(held_out.labels, learned.held_out_types)
    return {
        "validation_accuracy": figures["accuracy"],
        "validation_macro_f1": figures["macro_f1"],
        "validation_cells": float(len(held_out)),
        "expected_calibration_error": learned.reliability.error,
    } | ({} if accepted.incoming is None else accepted.incoming.metrics())


def _files(learned: LearnedStage, exam: Examination, title: str, folder: Path) -> dict[str, Path]:
    """Write the stage's files into its working folder and return them by name."""
    reliability = write_reliability(learned.reliability, title, folder)
    return learned.model.save(folder) | reliability | exam.tests.write(folder)


def _left_out(report: FileReport) -> dict[str, int]:
    """Return how many cells of the file were not learned, by the reason: no label, a label left out, a rare type."""
    by_name = sum(report.dropped_labels.values())
    return {
        "unlabelled": report.unlabelled - by_name,
        "dropped_labels": by_name,
        "rare_types": sum(report.dropped_types.values()),
    }


def uncomparable_warnings(learned: LearnedStage) -> list[str]:
    """Return a sentence about the types of the stage that cannot be recognised through the genes of other stages."""
    memory = learned.model.memory
    if memory is None:
        return []
    names = list(uncomparable_types(memory, learned.key))
    if not names:
        return []
    return [
        f"{', '.join(map(repr, names))} cannot be compared with the known types through genes that only earlier stages "
        "measured: the file has too few genes in common with them, too few cells, or no labelled cells of a type that "
        "they hold. In files that measure those genes they will mostly be missed. Teach them along with cells of known "
        "types (`canal novel name --with-known` does), or from a file with more genes."
    ]


def _result(
    record: StageRecord, accepted: Accepted, exam: Examination, warned: Sequence[str], *, in_use: bool
) -> StageResult:
    """Return what the caller is told, from what was committed; ``warned`` is what learning and tests have shown."""
    # The report of the file comes first, then what the record and the tests add.
    warnings = (*accepted.cells.report.warnings, *accepted.warnings, *weights_warnings(record), *warned)
    return StageResult(
        stage=record.number,
        name=record.name,
        version=record.version,
        parent=record.parent,
        champion=in_use,
        types=tuple(record.types),
        new_types=tuple(record.new_types),
        cells=record.cells,
        genes=record.genes,
        gene_report=accepted.gene_report,
        bank={"size": record.bank["size"], "per_type": record.bank["per_type"]},
        metrics=record.metrics,
        warnings=warnings,
        left_out=_left_out(accepted.cells.report),
        voter=record.notes.get(VOTER_NOTE),
        tested=tuple(exam.to_list()),
        incoming=None if accepted.incoming is None else accepted.incoming.to_dict(),
        label_warnings=tuple(record.label_warnings),
        seconds=record.seconds,
    )
