"""Novelty judged among a file's own cells: what its technology adds is taken off, and neighbouring cells vote.

Known cells of a technology that no stage has taught look new, all in the same way: their profiles lie away from the
centres that claim them, and away alike whatever their type. That common move is taken off before a cell is scored. A
single cell remains noisy, while a type that nobody taught is a group: so the novelty of a cell is the mean of that of
its nearest cells among the file's principal components. At last what the file's bulk is newer than known cells of the
stages is taken off in part.

Shapes: n cells, m sampled cells, w columns of the detector's products, T classes, C types, d components.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from canal.model.adapting.components import Components
from canal.model.novelty.detector import GeneSetDetector
from canal.model.novelty.neighbours import NeighbourIndex

# All chosen on left-out data sets with and without a type that was left out as well, on the same with 40 % novel cells,
# and on known technologies (docs/unseen.md); half and twice of each differ little.
ROUNDS = 3
CORE = 0.5  # of the cells that a type claims, those least novel say where the type lies in the file
FEWEST = 5  # cells of a type that say anything
OWN_CELLS = 30.0  # cells in the file, and in the memory, that give a type half its weight
MOVES = 0.5  # types' worth of evidence against any move
NEIGHBOURS = 20  # cells that vote; a group of half as many still shows
# The mean of neighbours spreads less than single cells, which it is compared with.
WIDENED = 1.3
# How much of what the bulk of the file is newer is taken off, for part of a file may be new.
ADAPTED_SHARE = 0.7


@dataclass(frozen=True, kw_only=True)
class FileNovelty:
    """What judges the novelty of a file's cells among each other.

    Attributes
    ----------
    components
        The file's principal components.
    index
        Search among the sampled cells, by their coordinates there.
    novelty
        Of the sampled cells, once the common move is taken off, (m,).
    usual
        Novelty of the usual known cell of the stages.
    shift
        What is taken off the mean of the neighbours.
    """

    components: Components
    index: NeighbourIndex
    novelty: np.ndarray
    usual: float
    shift: float

    def of(self, profiles: sp.csr_matrix) -> np.ndarray:
        """Return the novelty (n,) of cells by their unit profiles over the memory's measured genes (n, S)."""
        voted = _mean_of_neighbours(self.index, self.novelty, self.components.of(profiles))
        return self.usual + WIDENED * (voted - self.shift - self.usual)


def judge_file(
    detector: GeneSetDetector, projected: np.ndarray, components: Components, coordinates: np.ndarray
) -> FileNovelty:
    """Learn from a sample of a file's cells what judges all of them.

    Parameters
    ----------
    detector
        Of the model, for the genes of the file.
    projected
        Unit profiles of the sampled cells times the detector's weights, (m, w).
    components
        The file's principal components.
    coordinates
        Of the sampled cells among these, (m, d).
    """
    moved = projected - common_move(detector, projected)
    novelty = detector.claims(moved)[0]
    index = NeighbourIndex(coordinates, gpu=False)
    voted = _mean_of_neighbours(index, novelty, coordinates)
    return FileNovelty(
        components=components,
        index=index,
        novelty=novelty,
        usual=detector.reference_quantile(0.5),
        shift=ADAPTED_SHARE * detector.newer_bulk(voted),
    )


def _mean_of_neighbours(index: NeighbourIndex, novelty: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Return the mean novelty of the sampled cells nearest to each cell, (n,)."""
    nearest = index.search(coordinates, min(NEIGHBOURS, index.size)).indices
    # Sorted, so that cells with the same neighbours get the same bits.
    return np.asarray(np.sort(novelty[nearest], axis=1).mean(axis=1))


def common_move(detector: GeneSetDetector, projected: np.ndarray) -> np.ndarray:
    """Return how far the cells of a file lie from the centres that claim them, as far as all types have it in common.

    Parameters
    ----------
    detector
        Of the model, for the genes of the file.
    projected
        Unit profiles of cells times the detector's weights, (n, w).

    Returns
    -------
    The move, (w,): the mean of the types' own moves, smaller the fewer types say so.
    """
    move = np.zeros(projected.shape[1])
    for _ in range(ROUNDS):
        novelty, classes = detector.claims(projected - move)
        claimed = detector.type_index[classes]
        moves, weights = [], []
        for of_type in np.unique(claimed):
            own = np.flatnonzero(claimed == of_type)
            if len(own) < FEWEST:
                continue
            # Its least novel cells: the others may be of a type that nobody taught.
            core = own[novelty[own] <= np.quantile(novelty[own], CORE)]
            taught = float(detector.cells[detector.type_index == of_type].sum())
            moves.append(np.median(projected[core] - detector.centres[classes[core]], axis=0))
            weights.append(len(own) / (len(own) + OWN_CELLS) * taught / (taught + OWN_CELLS))
        if not moves:
            break
        total = float(np.sum(weights))
        move = np.array(weights) @ np.array(moves) / (total + MOVES)
    return np.asarray(move)
