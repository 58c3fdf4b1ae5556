"""`--transductive`: the paper's verdict instead of ours; it depends on the other cells of the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from canal.detect.scores import energy, max_probability
from canal.detect.transductive import TEMPERATURE, Mixes, transductive_scores, transductive_threshold
from canal.errors import StageError
from canal.learn.reader import GeneSetReader, Prediction
from canal.seeds import numpy_generator
from canal.stages.answers import Answers
from canal.stages.novelty import NoveltyColumns

RULE = "CANAL (Wan et al. 2024): each verdict depends on the other cells of the file"


@dataclass
class TransductiveColumns:
    """Collects what the paper's rule needs of the cells of a file, block by block; it judges them at the end.

    Two numbers a cell are kept, and the logits of the cells that are mixed.

    Attributes
    ----------
    reader
        Model for the genes of the file.
    mixes
        Cells that are mixed for the threshold.
    neighbors
        Names the nearest reference cells, where asked.
    """

    reader: GeneSetReader
    mixes: Mixes
    neighbors: NoveltyColumns | None = None
    _confidence: list[np.ndarray] = field(default_factory=list)
    _energy: list[np.ndarray] = field(default_factory=list)
    _mixed: list[np.ndarray] = field(default_factory=list)
    _done: int = 0

    def add(self, found: Prediction) -> None:
        """Look at the next cells."""
        logits = found.logits
        self._confidence.append(1.0 - max_probability(logits))
        self._energy.append(energy(logits, TEMPERATURE))
        rows = self.mixes.rows
        here = rows[(rows >= self._done) & (rows < self._done + len(logits))]
        self._mixed.append(logits[here - self._done])
        self._done += len(logits)

    @cached_property
    def threshold(self) -> float:
        """The score above which a cell of this file is novel."""
        logits, rows = np.concatenate(self._mixed), self.mixes.rows
        first, second = (logits[np.searchsorted(rows, of)] for of in (self.mixes.first, self.mixes.second))
        return transductive_threshold(first, second, self.mixes.weights)

    def columns(self, answers: Answers, best_known: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the columns by name, each (cells,); there is no p-value and no uncertain cell."""
        score = transductive_scores(np.concatenate(self._confidence), np.concatenate(self._energy))
        status = np.where(score > self.threshold, "novel", "known").astype(object)
        near = {} if self.neighbors is None else self.neighbors.columns(answers, best_known)
        own = {"best_known": best_known, "status": status, "novelty": score.astype(np.float32)}
        return own | {name: values for name, values in near.items() if name.startswith("neighbor_")}

    def facts(self) -> dict[str, Any]:
        """Return what the annotation says of its verdicts."""
        return {"alpha": None, "transductive": RULE, "threshold": self.threshold}


def transductive_columns(
    reader: GeneSetReader, cells: int, seed: int, *, alpha: float | None, neighbors: NoveltyColumns | None = None
) -> TransductiveColumns:
    """Return what collects the paper's verdict.

    Parameters
    ----------
    reader
        Model for the genes of the file.
    cells
        Number of cells of the file.
    seed
        Seed that the stage recorded; it draws the cells to mix.
    alpha
        What was asked for; the rule has none.
    neighbors
        Names the nearest reference cells, where asked.

    Raises
    ------
    StageError
        If a rate of false alarms is asked for, or the file has one cell alone.
    """
    if alpha is not None:
        message = (
            f"alpha is {alpha:g}, but with --transductive the threshold follows from the cells of the file and holds "
            "no rate of false alarms. Leave out --alpha or --transductive."
        )
        raise StageError(message)
    if cells < 2:
        message = (
            f"The file has {cells} cell; with --transductive a cell is judged by the other cells of its file, two at "
            "least. Leave out --transductive: then each cell is judged by itself."
        )
        raise StageError(message)
    judging = reader if neighbors is None else neighbors.reader  # it finds the neighbours too
    return TransductiveColumns(judging, Mixes.draw(cells, numpy_generator(seed, "transductive")), neighbors)
