"""The confidence of a stage's model: its temperature, and how often it is right when it is that sure."""

import numpy as np

from canal.data.cells import Cells
from canal.data.variable_genes import unit_rows
from canal.model.memory import AnalyticMemory
from canal.model.model import Fusion, Model
from canal.model.novelty.calibration import NoveltyCalibration
from canal.model.novelty.detector import NoveltyDetector
from canal.model.reliability import Reliability
from canal.training.fitting import type_index


def calibrate(fitted: Model, parent: Model | None, held: Cells) -> tuple[Fusion, Reliability]:
    """Learn the temperature on a stage's held-out cells, and measure the confidence on the same cells.

    Each half of the cells is measured with the temperature that the other half gives, so that no cell is judged by a
    number that was fitted to it.

    Parameters
    ----------
    fitted
        Model that has not seen these cells.
    parent
        Model of the stage before, whose temperature is averaged with this one.
    held
        The held-out cells, labelled.
    """
    assert held.labels is not None
    reader = fitted.reader(held.genes)
    logits, _ = reader.network_outputs(held.expression)
    scores = np.zeros_like(logits) if reader.solved is None else reader.solved.scores(held.expression)
    types = type_index(held.labels, fitted.types)

    def fit(rows: np.ndarray) -> Fusion:
        here = fitted.fusion.calibrated(logits[rows], scores[rows], types[rows])
        return here if parent is None else here.averaged(parent.fusion)

    fusion = fit(np.ones(len(types), dtype=bool))
    first = halves(types)
    probabilities = np.zeros_like(logits)
    for rows in (first, ~first):
        other = fit(~rows) if (~rows).any() else fusion
        probabilities[rows] = other.join(logits[rows], scores[rows])
    right = probabilities.argmax(axis=1) == types
    return fusion, Reliability.of(probabilities.max(axis=1), right, fusion.temperature)


def halves(types: np.ndarray) -> np.ndarray:
    """Return which cells are in the first half: every other cell of each type, bool (cells,)."""
    first = np.zeros(len(types), dtype=bool)
    for t in np.unique(types):
        first[np.flatnonzero(types == t)[::2]] = True
    return first


def with_held_out(before: NoveltyCalibration, memory: AnalyticMemory, cells: Cells, stage: int) -> NoveltyCalibration:
    """Return the calibration with the novelties of a stage's held-out cells.

    Parameters
    ----------
    before
        Of the stages before.
    memory
        Statistics that were made without these cells.
    cells
        The held-out cells.
    stage
        Number of the stage.
    """
    match = memory.panel.match(cells.genes)
    profiles = unit_rows(match.project(cells.expression)[:, np.flatnonzero(match.measured)])
    detector = NoveltyDetector(statistics=memory.statistics, measured=memory.measured, calibration=before)
    return before.with_stage(detector.held_out(stage, match.measured, len(cells.genes), profiles))
