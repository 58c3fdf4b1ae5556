"""Nearest reference cells through FAISS; the only module that imports it.

Shapes: N reference vectors, n queries, D dimensions, k neighbours.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from canal.errors import StageError

EXACT_UP_TO = 50_000  # reference vectors searched exhaustively; more are searched through an inverted file
PROBED_SHARE = 0.1  # share of the inverted lists that are searched for a query
BLOCK = 16_384  # queries searched at a time

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The k nearest reference vectors of some queries, nearest first.

    Attributes
    ----------
    indices
        Rows of the reference, int64 (n, k).
    distances
        Euclidean distances of the vectors, each divided by its length, float32 (n, k).
    """

    indices: np.ndarray
    distances: np.ndarray

    def __post_init__(self) -> None:
        assert self.indices.shape == self.distances.shape, (self.indices.shape, self.distances.shape)
        assert self.indices.ndim == 2, self.indices.shape

    @property
    def k(self) -> int:
        """Neighbours of each query."""
        return int(self.indices.shape[1])


class NeighbourIndex:
    """Search among reference vectors: exact up to `EXACT_UP_TO`, an inverted file above; on a GPU where there is one.

    References and queries are divided by their length first, so that only the direction counts.

    Parameters
    ----------
    vectors
        Reference of shape (N, D), N >= 1.
    gpu
        Use CUDA where FAISS and the machine have it; the neighbours are the same.

    Raises
    ------
    StageError
        If there is no reference vector.
    """

    def __init__(self, vectors: np.ndarray, *, gpu: bool = True) -> None:
        if vectors.ndim != 2 or not len(vectors):
            message = (
                "There are no reference cells to search: the example bank is empty. "
                "Add a stage with bank.size above 0 first."
            )
            raise StageError(message)
        self.size, self.dim = vectors.shape
        self.kind = "flat" if self.size <= EXACT_UP_TO else "ivf"
        self._index = _build(_unit_vectors(vectors), self.kind, gpu=gpu)

    def search(self, queries: np.ndarray, k: int) -> Neighbours:
        """Return the k nearest references of each query.

        Parameters
        ----------
        queries
            Of shape (n, D).
        k
            Number of neighbours, 1 to N.

        Raises
        ------
        StageError
            If k is not between 1 and the size of the index.
        """
        if not 1 <= k <= self.size:
            message = (
                f"{k} neighbours were asked for, but the index holds {self.size} reference cells to choose from. "
                f"Choose a number from 1 to {self.size}, or keep more cells with bank.size."
            )
            raise StageError(message)
        assert queries.ndim == 2, queries.shape
        assert queries.shape[1] == self.dim, (queries.shape, self.dim)
        indices, distances = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        for start in range(0, len(queries), BLOCK):
            rows = slice(start, start + BLOCK)
            square, indices[rows] = self._index.search(_unit_vectors(queries[rows]), k)
            distances[rows] = np.sqrt(np.maximum(square, 0.0))
        return Neighbours(indices=indices, distances=distances)


def _gpu_count() -> int:
    """Return the number of GPUs that FAISS can use; 0 for faiss-cpu."""
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def _build(vectors: np.ndarray, kind: str, *, gpu: bool) -> Any:
    """Return FAISS's index of unit vectors."""
    import faiss

    n, d = vectors.shape
    flat = faiss.IndexFlatL2(d)
    index: Any = flat
    # An inverted file of about 4 sqrt(N) lists, as FAISS's guidelines ask for.
    if kind == "ivf":
        lists = max(1, int(4 * np.sqrt(n)))
        index = faiss.IndexIVFFlat(flat, d, lists, faiss.METRIC_L2)
        index.cp.min_points_per_centroid = 1
        index.train(vectors)
        index.nprobe = max(1, round(PROBED_SHARE * lists))
    if gpu and _gpu_count():
        logger.debug("FAISS searches on a GPU")
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(vectors)
    return index


def _unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return float32 rows of length 1 in C order; a row of zeros stays zero."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit
