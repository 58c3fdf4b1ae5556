"""Which rule judges novelty, and what every rule offers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from canal.data.pool import CellPool
from canal.errors import StageError
from canal.learn.reader import GeneSetReader, Prediction
from canal.stages.answers import Answers
from canal.stages.novelty import novelty_columns
from canal.stages.probability import probability_columns


@dataclass(frozen=True, kw_only=True)
class NoveltyRule:
    """How novelty is to be judged; what the stage does by default where nothing is given.

    Attributes
    ----------
    alpha
        Share of known cells that may be called novel.
    neighbors
        Nearest reference cells to name for each cell.
    min_probability
        Call cells novel whose highest probability is below it, in place of the memory's detector.
    """

    alpha: float | None = None
    neighbors: int = 0
    min_probability: float | None = None


class Verdict(Protocol):
    """Judges the cells of one file."""

    @property
    def reader(self) -> GeneSetReader:
        """The model for the genes of the file, made to yield what the rule needs."""

    def add(self, found: Prediction) -> None:
        """Look at the next cells of the file."""

    def columns(self, answers: Answers, best_known: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the columns of the annotation by name, each (cells,)."""

    def facts(self) -> dict[str, Any]:
        """Return what the annotation says of its verdicts."""


def verdict_for(rule: NoveltyRule, reader: GeneSetReader, bank: CellPool) -> Verdict | None:
    """Return what judges novelty in a file, or ``None`` where the model cannot tell and nobody asked.

    Raises
    ------
    StageError
        If two rules are asked for at once, a number is out of bounds, or the model cannot tell.
    """
    if rule.min_probability is not None and (rule.alpha is not None or rule.neighbors):
        message = "--min-probability judges by the probability alone. Leave out --alpha and --neighbors, or it."
        raise StageError(message)
    novelty = reader.annotator.preset.novelty
    threshold = rule.min_probability
    if threshold is None and novelty.detector == "probability" and rule.alpha is None and not rule.neighbors:
        threshold = novelty.min_probability
    if threshold is not None:
        return probability_columns(reader, threshold)
    return novelty_columns(reader, bank, rule.alpha, rule.neighbors)
