"""`canal compare`: stages side by side, from what was kept when each was tested, or from models that are run again.

It adds the false alarms of the model in use: how many known cells its novelty calibration would call novel. The cells
that one stage held out are judged by those of all other stages, as the cells of a data set that was not there when the
model was calibrated.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from canal.compare.report import AlarmCurve, CompareReport, Number, ReferenceMethod, SetColumn, StageRow, TypeRow
from canal.data.cells import Cells
from canal.errors import DataError
from canal.figures import Counts, Figures, continual, figures_of, summed_counts
from canal.model.model import Model
from canal.model.novelty.calibration import NoveltyCalibration
from canal.model.novelty.scores import ReferenceCells
from canal.model.record import IMPORTED, StageRecord
from canal.model.stage_keys import has_noted, stages_by_key
from canal.progress import Progress, Silent
from canal.registry.registry import Registry
from canal.stages.layout import Layout, open_registry
from canal.stages.testing.held_out import HeldOutReference, read_held_out
from canal.stages.testing.incoming import IncomingFigures
from canal.stages.testing.tests import Outcome, StageTests, measure_outcome, read_tests
from canal.stages.use import lineage, renamed_since

NOVELTY = "novelty.json"  # the calibration among the files of a model

Measure = Callable[[Figures], float | None]  # picks one figure, such as the accuracy


def compare_stages(
    layout: Layout,
    numbers: Sequence[int] = (),
    *,
    recompute: bool = False,
    references: bool = False,
    progress: Progress | None = None,
) -> CompareReport:
    """Put stages side by side.

    Parameters
    ----------
    layout
        The workspace.
    numbers
        The stages; all by default.
    recompute
        Run the models again on every set that can still be read, instead of taking what was kept.
    references
        Train plain methods on what can still be read.
    progress
        Told how far that is.

    Raises
    ------
    RegistryError
        If there is no such stage, or what was kept is damaged.
    """
    progress = progress or Silent()
    registry = open_registry(layout)
    records = {record.number: record for record in registry.records()}
    chosen = [registry.record(number).number for number in dict.fromkeys(numbers)] or sorted(records)
    champion = registry.champion()
    if not chosen:
        registry.record()  # says that there is no stage yet
    # What was kept of each stage's tests, or new answers of every model.
    stored = read_stored_tests(registry, records, chosen)
    if recompute:
        stored = _recomputed(registry, stored, progress)
    # The stage that is looked at closely: the one in use, if it is among those compared.
    focus = champion if champion is not None and champion in chosen else chosen[-1]
    # The other methods; what they need is imported only where they are asked for.
    methods: tuple[ReferenceMethod, ...] = ()
    if references:
        from canal.compare.references import references_of

        methods = references_of(registry, stored, focus, progress)
    sets = list(stored.sets)
    return CompareReport(
        model=registry.name,
        champion=champion,
        focus=focus,
        stages=tuple(_stage_row(stored, number, in_use=number == champion) for number in chosen),
        sets=tuple(_set_column(stored, number) for number in sets),
        accuracy=_plain(stored.table(chosen, sets, _accuracy)),
        macro_f1=_plain(stored.table(chosen, sets, _macro_f1)),
        untested=_untested(stored, chosen),
        types=_type_rows(stored, focus),
        confusion=_pooled_counts(stored, focus),
        alarms=_alarm_curves(registry, stored, focus),
        references=methods,
        recomputed=recompute,
    )


@dataclass(frozen=True, kw_only=True)
class StoredTests:
    """What is known of the stages of a comparison and of all they were learned from.

    Attributes
    ----------
    records
        Every stage of the registry by number.
    tests
        Tests of those stages that matter, by number.
    sets
        Sets of held-out cells, by the stage they come from, ascending.
    """

    records: dict[int, StageRecord]
    tests: dict[int, StageTests]
    sets: dict[int, HeldOutReference]

    def outcome(self, model: int, tested_on: int) -> Outcome | None:
        """Return what a model answered on the held-out cells of a stage, if it was tested on them."""
        return self.tests[model].outcome(tested_on, self.sets[tested_on].digest)

    def line(self, number: int, *, without_removed: bool = False) -> list[int]:
        """Return a stage and all it was learned from, the first one first."""
        return lineage(list(self.records.values()), number, without_removed=without_removed)

    def sets_of_line(self, number: int) -> list[int]:
        """Return the stages of the line that have held-out cells, without those that were removed from the model."""
        return [stage for stage in self.line(number, without_removed=True) if stage in self.sets]

    def table(self, models: Sequence[int], sets: Sequence[int], measure: Measure) -> np.ndarray:
        """Return a figure of models on sets of held-out cells, (models, sets); NaN where it was not measured."""
        table = np.full((len(models), len(sets)), np.nan)
        for i, model in enumerate(models):
            for j, tested_on in enumerate(sets):
                outcome = self.outcome(model, tested_on)
                value = None if outcome is None else measure(outcome.figures)
                if value is not None:
                    table[i, j] = value
        return table

    def continual_figures(self, number: int, measure: Measure) -> dict[str, Number]:
        """Return average, forgetting and backward transfer of a model along its line."""
        line, sets = self.line(number), self.sets_of_line(number)
        born = [line.index(stage) for stage in sets]
        return continual(self.table(line, sets, measure), born).to_dict()


def read_stored_tests(registry: Registry, records: Mapping[int, StageRecord], chosen: Sequence[int]) -> StoredTests:
    """Read the tests of stages and of all they were learned from."""
    needed: set[int] = set()
    for number in chosen:
        needed.update(lineage(list(records.values()), number))
    tests, sets = {}, {}
    for number in sorted(needed):
        tests[number] = read_tests(registry, records[number])
        own = tests[number].own
        if own is not None:
            sets[number] = own
    return StoredTests(records=dict(records), tests=tests, sets=sets)


def _recomputed(registry: Registry, stored: StoredTests, progress: Progress) -> StoredTests:
    """Return what is known, with new outcomes of every model.

    Nothing is written. Where cells cannot be read any more, the outcome that was kept stands.
    """
    cells, reasons = _read_sets(stored)
    progress.start(len(stored.tests), "testing again")
    tests = dict(stored.tests)
    for number in sorted(stored.tests):
        model = registry.model(stored.records[number])
        # Types may have been renamed between the stage of the cells and this one.
        renamed = renamed_since(list(stored.records.values()), number)
        outcomes = []
        for tested_on in stored.sets_of_line(number):
            digest = stored.sets[tested_on].digest
            if tested_on in cells:
                outcome = _tested(model, cells[tested_on].renamed(renamed.get(tested_on, {})), tested_on, digest)
            else:
                unread = Outcome(stage=tested_on, digest=digest, reason=reasons[tested_on])
                outcome = stored.outcome(number, tested_on) or unread
            outcomes.append(outcome)
        tests[number] = stored.tests[number].model_copy(update={"outcomes": tuple(outcomes)})
        progress.advance(1, f"stage {number}")
    progress.close()
    return replace(stored, tests=tests)


def _read_sets(stored: StoredTests) -> tuple[dict[int, Cells], dict[int, str]]:
    """Return the held-out cells that can be read, by stage, and of all others the reason why not."""
    cells, reasons = {}, {}
    for number, held_out in stored.sets.items():
        try:
            cells[number] = read_held_out(held_out)
        except DataError as error:
            reasons[number] = str(error)
    return cells, reasons


def _tested(model: Model, cells: Cells, stage: int, digest: str) -> Outcome:
    try:
        return measure_outcome(model, cells, stage, digest)
    except DataError as error:
        return Outcome(stage=stage, digest=digest, reason=str(error))


def _accuracy(figures: Figures) -> float:
    return figures.accuracy


def _macro_f1(figures: Figures) -> float:
    return figures.macro_f1


def _stage_row(stored: StoredTests, number: int, *, in_use: bool) -> StageRow:
    record = stored.records[number]
    incoming = IncomingFigures.of_metrics(record.metrics)
    accuracy = stored.continual_figures(number, _accuracy)
    macro_f1 = stored.continual_figures(number, _macro_f1)
    return StageRow(
        # From the record.
        number=number,
        name=record.name,
        parent=record.parent,
        created=record.created,
        seconds=record.seconds,
        in_use=in_use,
        held_back=str(record.notes.get("held_back") or ""),
        cells=record.cells,
        types=len(record.types),
        new_types=record.new_types,
        genes=record.genes,
        incoming=None if incoming is None else incoming.to_dict(),
        bank=dict(record.bank.get("per_type", {})),
        # From the tests.
        average=accuracy["average"],
        macro_f1=macro_f1["average"],
        forgetting=accuracy["forgetting"],
        backward_transfer=accuracy["backward_transfer"],
        f1=figures_of(_pooled_counts(stored, number)).f1,
        history=stored.tests[number].history,
    )


def _set_column(stored: StoredTests, number: int) -> SetColumn:
    held_out = stored.sets[number]
    return SetColumn(
        stage=number,
        name=stored.records[number].name,
        kind=held_out.kind,
        path=held_out.path,
        cells=held_out.cells,
        in_bank=held_out.in_bank,
    )


def _pooled_counts(stored: StoredTests, number: int) -> Counts:
    """Return the answers of a model on all sets of its line."""
    counts = []
    for tested_on in stored.sets_of_line(number):
        outcome = stored.outcome(number, tested_on)
        if outcome is not None:
            counts.append(outcome.counts)
    return summed_counts(counts)


def _type_rows(stored: StoredTests, focus: int) -> tuple[TypeRow, ...]:
    support = figures_of(_pooled_counts(stored, focus)).support
    rows = []
    for name, cells in support.items():
        recall = stored.continual_figures(focus, lambda figures, name=name: figures.recall.get(name))  # type: ignore[misc]
        rows.append(TypeRow(name=name, cells=cells, **recall))
    return tuple(rows)


def _untested(stored: StoredTests, chosen: Sequence[int]) -> tuple[dict[str, Any], ...]:
    """Return the stage, the set and the reason of each test of a stage's line that has no answer."""
    missing = []
    for number in chosen:
        for tested_on in stored.sets_of_line(number):
            if stored.outcome(number, tested_on) is not None:
                continue
            reason = "It was not tested."
            for outcome in stored.tests[number].outcomes:
                if outcome.stage == tested_on and outcome.reason:
                    reason = outcome.reason
                    break
            missing.append({"stage": number, "set": tested_on, "reason": reason})
    return tuple(missing)


