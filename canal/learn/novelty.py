"""The novelty detector on what a model keeps: its memory, its calibration and its bank."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from canal.data.cells import Cells
from canal.data.panel import GeneMatch
from canal.data.pool import CellPool
from canal.data.variance import unit_rows
from canal.detect.calibration import NoveltyCalibration
from canal.detect.detector import GeneSetDetector, NoveltyDetector
from canal.detect.neighbours import Neighbours
from canal.detect.views import BankView, NoveltyScores
from canal.learn.memory import AnalyticMemory


class NoveltyReader:
    """The detector for files with one set of genes.

    Parameters
    ----------
    memory, calibration
        Of the model.
    bank
        Its example bank, empty where there is none.
    genes, ensembl
        Genes of the file, in the order of its columns.
    """

    def __init__(
        self,
        memory: AnalyticMemory,
        calibration: NoveltyCalibration,
        bank: CellPool,
        genes: Sequence[str],
        ensembl: Sequence[str],
    ) -> None:
        self._match: GeneMatch = memory.panel.match(genes, ensembl)
        self._seen = np.flatnonzero(self._match.measured)
        detector = NoveltyDetector(statistics=memory.statistics, measured=memory.measured, calibration=calibration)
        view = _view(memory, bank, self._seen) if len(bank) else None
        self._detector: GeneSetDetector = detector.for_genes(self._match.measured, len(genes), view)

    @property
    def weights(self) -> np.ndarray:
        """What unit profiles over the memory's measured genes are multiplied by first, (S, w)."""
        return self._detector.weights

    def score_projected(self, projected: np.ndarray) -> NoveltyScores:
        """Return novelty and p-value of unit profiles times `weights`, (n, w)."""
        return self._detector.score_projected(projected)

    def neighbours_projected(self, projected: np.ndarray, k: int) -> Neighbours:
        """Return the k nearest cells of the bank to unit profiles times `weights`, (n, w)."""
        return self._detector.neighbours_projected(projected, k)

    def score(self, expression: sp.csr_matrix) -> NoveltyScores:
        """Return novelty and p-value of cells (cells, genes of the file)."""
        return self._detector.score(self._profiles(expression))

    def neighbours(self, expression: sp.csr_matrix, k: int) -> Neighbours:
        """Return the k nearest cells of the bank, rows of the bank and their distances."""
        return self._detector.neighbours(self._profiles(expression), k)

    def _profiles(self, expression: sp.csr_matrix) -> sp.csr_matrix:
        return unit_rows(self._match.project(expression)[:, self._seen])


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
    match = memory.panel.match(cells.genes, cells.ensembl)
    profiles = unit_rows(match.project(cells.expression)[:, np.flatnonzero(match.measured)])
    detector = NoveltyDetector(statistics=memory.statistics, measured=memory.measured, calibration=before)
    return before.with_stage(detector.held_out(stage, match.measured, len(cells.genes), profiles))


def _view(memory: AnalyticMemory, bank: CellPool, seen: np.ndarray) -> BankView:
    values, _ = bank.on(memory.panel)
    return BankView(values=unit_rows(values[:, seen]), types=bank.labels, stages=bank.stage)
