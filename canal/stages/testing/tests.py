"""Tests of a stage: what its model answers on the held-out cells of its own and of earlier stages.

Top to bottom: what is kept beside the model as ``tests.json`` (references and counts, no cell and no expression); the
tests of a new model; whether its accuracy falls too much for it to come into use; the figures for the record; and how
well confidence met accuracy, kept as ``reliability.json`` and drawn beside it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canal.config import PromotionConfig
from canal.data.cells import Cells
from canal.errors import DataError, RegistryError
from canal.figures import Counts, Figures, confusion_counts, continual, figures_of
from canal.files import refuse_newer
from canal.model.model import Model
from canal.model.record import IMPORTED, StageRecord
from canal.model.reliability import Reliability
from canal.progress import Progress
from canal.registry.registry import Registry
from canal.stages.novelty_rules import ALPHA, judging_reader
from canal.stages.testing.held_out import HeldOutReference, read_held_out
from canal.stages.use import lineage, renamed_since

TESTS_FILE = "tests.json"
FORMAT = 2  # of that file; 1 knew no false alarms; a higher one was written by a newer canal


class Outcome(BaseModel):
    """What a model answers on the test cells of one stage.

    Attributes
    ----------
    stage
        The stage the cells come from.
    digest
        Of the cells, as in their `HeldOutReference`.
    counts
        Given type -> predicted type -> cells; empty where the model was not tested.
    reason
        Why it was not tested; empty where it was.
    judged, alarms
        Cells of types that the model knows, and how many of them it calls novel at `ALPHA`; 0 cells where it cannot
        tell, or was tested by an older canal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: int
    digest: str
    counts: Counts = Field(default_factory=dict)
    reason: str = ""
    judged: int = 0
    alarms: int = 0

    @property
    def figures(self) -> Figures:
        """Accuracy, macro-F1 and figures per type."""
        return figures_of(self.counts)

    @property
    def false_alarms(self) -> float | None:
        """Share of the cells of known types that are called novel; ``None`` where nobody looked."""
        return self.alarms / self.judged if self.judged else None


