"""`canal compare`: stages side by side, from what was kept when each was tested."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from canal.detect.calibration import NoveltyCalibration
from canal.detect.false_alarms import ALPHAS, false_alarms
from canal.learn.progress import Progress, Silent
from canal.registry.record import StageRecord
from canal.registry.registry import Registry
from canal.report.compare_report import AlarmCurve, CompareReport, Number, SetColumn, StageRow, TypeRow
from canal.stages.confusion import Counts, Figures, figures, total
from canal.stages.connection import open_registry
from canal.stages.continual import continual
from canal.stages.held_out import HeldOut
from canal.stages.layout import Layout
from canal.stages.lineage import line_of
from canal.stages.stage_tests import Outcome, StageTests, read_tests

Figure = Callable[[Figures], float | None]
NOVELTY = "novelty.json"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is known of the stages of a comparison and of all they were learned from.

    Attributes
    ----------
    records
        Every stage of the registry by number.
    tests
        What was kept of those that matter, by number.
    sets
        Cells to be tested on, by the stage they come from, ascending.
    """

    records: dict[int, StageRecord]
    tests: dict[int, StageTests]
    sets: dict[int, HeldOut]

    def outcome(self, model: int, of: int) -> Outcome | None:
        """Return what a model answered on the cells of a stage, if it was tested on them."""
        return self.tests[model].outcome(of, self.sets[of].digest)

    def line(self, number: int, *, without_removed: bool = False) -> list[int]:
        """Return a stage and all it was learned from, the first one first."""
        return line_of(list(self.records.values()), number, without_removed=without_removed)

    def table(self, models: Sequence[int], of: Sequence[int], figure: Figure) -> np.ndarray:
        """Return a figure of models on the cells of stages, (models, sets); NaN where it was not measured."""
        found = [[self.outcome(m, s) for s in of] for m in models]
        values = [[None if o is None else figure(o.figures) for o in row] for row in found]
        return np.array(values, dtype=np.float64).reshape(len(models), len(of))

    def along(self, number: int, figure: Figure) -> dict[str, Number]:
        """Return the figures of continual learning of a model along its line."""
        line = self.line(number)
        of = [s for s in self.line(number, without_removed=True) if s in self.sets]
        return continual(self.table(line, of, figure), [line.index(s) for s in of]).to_dict()


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
    registry = open_registry(layout)
    records = {r.number: r for r in registry.records()}
    chosen = [registry.record(n).number for n in dict.fromkeys(numbers)] or sorted(records)
    champion = registry.champion()
    if not chosen:
        registry.record()  # says that there is no stage yet
    kept = gather(registry, records, chosen)
    if recompute:
        from canal.stages.recompute import recomputed

        kept = recomputed(registry, kept, progress or Silent())
    focus = champion if champion is not None and champion in chosen else chosen[-1]
    found: Sequence[Any] = ()
    if references:
        from canal.stages.reference_cache import references_of

        found = references_of(registry, kept, focus, progress or Silent())
    alarms = _alarms(registry, kept, focus)
    return _report(registry.name, champion, focus, kept, chosen, alarms, recompute=recompute, references=found)


def gather(registry: Registry, records: Mapping[int, StageRecord], chosen: Sequence[int]) -> Kept:
    """Read what was kept of stages and of all they were learned from."""
    needed = {n for number in chosen for n in line_of(list(records.values()), number)}
    tests = {n: read_tests(registry, records[n]) for n in sorted(needed)}
    sets = {n: t.own for n, t in tests.items() if t.own is not None}
    return Kept(records=dict(records), tests=tests, sets=sets)


def _report(
    model: str,
    champion: int | None,
    focus: int,
    kept: Kept,
    chosen: Sequence[int],
    alarms: tuple[AlarmCurve, ...],
    *,
    recompute: bool,
    references: Sequence[Any],
) -> CompareReport:
    of = list(kept.sets)
    return CompareReport(
        model=model,
        champion=champion,
        focus=focus,
        stages=tuple(_stage(kept, number, in_use=number == champion) for number in chosen),
        sets=tuple(_column(kept, number) for number in of),
        accuracy=_rows(kept.table(chosen, of, lambda f: f.accuracy)),
        macro_f1=_rows(kept.table(chosen, of, lambda f: f.macro_f1)),
        untested=tuple(_untested(kept, chosen)),
        types=_types(kept, focus),
        confusion=_pooled(kept, focus),
        alarms=alarms,
        references=tuple(references),
        recomputed=recompute,
    )


def _stage(kept: Kept, number: int, *, in_use: bool) -> StageRow:
    record = kept.records[number]
    found = kept.along(number, lambda f: f.accuracy)
    return StageRow(
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
        bank=dict(record.bank.get("per_type", {})),
        average=found["average"],
        macro_f1=kept.along(number, lambda f: f.macro_f1)["average"],
        forgetting=found["forgetting"],
        backward_transfer=found["backward_transfer"],
        f1=figures(_pooled(kept, number)).f1,
        history=kept.tests[number].history,
    )


def _column(kept: Kept, number: int) -> SetColumn:
    held = kept.sets[number]
    return SetColumn(
        stage=number,
        name=kept.records[number].name,
        kind=held.kind,
        path=held.path,
        cells=held.cells,
        in_bank=held.in_bank,
    )


def _pooled(kept: Kept, number: int) -> Counts:
    """Return the answers of a model on all sets of its line."""
    of = [s for s in kept.line(number, without_removed=True) if s in kept.sets]
    return total(o.counts for o in (kept.outcome(number, s) for s in of) if o is not None)


def _types(kept: Kept, focus: int) -> tuple[TypeRow, ...]:
    support = figures(_pooled(kept, focus)).support
    rows = []
    for name, cells in support.items():
        found = kept.along(focus, lambda f, name=name: f.recall.get(name))  # type: ignore[misc]
        rows.append(TypeRow(name=name, cells=cells, **found))
    return tuple(rows)


def _alarms(registry: Registry, kept: Kept, focus: int) -> tuple[AlarmCurve, ...]:
    path = registry.file(kept.records[focus], NOVELTY)
    if path is None:
        return ()
    calibration = NoveltyCalibration.from_dict(json.loads(path.read_text(encoding="utf-8")))
    cells = {s.stage: len(s.novelty) for s in calibration.stages}
    line = [kept.records[n] for n in kept.line(focus)]
    # Below an import the numbers are those of the registry it came from: these stages have no name here.
    names = {} if any("imported" in r.notes for r in line) else {r.number: r.name for r in line}
    return tuple(
        AlarmCurve(stage=n, name=names.get(n, ""), cells=cells[n], alpha=ALPHAS, share=tuple(found.tolist()))
        for n, found in false_alarms(calibration).items()
    )


def _untested(kept: Kept, chosen: Sequence[int]) -> list[dict[str, Any]]:
    missing = []
    for number in chosen:
        for of in (s for s in kept.line(number, without_removed=True) if s in kept.sets):
            if kept.outcome(number, of) is None:
                reasons = [o.reason for o in kept.tests[number].outcomes if o.stage == of and o.reason]
                missing.append({"stage": number, "set": of, "reason": next(iter(reasons), "It was not tested.")})
    return missing


def _rows(table: np.ndarray) -> tuple[tuple[Number, ...], ...]:
    return tuple(tuple(None if np.isnan(v) else float(v) for v in row) for row in table)
