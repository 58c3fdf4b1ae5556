"""What a stage's model answers on the held-out cells of its own and of every earlier stage.

It is kept as one file beside the model, ``tests.json``: references and counts, no cell and no expression.

Test a new model on the held-out cells of its own and of every earlier stage, and judge whether it may be used.

How well the confidence of each stage's model met its accuracy: kept as ``reliability.json`` and drawn beside it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canal.data.cells import Cells
from canal.data.panel import check_overlap
from canal.errors import DataError, RegistryError
from canal.figures import Counts, Figures, continual, count, figures
from canal.model.model import Annotator
from canal.model.record import IMPORTED, StageRecord
from canal.model.reliability import Reliability
from canal.progress import Progress
from canal.registry.registry import Registry
from canal.report.plots import reliability_figure
from canal.stages.held_out import HeldOut, read_held_out
from canal.stages.use import line_of

FILE = "tests.json"
FORMAT = 1


class Outcome(BaseModel):
    """What a model answers on the cells of one stage.

    Attributes
    ----------
    stage
        The stage the cells come from.
    digest
        Of the cells, as in their `HeldOut`.
    counts
        Given type -> predicted type -> cells; empty where the model was not tested.
    reason
        Why it was not tested; empty where it was.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: int
    digest: str
    counts: Counts = Field(default_factory=dict)
    reason: str = ""

    @property
    def figures(self) -> Figures:
        """Accuracy, macro-F1 and figures per type."""
        return figures(self.counts)