class StageTests(BaseModel):
    """The content of ``tests.json``.

    Attributes
    ----------
    own
        The stage's own test cells, on which later stages are tested, too; ``None`` where there are none.
    outcomes
        One for each stage, whether the model was tested on its cells or not, ascending.
    history
        Figures of each epoch of the training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    own: HeldOutReference | None
    outcomes: tuple[Outcome, ...] = ()
    history: tuple[dict[str, float], ...] = ()

    def outcome(self, stage: int, digest: str) -> Outcome | None:
        """Return what the model answered on these cells of a stage, ``None`` if it was not tested on them."""
        for outcome in self.outcomes:
            if outcome.stage == stage and outcome.digest == digest and outcome.counts:
                return outcome
        return None

    def write(self, folder: Path) -> dict[str, Path]:
        """Write the file into a folder and return it by name; the same tests give the same bytes."""
        path = folder / TESTS_FILE
        path.write_text(json.dumps(self.model_dump(mode="json"), ensure_ascii=False), encoding="utf-8")
        return {TESTS_FILE: path}


def finite_history(history: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], ...]:
    """Return the figures of each epoch without those that are not finite, which JSON cannot hold."""
    epochs = []
    for epoch in history:
        epochs.append({name: float(value) for name, value in epoch.items() if math.isfinite(float(value))})
    return tuple(epochs)


def read_tests(registry: Registry, record: StageRecord) -> StageTests:
    """Return the tests of a committed stage; empty ones for a stage of an older canal that kept none.

    Raises
    ------
    RegistryError
        If the file is missing, altered, or of a newer canal.
    """
    path = registry.file(record, TESTS_FILE)
    if path is None:
        return StageTests(own=None)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        refuse_newer(path, table["format"], FORMAT)
        tests = StageTests.model_validate(table)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        message = f"{path} does not hold the tests of a stage: {error}. Restore it from a backup."
        raise RegistryError(message) from error
    return _of_import(tests, record.number) if IMPORTED in record.notes else tests


def _of_import(tests: StageTests, number: int) -> StageTests:
    """Return the tests of an imported stage under its number here.

    The other outcomes are of stages of the registry it comes from, whose numbers are other stages' here.
    """
    digest = None if tests.own is None else tests.own.digest
    own = [outcome for outcome in tests.outcomes if outcome.digest == digest]
    outcomes = tuple(outcome.model_copy(update={"stage": number}) for outcome in own[-1:])
    return tests.model_copy(update={"outcomes": outcomes})


# Earlier stages a new one is tested on, the newest first: adding a stage must not take longer and longer.
MOST_EARLIER_STAGES = 20


@dataclass(frozen=True, kw_only=True)
class EarlierStage:
    """An earlier stage on whose cells a new model is tested.

    Attributes
    ----------
    number, name
        Of the stage.
    reference
        Its test cells.
    tests
        What its own model answered.
    outcome_in_use
        What the model in use answers on its cells, ``None`` if it was not tested on them.
    fewer_genes
        The same cells on the genes of the new stage alone, answered by the new model and by the model in use;
        ``None`` where the new stage has nearly all genes that the models know of these cells.
    names
        Names of types that were renamed since, by those of then.
    """

    number: int
    name: str
    reference: HeldOutReference
    tests: StageTests
    outcome_in_use: Outcome | None
    fewer_genes: tuple[Outcome, Outcome] | None = None
    names: Mapping[str, str] = field(default_factory=dict)


def earlier_stages(
    registry: Registry, records: Sequence[StageRecord], in_use: StageRecord | None
) -> list[EarlierStage]:
    """Return the stage in use and the stages it was learned from, as far as they have test cells, the first first."""
    if in_use is None:
        return []
    # Stages that were taken out of the model are not to be remembered: nothing is tested on their cells.
    by_number = {record.number: record for record in records}
    tests_in_use = read_tests(registry, in_use)
    renamed = renamed_since(records, in_use.number)
    earlier = []
    for number in lineage(records, in_use.number, without_removed=True):
        tests = read_tests(registry, by_number[number])
        # A removal has no cells of its own, nor has a stage of an older canal.
        if tests.own is None:
            continue
        stage = EarlierStage(
            number=number,
            name=by_number[number].name,
            reference=tests.own,
            tests=tests,
            outcome_in_use=tests_in_use.outcome(number, tests.own.digest),
            names=renamed.get(number, {}),
        )
        earlier.append(stage)
    return earlier


def measure_outcome(model: Model, cells: Cells, stage: int, digest: str) -> Outcome:
    """Annotate the labelled test cells of a stage and count the answers.

    Raises
    ------
    DataError
        If the cells measure too few genes of the model.
    """
    assert cells.labels is not None
    reader = model.reader(cells.genes)
    reader.check_overlap(cells.report.path)
    # With novelty where the model can tell.
    prediction = judging_reader(reader).predict(cells.expression)
    predicted, _ = reader.answered(prediction)
    judged = alarms = 0
    if prediction.novelty is not None:
        known = np.isin(cells.labels, list(model.types))
        judged, alarms = int(known.sum()), int((prediction.novelty.p_value[known] <= ALPHA).sum())
    counts = confusion_counts(cells.labels, model.as_labelled(cells.labels, predicted))
    return Outcome(stage=stage, digest=digest, counts=counts, judged=judged, alarms=alarms)


# A stage that has this share of the genes that the model in use knows of an earlier stage's cells tells them as well.
NEARLY_ALL = 0.9


def on_fewer_genes(model: Model, parent: Model, stage: int, cells: Cells) -> Cells | None:
    """Return cells of an earlier stage as a file with the genes of a new stage would hold them.

    Parameters
    ----------
    model, parent
        The new model and the model in use.
    stage
        Number under which the memory of the new model keeps the new stage.
    cells
        Of the earlier stage.

    Returns
    -------
    ``None`` where there are no statistics, or the new stage has `NEARLY_ALL` genes that ``parent`` knows of them, or
    fewer than the model asks of a file.
    """
    if model.memory is None or parent.memory is None or stage not in model.memory.measured:
        return None
    columns = model.memory.panel.match(cells.genes).columns
    known = parent.memory.panel.match(cells.genes).columns
    kept = columns[model.memory.measured[stage]]
    kept, known = np.sort(kept[kept >= 0]), known[known >= 0]
    if len(np.intersect1d(kept, known)) >= NEARLY_ALL * len(known):
        return None
    fewer = replace(cells, expression=cells.expression[:, kept], genes=cells.genes.take(kept), stored=None)
    try:
        for asked in (model, parent):
            asked.reader(fewer.genes).check_overlap(fewer.report.path)
    except DataError:
        return None
    return fewer


def measure_earlier_stages(
    model: Model, parent: Model | None, earlier: Sequence[EarlierStage], progress: Progress, new: int | None = None
) -> tuple[list[Outcome], list[EarlierStage]]:
    """Test a new model on the cells of earlier stages, the newest `MOST_EARLIER_STAGES` of them.

    Parameters
    ----------
    model, parent
        The new model; the model in use, which is tested, too, where no outcome of it was kept.
    earlier
        The earlier stages, the first one first.
    progress
        Told about every stage.
    new
        Number under which the memory keeps the stage that was learned: on its genes alone both models are tested, too,
        because it may have taught types that files with other genes now look like. ``None`` where none was learned.

    Returns
    -------
    An outcome for each earlier stage, with a reason where the model was not tested; the earlier stages with the
    outcomes of the model in use.
    """
    if not earlier:  # the first stage: nothing is tested, and nobody is told that something is
        return [], []
    outcomes, with_outcome_in_use = [], []
    skipped = max(len(earlier) - MOST_EARLIER_STAGES, 0)  # the oldest
    progress.start(len(earlier), "testing on earlier stages")
    for position, stage in enumerate(earlier):
        digest, in_use, fewer_genes = stage.reference.digest, stage.outcome_in_use, None
        try:
            cells = _test_cells(stage, skip=position < skipped)
            outcomes.append(measure_outcome(model, cells, stage.number, digest))
            # The model in use may have been learned when these cells could not be read, or by an older canal.
            unknown = in_use is None or (outcomes[-1].judged > 0 and in_use.judged == 0)
            if unknown and parent is not None:
                in_use = measure_outcome(parent, cells, stage.number, digest)
            # Both models on the genes of the new stage.
            fewer = None
            if new is not None and parent is not None:
                fewer = on_fewer_genes(model, parent, new, cells)
            if fewer is not None and parent is not None:
                by_new = measure_outcome(model, fewer, stage.number, digest)
                fewer_genes = (by_new, measure_outcome(parent, fewer, stage.number, digest))
        except DataError as error:
            # A file that is gone or was changed is no reason to refuse a stage; the answer says what was not tested.
            outcomes.append(Outcome(stage=stage.number, digest=digest, reason=str(error)))
        with_outcome_in_use.append(replace(stage, outcome_in_use=in_use, fewer_genes=fewer_genes))
        progress.advance(1, f"stage {stage.number}, {stage.name}")
    progress.close()
    return outcomes, with_outcome_in_use


def _test_cells(earlier: EarlierStage, *, skip: bool) -> Cells:
    """Read the test cells of a stage; one that is to be skipped is an error that says so, as any other reason."""
    if skip:
        message = (
            f"A new stage is tested on the {MOST_EARLIER_STAGES} newest; `canal compare --recompute` tests it on all."
        )
        raise DataError(message)
    return read_held_out(earlier.reference).renamed(earlier.names)


ONE_SIDED_95 = 1.645  # the 95 % quantile of the standard normal distribution


@dataclass(frozen=True, kw_only=True)
class AccuracyChange:
    """Accuracy of a new model and of the model in use on the test cells of one earlier stage.

    The field names are keys of the JSON of `canal stage add` and `canal stage remove`.

    Attributes
    ----------
    stage, name
        The stage the cells come from.
    accuracy, before
        Of the new model and of the model in use, ``None`` where it was not tested.
    reason
        Why the new model was not tested; empty where it was.
    cells
        Number of cells it was tested on.
    false_alarms, false_alarms_before
        Share of the cells of known types that each of them calls novel at `ALPHA`; ``None`` where it cannot tell.
    fewer_genes_accuracy, fewer_genes_before
        Accuracy of both on the genes of the new stage alone, where it measured clearly fewer; ``None`` elsewhere.
    """

    stage: int
    name: str
    accuracy: float | None
    before: float | None
    reason: str = ""
    cells: int = 0
    false_alarms: float | None = None
    false_alarms_before: float | None = None
    fewer_genes_accuracy: float | None = None
    fewer_genes_before: float | None = None

    @property
    def fall(self) -> float:
        """How much accuracy falls beyond what chance explains, on all genes or on those of the new stage."""
        return max(
            _clear_change(self.accuracy, self.before, self.cells),
            _clear_change(self.fewer_genes_accuracy, self.fewer_genes_before, self.cells),
        )

    @property
    def alarm_growth(self) -> float:
        """How much the share of false alarms grows beyond what chance explains."""
        return _clear_change(self.false_alarms_before, self.false_alarms, self.cells)


def _clear_change(low: float | None, high: float | None, cells: int) -> float:
    """Return by how much the second of two shares of some cells is clearly higher; 0 where one is not known.

    The lower bound of a one-sided 95 % interval for the difference of two shares: of 30 cells, two that flip are no
    reason to hold a stage back.
    """
    if low is None or high is None or not cells:
        return 0.0
    variance = (low * (1 - low) + high * (1 - high)) / cells
    return high - low - ONE_SIDED_95 * math.sqrt(variance)


def accuracy_changes(outcomes: Sequence[Outcome], earlier: Sequence[EarlierStage]) -> list[AccuracyChange]:
    """Put the outcomes of a new model beside those of the model in use, for each earlier stage."""
    changes = []
    for outcome, stage in zip(outcomes, earlier, strict=True):
        tested, in_use = bool(outcome.counts), stage.outcome_in_use
        change = AccuracyChange(
            stage=stage.number,
            name=stage.name,
            accuracy=outcome.figures.accuracy if tested else None,
            before=None if in_use is None else in_use.figures.accuracy,
            reason=outcome.reason,
            cells=outcome.figures.cells if tested else 0,
            false_alarms=outcome.false_alarms,
            false_alarms_before=None if in_use is None else in_use.false_alarms,
            fewer_genes_accuracy=None if stage.fewer_genes is None else stage.fewer_genes[0].figures.accuracy,
            fewer_genes_before=None if stage.fewer_genes is None else stage.fewer_genes[1].figures.accuracy,
        )
        changes.append(change)
    return changes


def reason_to_hold_back(
    number: int, in_use: int | None, changes: Sequence[AccuracyChange], bounds: PromotionConfig
) -> str:
    """Return why a new stage must not come into use in place of the one in use; empty where it may."""
    reasons = []
    # 1. Earlier types are forgotten.
    fallen = [change for change in changes if change.fall > bounds.max_fall]
    if fallen:
        where = "; ".join(f"of stage {c.stage} ({c.name}) {_fall_in_words(c)}" for c in fallen)
        reasons.append(
            f"Accuracy on the held-out cells {where} falls by clearly more than {bounds.max_fall:g} "
            "(promotion.max_fall)"
        )
    # 2. Cells of known types come to look novel.
    alarmed = [change for change in changes if change.alarm_growth > bounds.max_alarms]
    if alarmed:
        where = "; ".join(
            f"of stage {c.stage} ({c.name}) from {c.false_alarms_before:.4f} to {c.false_alarms:.4f}" for c in alarmed
        )
        reasons.append(
            f"The share of known held-out cells called novel {where} grows by clearly more than "
            f"{bounds.max_alarms:g} (promotion.max_alarms)"
        )
    if not reasons:
        return ""
    return (
        f"{'. '.join(reasons)}: stage {number} stays a candidate, and stage {in_use} goes on annotating. "
        f"See `canal stage diff {in_use} {number}`; "
        f"`canal stage promote {number}` uses it all the same."
    )


def _fall_in_words(change: AccuracyChange) -> str:
    """Return from what to what accuracy falls, on all genes or on those of the new stage."""
    if _clear_change(change.accuracy, change.before, change.cells) == change.fall:
        return f"from {change.before:.4f} to {change.accuracy:.4f}"
    return (
        f"from {change.fewer_genes_before:.4f} to {change.fewer_genes_accuracy:.4f} "
        "(looked at through the genes of the new stage alone)"
    )


def untested_warning(changes: Sequence[AccuracyChange]) -> str:
    """Return which earlier stages a new model could not be tested on, and why; empty where there are none."""
    untested = [change for change in changes if change.accuracy is None]
    if not untested:
        return ""
    shown = "; ".join(f"stage {change.stage}: {change.reason}" for change in untested[:3])
    more = f"; and {len(untested) - 3} more" if len(untested) > 3 else ""
    return f"Not tested on {len(untested)} of {len(changes)} earlier stages ({shown}{more})"


def figures_for_record(number: int, tests: StageTests, earlier: Sequence[EarlierStage]) -> dict[str, float]:
    """Return the figures for the record and for MLflow: per earlier stage, and of continual learning over all."""
    # 1. Of the new model on the cells of each stage.
    metrics: dict[str, float] = {}
    for outcome in tests.outcomes:
        if outcome.counts:
            metrics[f"test/{outcome.stage}/accuracy"] = outcome.figures.accuracy
            metrics[f"test/{outcome.stage}/macro_f1"] = outcome.figures.macro_f1
    # 2. Which stages have cells: the columns of the table of continual learning.
    stages = [stage.number for stage in earlier]
    if tests.own is not None:
        stages.append(number)
    if not stages:
        return metrics
    # 3. The accuracy of each stage's own model on the cells of all: its rows, the new model last.
    models = [*(stage.tests for stage in earlier), tests]
    table = np.full((len(models), len(stages)), np.nan)
    for row, model_tests in enumerate(models):
        for outcome in model_tests.outcomes:
            if outcome.counts and outcome.stage in stages:
                table[row, stages.index(outcome.stage)] = outcome.figures.accuracy
    # Rows and columns stand for the same stages, so that row j is the own model of column j.
    figures = continual(table, range(len(stages))).to_dict()
    figures["average_accuracy"] = figures.pop("average")
    for name, value in figures.items():
        if value is not None:
            metrics[name] = value
    return metrics


# How often answers of each confidence were right: figures, and a picture of them.
RELIABILITY_FILE, RELIABILITY_PICTURE = "reliability.json", "reliability.svg"


def write_reliability(reliability: Reliability, title: str, folder: Path) -> dict[str, Path]:
    """Write figures and picture of a stage's reliability into a folder and return the files by name."""
    from canal.report.plots import reliability_figure

    figures, picture = folder / RELIABILITY_FILE, folder / RELIABILITY_PICTURE
    figures.write_text(json.dumps(reliability.to_dict()), encoding="utf-8")
    picture.write_text(reliability_figure([(title, reliability)]), encoding="utf-8")
    return {figures.name: figures, picture.name: picture}


def read_reliability(registry: Registry, record: StageRecord) -> Reliability | None:
    """Return the reliability of a committed stage; ``None`` for one that held out no cell, or of an older canal.

    Raises
    ------
    RegistryError
        If the file is missing, altered, or of a newer canal.
    """
    path = registry.file(record, RELIABILITY_FILE)
    if path is None:
        return None
    try:
        return Reliability.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path} does not hold the reliability of a stage: {error}. Restore it from a backup."
        raise RegistryError(message) from error
