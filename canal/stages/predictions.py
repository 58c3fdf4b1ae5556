"""A model's answers for the cells of a file, block by block, in memory that hardly grows with the cells.

The calling thread reads, checks and digests the next block, while others annotate the blocks before. A few numbers of
each cell are kept; what is larger goes to disk.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from canal.data.stream import CellStream
from canal.data.threads import RowSpool, in_order, usable_cores
from canal.model.model import Model
from canal.model.novelty.detector import NoveltyScores
from canal.model.novelty.neighbours import Neighbours
from canal.model.reader import GeneSetReader, Prediction
from canal.model.voter import Votes
from canal.progress import Progress
from canal.stages.sure_answers import SureRule


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
    second, second_confidence
        Index of the next probable of the allowed types, int32 (cells,), and its probability, float32 (cells,); ``None``
        where only one type is allowed.
    probabilities
        Of every type, float32 (cells, types), on disk where they are large; ``None`` where they were not asked for.
    novelty, neighbours
        Novelty with p-value, and nearest cells of the example bank; ``None`` where they were not asked for.
    sure
        Index of the most specific node that is sure, int32 (cells,); ``None`` where it was not asked for.
    votes
        Which cells the voter answers; ``None`` where the model has none that can.
    """

    best: np.ndarray
    confidence: np.ndarray
    representation: np.ndarray
    second: np.ndarray | None = None
    second_confidence: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    novelty: NoveltyScores | None = None
    neighbours: Neighbours | None = None
    sure: np.ndarray | None = None
    votes: Votes | None = None

    @property
    def voted(self) -> np.ndarray:
        """Whether the voter answers a cell, bool (cells,)."""
        return np.zeros(len(self.best), dtype=bool) if self.votes is None else self.votes.voted

    def names(self, types: tuple[str, ...]) -> np.ndarray:
        """Return the name of each cell's type, object (cells,)."""
        return np.asarray(np.array(types, dtype=object)[self.best])

    def answered(self, model: Model) -> "tuple[np.ndarray, np.ndarray]":
        """Return type and confidence of each cell, (cells,) each: the voter's where it answers, else the taught one."""
        names = self.names(model.types)
        if self.votes is None or model.voter is None:
            return names, self.confidence
        return self.votes.over(model.voter, names, self.confidence)

    def second_columns(self, types: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return the columns with each cell's second type and its probability; none where one type is allowed."""
        if self.second is None or self.second_confidence is None:
            return {}
        names = np.asarray(np.array(types, dtype=object)[self.second])
        return {"second_type": names, "second_confidence": self.second_confidence}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which answers are wanted of a file, and where large ones may lie.

    Attributes
    ----------
    allowed
        Types that may be answered, bool (types,); all by default.
    probabilities
        Keep the probability of every type.
    folder
        Where large arrays may lie meanwhile; the system's folder for temporary files by default.
    """

    allowed: np.ndarray | None = None
    probabilities: bool = False
    folder: Path | None = None


class _Collector:
    """Fills the answers of ``n`` cells from the front, a block at a time; ``first`` is the first block's prediction."""

    def __init__(
        self, n: int, first: Prediction, reader: GeneSetReader, wanted: Wanted, sure: SureRule | None = None
    ) -> None:
        self._done = 0
        self._sure_rule, self._sure = sure, None if sure is None else np.empty(n, np.int32)
        self._best, self._confidence = np.empty(n, np.int32), np.empty(n, np.float32)
        # Where types may be chosen from only, a voter is silent.
        self._votes: Votes | None = None
        if first.votes is not None and (wanted.allowed is None or wanted.allowed.all()):
            self._votes = Votes(types=np.empty(n, np.int32), confidence=np.empty(n, np.float32))
        types = first.probabilities.shape[1]
        # A second type is one of those that may be answered.
        self._allowed = np.ones(types, dtype=bool) if wanted.allowed is None else wanted.allowed
        self._second: np.ndarray | None = None
        self._second_confidence = np.empty(0, np.float32)
        if self._allowed.sum() > 1:
            self._second, self._second_confidence = np.empty(n, np.int32), np.empty(n, np.float32)
        # Only what was asked for takes memory.
        self._novelty: NoveltyScores | None = None
        if reader.scores_novelty:
            self._novelty = NoveltyScores(
                novelty=np.empty(n, np.float32), p_value=np.empty(n, np.float32), alone=np.empty(n, np.float32)
            )
        self._neighbours: Neighbours | None = None
        if reader.neighbors:
            shape = (n, reader.neighbors)
            self._neighbours = Neighbours(indices=np.empty(shape, np.int32), distances=np.empty(shape, np.float32))
        self._representation = RowSpool(n, first.representation.shape[1], wanted.folder)
        self._probabilities = RowSpool(n, types, wanted.folder) if wanted.probabilities else None

    def add(self, prediction: Prediction) -> None:
        """Keep the answers for the next cells, over the allowed types."""
        n = len(prediction.probabilities)
        rows = slice(self._done, self._done + n)
        self._best[rows] = prediction.probabilities.argmax(axis=1)
        self._confidence[rows] = prediction.probabilities.max(axis=1)
        if self._second is not None:
            self._second[rows], self._second_confidence[rows] = _second_types(prediction.probabilities, self._allowed)
        self._representation.append(prediction.representation)
        if self._probabilities is not None:
            self._probabilities.append(prediction.probabilities)
        if self._sure is not None and self._sure_rule is not None:
            self._sure[rows] = self._sure_rule.of(prediction.probabilities)
        if self._votes is not None and prediction.votes is not None:
            self._votes.types[rows] = prediction.votes.types
            self._votes.confidence[rows] = prediction.votes.confidence
        if self._novelty is not None and prediction.novelty is not None:
            self._novelty.novelty[rows] = prediction.novelty.novelty
            self._novelty.p_value[rows] = prediction.novelty.p_value
            self._novelty.alone[rows] = prediction.novelty.alone
        if self._neighbours is not None and prediction.neighbours is not None:
            self._neighbours.indices[rows] = prediction.neighbours.indices
            self._neighbours.distances[rows] = prediction.neighbours.distances
        self._done += n

    def finish(self) -> Answers:
        """Return the answers for all cells."""
        return Answers(
            best=self._best,
            confidence=self._confidence,
            representation=self._representation.finish(),
            second=self._second,
            second_confidence=None if self._second is None else self._second_confidence,
            probabilities=None if self._probabilities is None else self._probabilities.finish(),
            novelty=self._novelty,
            neighbours=self._neighbours,
            sure=self._sure,
            votes=self._votes,
        )


def _second_types(probabilities: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the second most probable of the allowed types of each cell, and its probability; each (cells,)."""
    others = np.where(allowed, probabilities, -1.0)
    np.put_along_axis(others, probabilities.argmax(axis=1)[:, None], -1.0, axis=1)
    return others.argmax(axis=1), others.max(axis=1)


def reader_of(model: Model, stream: CellStream) -> GeneSetReader:
    """Return the model for the genes of an open file.

    Raises
    ------
    DataError
        If the file measures too few genes of the model.
    """
    reader = model.reader(stream.genes)
    reader.check_overlap(stream.report.path)
    return reader


def answer_stream(
    reader: GeneSetReader,
    stream: CellStream,
    progress: Progress,
    *,
    wanted: Wanted | None = None,
    watch: Callable[[Prediction], None] | None = None,
    groups: np.ndarray | None = None,
    sure: SureRule | None = None,
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
    wanted
        Which answers are wanted; by default the best two of all types.
    watch
        Called with the prediction for every block, over all types, in the order of the cells.
    groups
        Which of the reader's adaptations each cell gets, (cells,).
    sure
        How sure answers are given, where they are wanted.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    progress.start(len(stream), "annotating")
    begin, done = time.monotonic(), 0
    collector, wanted = None, wanted or Wanted()

    def predict(part: tuple[sp.csr_matrix, np.ndarray | None]) -> Prediction:
        block, of_cells = part
        return reader.predict_columns(block, of_cells)

    # Blocks are read in this thread and annotated in others; only the genes that the model looks at are read.
    workers = reader.workers(usable_cores())
    for prediction in in_order(predict, _with_groups(stream.chunks(reader.columns), groups), workers):
        # The first prediction tells the sizes.
        if collector is None:
            collector = _Collector(len(stream), prediction, reader, wanted, sure)
        if watch is not None:
            watch(prediction)
        collector.add(prediction if wanted.allowed is None else prediction.restricted_to(wanted.allowed))
        done += len(prediction.probabilities)
        speed = done / max(time.monotonic() - begin, 1e-9)
        progress.advance(len(prediction.probabilities), f"{speed:,.0f} cells/s")
    progress.close()
    assert collector is not None, "a stream has cells"
    return collector.finish()


def _with_groups(
    blocks: Iterable[sp.csr_matrix], groups: np.ndarray | None
) -> Iterator[tuple[sp.csr_matrix, np.ndarray | None]]:
    """Yield every block with the groups of its cells."""
    start = 0
    for block in blocks:
        stop = start + block.shape[0]
        yield block, None if groups is None else groups[start:stop]
        start = stop
