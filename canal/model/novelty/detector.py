"""The novelty detector: how unlike all known types a cell is, judged from its own profile and the genes of its file.

Two scores in the space of `canal.model.novelty.space`, each standardised by the type that claims the cell: the distance
to the nearest class centre, whitened by the spread within classes, and the angle to the nearest of many cells drawn
from the classes, among the ridge scores of the types. Their sum is the novelty. It needs statistics only, so a model
without an example bank has it, too; the bank adds known cells to calibrate with and real neighbours to show.

`NoveltyDetector` is the detector of a model, `GeneSetDetector` that of a model and one set of genes. `NoveltyReader`
makes the latter from what a model keeps (memory, calibration and bank), and takes cells as a file has them.

Shapes: n cells, G genes of the memory, S of them that a file measures, N cells of the bank, k neighbours, w columns of
the products that both scores start from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from canal.data.cells import CellPool
from canal.data.genes import Genes
from canal.data.panel import GeneMatch
from canal.data.values import unit_rows
from canal.errors import StageError
from canal.model.completion import CarriedTypes
from canal.model.memory import AnalyticMemory
from canal.model.novelty.calibration import HeldOutNovelties, NoveltyCalibration
from canal.model.novelty.neighbours import NeighbourIndex, Neighbours
from canal.model.novelty.scores import (
    ReferenceCells,
    TypeScale,
    centre_distance,
    combined,
    natural_weights,
    stage_weights,
    weighted_quantiles,
    whitening_of,
)
from canal.model.novelty.space import Space, Statistics, build_space, drawn_cells
from canal.seeds import numpy_generator

# Chosen on held-out training cells of the immune and pancreas streams; see docs/novelty.md.
CENTRE_DIRECTIONS = 40  # leading directions in which distances to class centres are taken
DRAWN = 200  # cells drawn from each class at most
MOST_DRAWN = 6_400  # cells drawn in all, and `RANK` of each class at least: more classes give fewer each
RANK = 15  # the neighbour among them whose angle counts
BLOCK = 8_192  # cells scored at a time
# Weight of a bank cell beside a held-out one: the memory was fitted to it, so that it looks too familiar. Set with the
# held-out training cells and the test files of the immune and pancreas streams in sight; see docs/novelty.md.
BANK_SHARE = 0.5
# Quantile that tells how new the bulk of a file is: below the median, for up to half of its cells may be new.
BULK = 0.4
SEED = 0  # the drawn cells are part of the method, not of a run: the same model always gives the same verdict


@dataclass(frozen=True, kw_only=True)
class BankProfiles:
    """The cells of the example bank through the genes of a file.

    Attributes
    ----------
    values
        Unit profiles over the measured genes, (N, S).
    types, stages
        Name of the type and number of the stage of each cell, (N,).
    """

    values: sp.csr_matrix
    types: np.ndarray
    stages: np.ndarray

    def __post_init__(self) -> None:
        n = self.values.shape[0]
        assert self.types.shape == self.stages.shape == (n,), (self.types.shape, self.stages.shape, n)


@dataclass(frozen=True, kw_only=True)
class NoveltyScores:
    """Novelty of some cells and its p-value.

    Attributes
    ----------
    novelty
        Higher for newer; about 0 for the typical known cell, float32 (n,).
    p_value
        Share of known cells whose novelty is at least as high, float32 (n,).
    alone
        Novelty of each cell by itself, whatever the file it comes in, float32 (n,): ``novelty`` where no other cell has
        a say.
    """

    novelty: np.ndarray
    p_value: np.ndarray
    alone: np.ndarray


@dataclass(frozen=True, kw_only=True)
class NoveltyDetector:
    """The detector of one model.

    Attributes
    ----------
    statistics
        Statistics of each type of each stage in the memory.
    measured
        Genes that each stage has statistics of, by number of stage, positions among G.
    calibration
        Novelties of the cells held out at each stage.
    """

    statistics: Sequence[Statistics]
    measured: Mapping[int, np.ndarray]
    calibration: NoveltyCalibration

    def for_genes(
        self, seen: np.ndarray, genes: int, bank: BankProfiles | None = None, space: Space | None = None
    ) -> "GeneSetDetector":
        """Return the detector for files of one set of genes.

        Parameters
        ----------
        seen
            Genes of the memory that the file measures, bool (G,), one at least.
        genes
            Number of genes of the file.
        bank
            The example bank through these genes; ``None`` where it is empty.
        space
            The space of these statistics and genes, where it was built already.
        """
        space = space or build_space(self.statistics, self.measured, seen)
        return GeneSetDetector(self, space, self.similarity(seen, genes), bank)

    def similarity(self, seen: np.ndarray, genes: int) -> dict[int, float]:
        """Return how similar the genes of a file and of each calibrated stage are, 0 to 1.

        It is the share of the stage's genes that the file has, times the ratio of the numbers of genes.
        """
        similarity = {}
        for held_out in self.calibration.stages:
            if held_out.stage in self.measured:
                shared = float(seen[self.measured[held_out.stage]].mean())
                fewer, more = sorted((genes, held_out.genes))
                similarity[held_out.stage] = shared * fewer / max(more, 1)
        return similarity

    def score_held_out(self, stage: int, seen: np.ndarray, genes: int, values: sp.csr_matrix) -> HeldOutNovelties:
        """Score the cells held out at a stage, to be added to the calibration.

        Parameters
        ----------
        stage
            Number of the stage.
        seen, genes
            As for `for_genes`, of the stage's file.
        values
            Unit profiles (m, S) of cells that the statistics were *not* computed from.
        """
        detector = self.for_genes(seen, genes)
        low, high = detector.drawn_scale(stage)
        return HeldOutNovelties(stage=stage, genes=genes, novelty=detector.novelty(values), low=low, high=high)


class GeneSetDetector:
    """The detector for one set of genes; made by `NoveltyDetector.for_genes`."""

    def __init__(
        self, detector: NoveltyDetector, space: Space, similarity: Mapping[int, float], bank: BankProfiles | None
    ) -> None:
        self._detector, self._space, self._similarity, self._bank = detector, space, similarity, bank
        # Both scores start from one product of few columns: leading coordinates, for the distance to the centres, and
        # ridge scores, for the angle.
        d = min(CENTRE_DIRECTIONS, space.directions.shape[1])
        self._whitening = whitening_of(space.pooled[:d, :d])
        self.weights = np.hstack([space.directions[:, :d], (space.directions @ space.scores).astype(np.float32)])
        # The drawn cells that angles are taken to.
        rng = numpy_generator(SEED, "novelty")
        self._per_class = min(DRAWN, max(RANK, MOST_DRAWN // len(space.n)))
        self._drawn_type = np.repeat(space.type_index, self._per_class)
        self._drawn = NeighbourIndex(drawn_cells(space, self._per_class, rng) @ space.scores, gpu=False)
        # As many again are typical known cells: they give the scale of each type.
        coordinates = drawn_cells(space, self._per_class, rng)
        typical, _ = self._scores(np.hstack([coordinates[:, :d], coordinates @ space.scores]))
        self._scales = [TypeScale.of(score, claimed, len(space.types)) for score, claimed in typical]
        self._typical = self._combined(typical)

    def novelty(self, values: sp.csr_matrix) -> np.ndarray:
        """Return the novelty (n,) of unit profiles over the measured genes (n, S)."""
        blocks = [np.zeros(0)]
        for start in range(0, values.shape[0], BLOCK):
            blocks.append(self.claims(values[start : start + BLOCK] @ self.weights)[0])
        return np.concatenate(blocks)

    def score(self, values: sp.csr_matrix) -> NoveltyScores:
        """Return novelty and p-value of unit profiles over the measured genes (n, S); see `score_projected`."""
        return self.score_projected(values @ self.weights)

    def score_projected(self, projected: np.ndarray) -> NoveltyScores:
        """Return novelty and p-value.

        Parameters
        ----------
        projected
            Unit profiles times ``weights``, (n, w).

        Raises
        ------
        StageError
            If the model has neither calibration nor bank.
        """
        novelty, _ = self.claims(projected)
        p_value = self._reference_cells.p_values(novelty).astype(np.float32)
        single = novelty.astype(np.float32)
        return NoveltyScores(novelty=single, p_value=p_value, alone=single)

    def claims(self, projected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the novelty of cells, (n,), and the class whose centre is nearest to each, (n,).

        Parameters
        ----------
        projected
            Unit profiles times ``weights``, (n, w).
        """
        scores, nearest = self._scores(projected)
        return self._combined(scores), nearest

    @cached_property
    def centres(self) -> np.ndarray:
        """What the mean of each class is among the columns of the products, (T, w)."""
        space, d = self._space, len(self._whitening)
        return np.hstack([space.means[:, :d], space.means @ space.scores])

    @property
    def type_index(self) -> np.ndarray:
        """Type of each class, (T,)."""
        return self._space.type_index

    @property
    def cells(self) -> np.ndarray:
        """Number of cells of each class, (T,)."""
        return self._space.n

    def p_values(self, novelty: np.ndarray) -> np.ndarray:
        """Return the p-value (n,) of novelties (n,)."""
        return self._reference_cells.p_values(novelty)

    def reference_quantile(self, share: float) -> float:
        """Return the novelty below which a share of the known cells of the stages lies."""
        return self._reference_cells.quantile(share)

    def newer_bulk(self, novelty: np.ndarray) -> float:
        """Return how much newer the bulk of a file's cells (n,) is than known cells of the stages, 0 if it is not."""
        return max(float(np.quantile(novelty, BULK)) - self.reference_quantile(BULK), 0.0)

    def unlike_by_stage(self, novelty: np.ndarray, alpha: float) -> dict[int, float]:
        """Return how unlike the known cells of each stage some cells are.

        Parameters
        ----------
        novelty
            Of the cells, one at least, (n,).
        alpha
            Share of a stage's own held-out cells that count as unlike it.

        Returns
        -------
        By number of the stage, the share of the cells that are newer than all but ``alpha`` of its held-out cells.
        """
        shares = {}
        for held_out in self._detector.calibration.stages:
            if held_out.stage in self._detector.measured and len(held_out.novelty):
                own = held_out.rescaled(*self.drawn_scale(held_out.stage))
                shares[held_out.stage] = float((novelty > np.quantile(own, 1.0 - alpha)).mean())
        return shares

    def neighbours(self, values: sp.csr_matrix, k: int) -> Neighbours:
        """Return the k nearest cells of the bank to unit profiles (n, S); see `neighbours_projected`."""
        return self.neighbours_projected(values @ self.weights, k)

    def neighbours_projected(self, projected: np.ndarray, k: int) -> Neighbours:
        """Return the k nearest cells of the bank, by the angle between ridge scores.

        Parameters
        ----------
        projected
            Unit profiles times ``weights``, (n, w).
        k
            Number of neighbours.

        Returns
        -------
        Neighbours whose indices are rows of the bank; cells of stages that share few genes with the file are not among
        them.

        Raises
        ------
        StageError
            If the bank is empty or holds fewer than k comparable cells.
        """
        rows, index = self._bank_index
        nearest = index.search(projected[:, len(self._whitening) :], k)
        return Neighbours(indices=rows[nearest.indices], distances=nearest.distances)

    def drawn_scale(self, stage: int) -> tuple[float, float]:
        """Return the usual and the high novelty of cells drawn from the statistics of a stage.

        Types count by their cells. For a stage that this space leaves out, the cells are those of all stages.
        """
        of_stage = np.repeat([stage in stages for stages in self._space.stages], self._per_class)
        rows = of_stage if of_stage.any() else np.ones_like(of_stage)
        return weighted_quantiles(self._typical[rows], np.repeat(self._space.n, self._per_class)[rows])

    @cached_property
    def _reference_cells(self) -> ReferenceCells:
        """Held-out cells of all stages, and the bank's, weighed by the similarity of their stage's genes."""
        weights = stage_weights(self._similarity)
        novelty: list[np.ndarray] = [np.zeros(0)]
        weight: list[np.ndarray] = [np.zeros(0)]
        # The held-out cells, their novelties on the scale of this detector.
        for held_out in self._detector.calibration.stages:
            if held_out.stage in weights:
                low, high = self.drawn_scale(held_out.stage)
                novelty.append(held_out.rescaled(low, high))
                trusted = weights[held_out.stage] * held_out.trust(low, high)
                weight.append(np.full(len(held_out.novelty), trusted))
        # The cells of the bank, scored here; a stage without held-out cells counts like the least similar one.
        if self._bank is not None and len(self._comparable):
            stages, types = self._bank.stages[self._comparable], self._bank.types[self._comparable]
            counts = {(s.stage, s.name): s.n for s in self._detector.statistics}
            least = min(weights.values(), default=1.0)
            of_stage = np.array([weights.get(stage, least) for stage in stages.tolist()])
            novelty.append(self.novelty(self._bank.values[self._comparable]))
            weight.append(BANK_SHARE * of_stage * natural_weights(stages, types, counts))
        return ReferenceCells.of(np.concatenate(novelty), np.concatenate(weight))

    @cached_property
    def _comparable(self) -> np.ndarray:
        """Rows of the bank whose type and stage are a class of the space."""
        if self._bank is None:
            return np.zeros(0, dtype=np.int64)
        classes = set()
        for stages, index in zip(self._space.stages, self._space.type_index, strict=True):
            for stage in stages:
                classes.add((stage, self._space.types[index]))
        groups = zip(self._bank.stages.tolist(), self._bank.types.tolist(), strict=True)
        return np.flatnonzero([group in classes for group in groups])

    @cached_property
    def _bank_index(self) -> tuple[np.ndarray, NeighbourIndex]:
        """Rows of the bank that can be neighbours, and the index of their ridge scores."""
        if self._bank is None or not len(self._comparable):
            message = (
                "There is no cell in the example bank to compare with through the genes of this file. "
                "Add a stage with bank.size above 0, or leave out the neighbours."
            )
            raise StageError(message)
        rows = self._comparable
        return rows, NeighbourIndex((self._bank.values[rows] @ self.weights)[:, len(self._whitening) :])

    def _scores(self, projected: np.ndarray) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
        """Return the two scores of cells, each with the index of the type that claims the cell, (n,) and (n,).

        Beside them stands the class whose centre is nearest to each cell, (n,).
        """
        space, d = self._space, len(self._whitening)
        # The distance to the nearest class centre.
        leading = projected[:, :d].astype(np.float64)
        distance, nearest = centre_distance(leading, self._whitening, space.means[:, :d], space.n)
        # The angle to the drawn cells; half the squared distance of unit vectors is one less the cosine.
        drawn = self._drawn.search(projected[:, d:], min(RANK, self._drawn.size))
        angle = drawn.distances[:, -1].astype(np.float64) ** 2 / 2
        return [(distance, space.type_index[nearest]), (angle, self._drawn_type[drawn.indices[:, 0]])], nearest

    def _combined(self, scores: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Return the novelty (n,) from the two scores of `_scores`."""
        standardised = []
        for scale, (score, claimed) in zip(self._scales, scores, strict=True):
            standardised.append(scale.standardised(score, claimed))
        return combined(standardised)


class NoveltyReader:
    """The detector for files with one set of genes.

    Parameters
    ----------
    memory, calibration
        Of the model.
    bank
        Its example bank, empty where there is none.
    genes
        Genes of the file, in the order of its columns.
    carried
        Types that were never seen together with these genes; ``None`` where there are none.
    """

    def __init__(
        self,
        memory: AnalyticMemory,
        calibration: NoveltyCalibration,
        bank: CellPool,
        genes: Genes,
        carried: CarriedTypes | None = None,
    ) -> None:
        self._match: GeneMatch = memory.panel.match(genes)
        self._seen = np.flatnonzero(self._match.measured)
        # Types that were never seen with these genes are known as they are carried to them.
        statistics = memory.statistics if carried is None else carried.statistics
        space = None if carried is None else carried.space
        detector = NoveltyDetector(statistics=statistics, measured=memory.measured, calibration=calibration)
        profiles = _bank_profiles(memory, bank, self._seen) if len(bank) else None
        self._detector: GeneSetDetector = detector.for_genes(self._match.measured, len(genes), profiles, space)

    @property
    def weights(self) -> np.ndarray:
        """The matrix that unit profiles over the memory's measured genes are multiplied by first, (S, w)."""
        return self._detector.weights

    @property
    def for_genes(self) -> GeneSetDetector:
        """The detector for the genes of the file."""
        return self._detector

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


def _bank_profiles(memory: AnalyticMemory, bank: CellPool, seen: np.ndarray) -> BankProfiles:
    """Return the cells of the bank over the memory's genes that the file measures."""
    values, _ = bank.on(memory.panel)
    return BankProfiles(values=unit_rows(values[:, seen]), types=bank.labels, stages=bank.stage)
