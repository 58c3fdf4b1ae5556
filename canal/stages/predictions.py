"""The answers for the cells of a file, block by block: what is kept of each cell is small, or goes to disk.

The calling thread reads, checks and digests; others annotate the blocks before. So memory does not grow with the
cells but for a few numbers of each.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from canal.data.panel import check_overlap
from canal.data.stream import CellStream
from canal.data.threads import RowSpool, in_order, usable_cores
from canal.model.model import Model
from canal.model.novelty.detector import NoveltyScores
from canal.model.novelty.neighbours import Neighbours
from canal.model.reader import GeneSetReader, Prediction
from canal.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the model says of the cells of a file, in their order.

    Attributes
    ----------
    best
        Index of the most probable of the allowed types, int32 (cells,).
    confidence
        Its probability among these, float32 (cells,).
    representation
        Float32 (cells, D), on disk where it is large.
    novelty, neighbours
        Where they were asked for.
    """

    best: np.ndarray
    confidence: np.ndarray
    representation: np.ndarray
    novelty: NoveltyScores | None = None
    neighbours: Neighbours | None = None

    def names(self, types: tuple[str, ...]) -> np.ndarray:
        """Return the name of each cell's type, object (cells,)."""
        return np.asarray(np.array(types, dtype=object)[self.best])


class _Collector:
    """Fills the answers of ``n`` cells from the front."""

    def __init__(self, n: int, dim: int, reader: GeneSetReader, neighbors: int, folder: Path | None) -> None:
        self._done = 0
        self._best, self._confidence = np.empty(n, np.int32), np.empty(n, np.float32)
        judged = n if reader.scores_novelty else 0
        self._novelty, self._p_value = np.empty(judged, np.float32), np.empty(judged, np.float32)
        near = (n if neighbors else 0, neighbors)
        self._indices, self._distances = np.empty(near, np.int32), np.empty(near, np.float32)
        self._spool = RowSpool(n, dim, folder)

    def add(self, found: Prediction) -> None:
        n = len(found.probabilities)
        rows = slice(self._done, self._done + n)
        self._best[rows] = found.probabilities.argmax(axis=1)
        self._confidence[rows] = found.probabilities.max(axis=1)
        self._spool.append(found.representation)
        if found.novelty is not None:
            self._novelty[rows], self._p_value[rows] = found.novelty.novelty, found.novelty.p_value
        if found.neighbours is not None:
            self._indices[rows], self._distances[rows] = found.neighbours.indices, found.neighbours.distances
        self._done += n

    def finish(self) -> Answers:
        judged, near = len(self._novelty) > 0, len(self._indices) > 0
        return Answers(
            best=self._best,
            confidence=self._confidence,
            representation=self._spool.finish(),
            novelty=NoveltyScores(novelty=self._novelty, p_value=self._p_value) if judged else None,
            neighbours=Neighbours(indices=self._indices, distances=self._distances) if near else None,
        )


def reader_of(model: Model, stream: CellStream) -> GeneSetReader:
    """Return the model for the genes of an open file.

    Raises
    ------
    DataError
        If the file measures too few genes of the model.
    """
    reader = model.reader(stream.genes)
    check_overlap(reader.match, model.preset.genes.min_overlap, stream.report.path)
    return reader


def answer_stream(
    reader: GeneSetReader,
    stream: CellStream,
    progress: Progress,
    *,
    allowed: np.ndarray | None = None,
    neighbors: int = 0,
    folder: Path | None = None,
    watch: Callable[[Prediction], None] | None = None,
) -> Answers:
    """Annotate an open file block by block.

    Parameters
    ----------
    reader
        The model for the genes of the file, made to judge novelty where that is wanted.
    stream
        The open file.
    progress
        Told about every block, and of the cells a second.
    allowed
        Types that may be answered, bool (types,); all by default.
    neighbors
        Nearest cells of the bank to find of each cell.
    folder
        Where what is large may lie meanwhile.
    watch
        Told the prediction for every block, over all types, in the order of the cells.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    progress.start(len(stream), "annotating")
    begin, done = time.monotonic(), 0
    collector: _Collector | None = None

    def work(kept: sp.csr_matrix) -> Prediction:
        return reader.predict_columns(kept, neighbors)

    workers = reader.workers(usable_cores())
    for found in in_order(work, stream.chunks(reader.columns), workers):
        if collector is None:
            collector = _Collector(len(stream), found.representation.shape[1], reader, neighbors, folder)
        if watch is not None:
            watch(found)
        collector.add(found if allowed is None else found.restricted_to(allowed))
        done += len(found.probabilities)
        speed = done / max(time.monotonic() - begin, 1e-9)
        progress.advance(len(found.probabilities), f"{speed:,.0f} cells/s")
    progress.close()
    assert collector is not None, "a stream has cells"
    return collector.finish()