def _names_of_keys(stored: StoredTests, focus: int, keys: Sequence[int]) -> dict[int, tuple[int, str]]:
    """Return number and name of the stage of this registry that each key of a model belongs to.

    An imported model may bring several stages: all have the number that it has here, and their own in the name.
    """
    record = stored.records[focus]
    line = [stored.records[number] for number in stored.line(focus)]
    if any(IMPORTED in earlier.notes for earlier in line) and not has_noted(record):
        # An older canal learned this line: it is not known which stages the numbers are here.
        return {key: (key, "") for key in keys}
    stages = stages_by_key(record, keys)
    keys_of_stage = Counter(stages.values())
    name_of = {earlier.number: earlier.name for earlier in line}
    names = {}
    for key in keys:
        number = stages[key]
        name = name_of.get(number, "")
        names[key] = (number, f"{name}, its stage {key}" if keys_of_stage[number] > 1 else name)
    return names


def _plain(table: np.ndarray) -> tuple[tuple[Number, ...], ...]:
    """Return a table as plain values, ``None`` for NaN."""
    rows = []
    for row in table.tolist():
        values: list[Number] = []
        for value in row:
            values.append(None if np.isnan(value) else value)
        rows.append(tuple(values))
    return tuple(rows)


ALPHAS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)  # closer where alpha is mostly set
LEAST_HELD_OUT = 20  # cells below which one cell more or less would move a share by more than 0.05


