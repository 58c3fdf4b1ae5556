"""Which cells of a file are grouped: the novel ones, and those that lie among them.

A cell is judged by itself, so that of a type near a known one many cells pass for known. In the file they lie among
the others of their type: a cell most of whose neighbours are novel or uncertain is grouped with them. Its own verdict
stays what it was.

Shapes: n cells that are looked at, d principal components.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from canal.seeds import numpy_generator
from canal.stages.novel_clusters import NEAREST

AROUND = 0.6  # share of a cell's neighbours that must be novel or uncertain
ROUNDS = 10  # a cell that was taken counts as one of them in the next round
LOOKED_AT = 3_000  # cells of the file that stand for all whose own verdict is not enough


@dataclass(frozen=True, kw_only=True)
class LookedAt:
    """Cells of a file that are looked at together.

    Attributes
    ----------
    rows
        Their positions in the file: those taken for their own verdict, then the others, (n,).
    own
        Whether the cell's own verdict is enough, bool (n,).
    doubtful
        Whether it is novel or uncertain, bool (n,).
    weight
        How many cells of the file it stands for, (n,).
    """

    rows: np.ndarray
    own: np.ndarray
    doubtful: np.ndarray
    weight: np.ndarray


def cells_to_look_at(status: np.ndarray, *, uncertain: bool, seed: int) -> LookedAt:
    """Return all cells whose own verdict is enough and up to `LOOKED_AT` of the others.

    Parameters
    ----------
    status
        Verdict on each cell of the file, (cells,).
    uncertain
        Whether to be uncertain is enough.
    seed
        Draws the others.
    """
    wanted = np.isin(status, ("novel", "uncertain") if uncertain else ("novel",))
    own, others = np.flatnonzero(wanted), np.flatnonzero(~wanted)
    stands_for = max(len(others) / LOOKED_AT, 1.0)
    if len(others) > LOOKED_AT:
        others = np.sort(numpy_generator(seed, "known cells").choice(others, LOOKED_AT, replace=False))
    rows = np.concatenate([own, others])
    return LookedAt(
        rows=rows,
        own=wanted[rows],
        doubtful=status[rows] != "known",
        weight=np.where(wanted[rows], 1.0, stands_for),
    )


def taken_cells(cells: LookedAt, points: np.ndarray) -> np.ndarray:
    """Return which cells are grouped: by their own verdict, or for their neighbours, bool (n,).

    Parameters
    ----------
    cells
        The cells.
    points
        Their principal components, (n, d).
    """
    from sklearn.neighbors import NearestNeighbors

    k = min(NEAREST, len(points) - 1)
    if k < 1 or not cells.own.any():
        return cells.own
    index: Any = NearestNeighbors(n_neighbors=k + 1).fit(points)
    near = index.kneighbors(points, return_distance=False)[:, 1:]  # the first is the cell itself
    weight = cells.weight[near]
    taken, doubtful = cells.own, cells.doubtful
    for _ in range(ROUNDS):
        around = (weight * doubtful[near]).sum(axis=1) / weight.sum(axis=1) >= AROUND
        taken, before, doubtful = taken | around, doubtful, doubtful | around
        if (doubtful == before).all():
            break
    return np.asarray(taken)
