"""Run the models of a comparison again on every set of cells that can still be read."""

from dataclasses import replace

from canal.data.cells import Cells
from canal.errors import DataError
from canal.learn.annotator import Annotator, load_annotator
from canal.learn.progress import Progress
from canal.registry.registry import Registry
from canal.stages.compare import Kept
from canal.stages.held_out import read_held_out
from canal.stages.stage_tests import Outcome
from canal.stages.testing import tested


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