def false_alarms(calibration: NoveltyCalibration) -> dict[int, np.ndarray]:
    """Return the share of each stage's held-out cells that the other stages' cells would call novel.

    A stage with few held-out cells has none, and there is none at all where one stage alone was calibrated. Each
    stage's novelties are taken as they were at that stage.

    Parameters
    ----------
    calibration
        Novelties of the held-out cells of every stage.

    Returns
    -------
    By stage, a share for each of `ALPHAS`, (alphas,). Where the stages' cells are alike it is about alpha.
    """
    shares = {}
    for stage in calibration.stages:
        others = []
        for other in calibration.stages:
            if other.stage != stage.stage and len(other.novelty):
                others.append(other.novelty)
        if len(stage.novelty) < LEAST_HELD_OUT or not others:
            continue
        # Judged as by a calibration of the other stages alone, all of whose cells count alike.
        known = np.concatenate(others)
        p_values = ReferenceCells.of(known, np.ones(len(known))).p_values(stage.novelty)
        shares[stage.stage] = (p_values[:, None] <= np.array(ALPHAS)).mean(axis=0)
    return shares


def _alarm_curves(registry: Registry, stored: StoredTests, focus: int) -> tuple[AlarmCurve, ...]:
    path = registry.file(stored.records[focus], NOVELTY)
    if path is None:
        return ()
    calibration = NoveltyCalibration.from_dict(json.loads(path.read_text(encoding="utf-8")))
    # A curve for each stage that has enough cells.
    shares = false_alarms(calibration)
    names = _names_of_keys(stored, focus, [stage.stage for stage in calibration.stages])
    curves = []
    for stage in calibration.stages:
        if stage.stage not in shares:
            continue
        number, name = names[stage.stage]
        curves.append(
            AlarmCurve(
                stage=number,
                name=name,
                cells=len(stage.novelty),
                alpha=ALPHAS,
                share=tuple(shares[stage.stage].tolist()),
            )
        )
    return tuple(curves)
