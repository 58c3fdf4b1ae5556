"""How many known cells a novelty calibration would call novel, told from the calibration alone.

The cells that one stage held out are judged by those that the other stages held out, as the cells of a data set that
was not there when the model was calibrated.

`canal compare`: stages side by side, from what was kept when each was tested.

Run the models of a comparison again on every set of cells that can still be read.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from canal.compare.report import AlarmCurve, CompareReport, Number, SetColumn, StageRow, TypeRow
from canal.data.cells import Cells
from canal.errors import DataError
from canal.figures import Counts, Figures, continual, figures, total
from canal.model.model import Annotator, load_annotator
from canal.model.novelty.calibration import NoveltyCalibration
from canal.model.novelty.scores import Reference
from canal.model.record import IMPORTED, StageRecord
from canal.model.stage_keys import has_noted, stages_by_key
from canal.progress import Progress, Silent
from canal.registry.registry import Registry
from canal.stages.held_out import HeldOut, read_held_out
from canal.stages.layout import Layout, open_registry
from canal.stages.tests import Outcome, StageTests, read_tests, tested
from canal.stages.use import line_of

ALPHAS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
FEW = 20  # held-out cells below which a stage has no curve of its own


def false_alarms(calibration: NoveltyCalibration, alphas: tuple[float, ...] = ALPHAS) -> dict[int, np.ndarray]:
    """Return the share of each stage's held-out cells that the other stages' cells would call novel.

    A stage with few held-out cells has none, and there is none at all where one stage alone was calibrated. Each
    stage's novelties are taken as they were at that stage.

    Parameters
    ----------
    calibration
        Novelties of the held-out cells of every stage.
    alphas
        Shares of known cells that may be called novel.

    Returns
    -------
    By stage, a share for each alpha, (alphas,). Where the stages' cells are alike it is about alpha.
    """
    found = {}
    for stage in calibration.stages:
        others = [s.novelty for s in calibration.stages if s.stage != stage.stage and len(s.novelty)]
        if len(stage.novelty) < FEW or not others:
            continue
        known = np.concatenate(others)
        p_values = Reference.of(known, np.ones(len(known))).p_values(stage.novelty)
        found[stage.stage] = np.array([(p_values <= alpha).mean() for alpha in alphas])
    return found


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
        kept = recomputed(registry, kept, progress or Silent())
    focus = champion if champion is not None and champion in chosen else chosen[-1]
    found: Sequence[Any] = ()
    if references:
        from canal.compare.references import references_of

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
    names = _names_of_keys(kept, focus, list(cells))
    return tuple(
        AlarmCurve(stage=names[k][0], name=names[k][1], cells=cells[k], alpha=ALPHAS, share=tuple(found.tolist()))
        for k, found in false_alarms(calibration).items()
    )


def _names_of_keys(kept: Kept, focus: int, keys: Sequence[int]) -> dict[int, tuple[int, str]]:
    """Return number and name of the stage of this registry that each key of a model belongs to.

    An imported model may bring several stages: all have the number that it has here, and their own in the name.
    """
    record = kept.records[focus]
    stages = stages_by_key(record, keys)
    line = [kept.records[n] for n in kept.line(focus)]
    if any(IMPORTED in r.notes for r in line) and not has_noted(record):
        # An older canal learned this line: it is not known which stages the numbers are here.
        return {key: (key, "") for key in keys}
    names = {r.number: r.name for r in line}
    found = {}
    for key in keys:
        number = stages[key]
        several = sum(other == number for other in stages.values()) > 1
        name = names.get(number, "")
        found[key] = (number, f"{name}, its stage {key}" if several else name)
    return found


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


def recomputed(registry: Registry, kept: Kept, progress: Progress) -> Kept:
    """Return what is known, with new outcomes of every model.

    Nothing is written. Where cells cannot be read any more, the outcome that was kept stands.
    """
    cells, reasons = _readable(kept)
    models = sorted(kept.tests)
    progress.start(len(models), "testing again")
    tests = dict(kept.tests)
    for number in models:
        annotator = load_annotator(registry.artifacts(kept.records[number]))
        outcomes = []
        for of in (s for s in kept.line(number, without_removed=True) if s in kept.sets):
            if of in cells:
                outcomes.append(_tested(annotator, cells[of], of, kept.sets[of].digest))
            else:
                unread = Outcome(stage=of, digest=kept.sets[of].digest, reason=reasons[of])
                outcomes.append(kept.outcome(number, of) or unread)
        tests[number] = kept.tests[number].model_copy(update={"outcomes": tuple(outcomes)})
        progress.advance(1, f"stage {number}")
    progress.close()
    return replace(kept, tests=tests)


def _tested(annotator: Annotator, cells: Cells, of: int, digest: str) -> Outcome:
    try:
        return tested(annotator, cells, of, digest)
    except DataError as error:
        return Outcome(stage=of, digest=digest, reason=str(error))


def _readable(kept: Kept) -> tuple[dict[int, Cells], dict[int, str]]:
    cells, reasons = {}, {}
    for number, held in kept.sets.items():
        try:
            cells[number] = read_held_out(held)
        except DataError as error:
            reasons[number] = str(error)
    return cells, reasons