class StageTests(BaseModel):
    """The content of ``tests.json``.

    Attributes
    ----------
    own
        Cells that later stages are tested on, ``None`` where there are none.
    outcomes
        One for each stage tested or not, ascending.
    history
        Figures of each epoch of the training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    own: HeldOut | None
    outcomes: tuple[Outcome, ...] = ()
    history: tuple[dict[str, float], ...] = ()

    def outcome(self, stage: int, digest: str) -> Outcome | None:
        """Return what the model answered on these cells of a stage, if it was tested on them."""
        found = (o for o in self.outcomes if o.stage == stage and o.digest == digest and o.counts)
        return next(found, None)

    def write(self, path: Path) -> None:
        """Write the file; the same tests give the same bytes."""
        path.write_text(json.dumps(self.model_dump(mode="json"), ensure_ascii=False), encoding="utf-8")


def finite(history: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], ...]:
    """Return the figures of each epoch without those JSON cannot hold."""
    return tuple({k: float(v) for k, v in epoch.items() if math.isfinite(float(v))} for epoch in history)


def parse_tests(text: str, source: str) -> StageTests:
    """Read ``tests.json``; ``source`` names it in errors.

    Raises
    ------
    RegistryError
        If it was written by a newer canal, or is no such file.
    """
    try:
        table = json.loads(text)
        if table["format"] > FORMAT:
            message = f"{source} was written by a newer canal (format {table['format']}); update canal to read it."
            raise RegistryError(message)
        return StageTests.model_validate(table)
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        message = f"{source} does not hold the tests of a stage: {error}. Restore it from a backup."
        raise RegistryError(message) from error


def read_tests(registry: Registry, record: StageRecord) -> StageTests:
    """Return the tests of a committed stage; empty ones for a stage of an older canal that kept none.

    Raises
    ------
    RegistryError
        If it is missing or altered.
    """
    path = registry.file(record, FILE)
    if path is None:
        return StageTests(own=None)
    tests = parse_tests(path.read_text(encoding="utf-8"), str(path))
    return _of_import(tests, record.number) if IMPORTED in record.notes else tests


def _of_import(tests: StageTests, number: int) -> StageTests:
    """Return the tests of an imported stage under its number here.

    The other outcomes are of stages of the registry it comes from, whose numbers are other stages' here.
    """
    digest = None if tests.own is None else tests.own.digest
    own = [outcome for outcome in tests.outcomes if outcome.digest == digest]
    outcomes = tuple(outcome.model_copy(update={"stage": number}) for outcome in own[-1:])
    return tests.model_copy(update={"outcomes": outcomes})


ONE_SIDED_95 = 1.645
MOST_SETS = 20  # earlier stages a new one is tested on, the newest first: a stage must not take ever longer to add


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """An earlier stage whose cells a new model is tested on.

    Attributes
    ----------
    stage, name
        Its number and name.
    held
        Its cells.
    tests
        What its own model answered.
    before
        What the champion answered on its cells, if it was tested.
    """

    stage: int
    name: str
    held: HeldOut
    tests: StageTests
    before: Outcome | None


def earlier_stages(registry: Registry, records: Sequence[StageRecord], champion: StageRecord | None) -> list[Earlier]:
    """Return the champion and the stages it was learned from, as far as they have cells to be tested on."""
    if champion is None:
        return []
    by_number = {record.number: record for record in records}
    kept = read_tests(registry, champion)
    found = []
    for number in line_of(records, champion.number, without_removed=True):
        tests = read_tests(registry, by_number[number])
        if tests.own is not None:
            before = kept.outcome(number, tests.own.digest)
            name = by_number[number].name
            found.append(Earlier(stage=number, name=name, held=tests.own, tests=tests, before=before))
    return found


def tested(annotator: Annotator, cells: Cells, stage: int, digest: str) -> Outcome:
    """Annotate labelled cells and count the answers.

    Raises
    ------
    DataError
        If the cells measure too few genes of the model.
    """
    assert cells.labels is not None
    reader = annotator.reader(cells.genes, cells.ensembl)
    check_overlap(reader.match, annotator.preset.genes.min_overlap, cells.report.path)
    return Outcome(stage=stage, digest=digest, counts=count(cells.labels, reader.best_types(cells.expression)))


def run_on_earlier(
    annotator: Annotator, previous: Annotator | None, earlier: Sequence[Earlier], progress: Progress
) -> tuple[list[Outcome], list[Earlier]]:
    """Test a new model on the cells of earlier stages, the newest `MOST_SETS` of them.

    Parameters
    ----------
    annotator, previous
        The new model; the champion, which is tested too where no answer of its was kept.
    earlier
        The earlier stages.
    progress
        Told about every stage.

    Returns
    -------
    An outcome for each earlier stage, with a reason where its cells cannot be read; the earlier stages with what the
    champion answered.
    """
    outcomes, known = [], []
    skipped = max(len(earlier) - MOST_SETS, 0)
    progress.start(len(earlier), "testing on earlier stages")
    for k, e in enumerate(earlier):
        before = e.before
        try:
            cells = _cells(e, skip=k < skipped)
            outcomes.append(tested(annotator, cells, e.stage, e.held.digest))
            if before is None and previous is not None:
                before = tested(previous, cells, e.stage, e.held.digest)
        except DataError as error:
            outcomes.append(Outcome(stage=e.stage, digest=e.held.digest, reason=str(error)))
        known.append(replace(e, before=before))
        progress.advance(1, f"stage {e.stage}, {e.name}")
    progress.close()
    return outcomes, known


def _cells(earlier: Earlier, *, skip: bool) -> Cells:
    if skip:
        message = f"A new stage is tested on the {MOST_SETS} newest; `canal compare --recompute` tests it on all."
        raise DataError(message)
    return read_held_out(earlier.held)


@dataclass(frozen=True, kw_only=True)
class Change:
    """A new model and the champion on the cells of one earlier stage.

    Attributes
    ----------
    stage, name
        Of the cells.
    accuracy, before
        Of the new model and of the champion, ``None`` where it was not tested.
    reason
        Why the new model was not tested.
    cells
        Cells it was tested on.
    """

    stage: int
    name: str
    accuracy: float | None
    before: float | None
    reason: str = ""
    cells: int = 0

    @property
    def fall(self) -> float:
        """How much accuracy falls at the least, beyond what chance does to so few cells; 0 where that is not known.

        The lower bound of a one-sided 95 % interval for the difference of two shares: of 30 cells, two that flip are
        no reason to hold a stage back.
        """
        if self.accuracy is None or self.before is None or not self.cells:
            return 0.0
        spread = sum(share * (1 - share) / self.cells for share in (self.accuracy, self.before))
        return self.before - self.accuracy - ONE_SIDED_95 * math.sqrt(spread)


def compared(outcomes: Sequence[Outcome], earlier: Sequence[Earlier]) -> list[Change]:
    """Put a new model's outcomes beside the champion's."""
    return [
        Change(
            stage=e.stage,
            name=e.name,
            accuracy=o.figures.accuracy if o.counts else None,
            before=e.before.figures.accuracy if e.before is not None else None,
            reason=o.reason,
            cells=o.figures.cells if o.counts else 0,
        )
        for o, e in zip(outcomes, earlier, strict=True)
    ]


def held_back(number: int, champion: int | None, found: Sequence[Change], max_fall: float) -> str:
    """Return why a new stage must not come into use; an empty text where it may."""
    fallen = [c for c in found if c.fall > max_fall]
    if not fallen:
        return ""
    where = "; ".join(f"of stage {c.stage} ({c.name}) from {c.before:.4f} to {c.accuracy:.4f}" for c in fallen)
    return (
        f"Accuracy on the held-out cells {where} falls by clearly more than {max_fall:g} (promotion.max_fall): "
        f"stage {number} stays a candidate, and stage {champion} goes on annotating. "
        f"See `canal stage diff {champion} {number}`; "
        f"`canal stage promote {number}` uses it all the same."
    )


def untested(found: Sequence[Change]) -> str:
    """Return which earlier stages a new model could not be tested on; an empty text where there are none."""
    missing = [c for c in found if c.accuracy is None]
    if not missing:
        return ""
    shown = "; ".join(f"stage {c.stage}: {c.reason}" for c in missing[:3])
    more = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
    return f"Not tested on {len(missing)} of {len(found)} earlier stages ({shown}{more})"


def figures_for_record(number: int, tests: StageTests, earlier: Sequence[Earlier]) -> dict[str, float]:
    """Return the figures that go into the record and to MLflow: per earlier stage, and over all of them."""
    metrics: dict[str, Any] = {}
    for o in (o for o in tests.outcomes if o.counts):
        metrics[f"test/{o.stage}/accuracy"] = o.figures.accuracy
        metrics[f"test/{o.stage}/macro_f1"] = o.figures.macro_f1
    stages = [*(e.stage for e in earlier), *([number] if tests.own is not None else [])]
    rows = [*(e.tests for e in earlier), tests]
    table = np.full((len(rows), len(stages)), np.nan)
    for i, row in enumerate(rows):
        for o in (o for o in row.outcomes if o.counts and o.stage in stages):
            table[i, stages.index(o.stage)] = o.figures.accuracy
    if stages:
        found = continual(table, range(len(stages))).to_dict()
        found["average_accuracy"] = found.pop("average")
        metrics |= {k: v for k, v in found.items() if v is not None}
    return metrics


RELIABILITY, PICTURE = "reliability.json", "reliability.svg"


def write_reliability(found: Reliability, title: str, folder: Path) -> dict[str, Path]:
    """Write figures and picture of a stage into a folder and return them by name."""
    (folder / RELIABILITY).write_text(json.dumps(found.to_dict()), encoding="utf-8")
    (folder / PICTURE).write_text(reliability_figure([(title, found)]), encoding="utf-8")
    return {name: folder / name for name in (RELIABILITY, PICTURE)}


def read_reliability(registry: Registry, record: StageRecord) -> Reliability | None:
    """Return what was kept of a committed stage; ``None`` for one that held out no cell, or of an older canal.

    Raises
    ------
    RegistryError
        If the file is missing, altered, or of a newer canal.
    """
    path = registry.file(record, RELIABILITY)
    if path is None:
        return None
    try:
        return Reliability.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path} does not hold the reliability of a stage: {error}. Restore it from a backup."
        raise RegistryError(message) from error
