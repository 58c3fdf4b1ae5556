"""Which rule judges novelty, and what every rule offers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from canal.config import Preset
from canal.data.pool import CellPool
from canal.errors import StageError
from canal.learn.reader import GeneSetReader, Prediction
from canal.stages.answers import Answers
from canal.stages.novelty import novelty_columns
from canal.stages.probability import probability_columns
from canal.stages.transductive import transductive_columns


@dataclass(frozen=True, kw_only=True)
class NoveltyRule:
    """How novelty is to be judged; what the stage does by default where nothing is given.

    Attributes
    ----------
    alpha
        Share of known cells that may be called novel.
    neighbors
        Nearest reference cells to name for each cell.
    transductive
        Judge by the paper's rule: the verdict on a cell then depends on the other cells of the file.
    min_probability
        Call cells novel whose highest probability is below it, in place of the memory's detector.
    """

    alpha: float | None = None
    neighbors: int = 0
    transductive: bool = False
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


@dataclass(frozen=True)
class Unjudged:
    """No verdict: nobody asked, or the model cannot tell."""

    reader: GeneSetReader

    def add(self, found: Prediction) -> None:
        """Nothing is kept of the cells."""

    def columns(self, answers: Answers, best_known: np.ndarray) -> Mapping[str, np.ndarray]:  # noqa: ARG002
        """Return no column."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return that there is no rate of false alarms."""
        return {"alpha": None}


def verdict_for(rule: NoveltyRule, reader: GeneSetReader, bank: CellPool, *, cells: int, seed: int) -> Verdict:
    """Return what judges novelty in a file; `Unjudged` where the model cannot tell and nobody asked.

    Parameters
    ----------
    rule
        What was asked for.
    reader, bank
        The model for the genes of the file; its example bank.
    cells
        Number of cells of the file.
    seed
        Seed that the stage recorded.

    Raises
    ------
    StageError
        If two rules are asked for at once, a number is out of bounds, or the model cannot tell.
    """
    threshold = _threshold(rule, reader.annotator.preset)
    if threshold is not None:
        return probability_columns(reader, threshold)
    if rule.transductive:
        near = novelty_columns(reader, bank, None, rule.neighbors) if rule.neighbors else None
        return transductive_columns(reader, cells, seed, alpha=rule.alpha, neighbors=near)
    return novelty_columns(reader, bank, rule.alpha, rule.neighbors) or Unjudged(reader)


def _threshold(rule: NoveltyRule, preset: Preset) -> float | None:
    """Return the probability to judge by: what was asked for, or the preset's where nothing was."""
    asked_otherwise = rule.alpha is not None or rule.neighbors or rule.transductive
    if rule.min_probability is None:
        by_default = preset.novelty.detector == "probability" and not asked_otherwise
        return preset.novelty.min_probability if by_default else None
    if asked_otherwise:
        message = "--min-probability judges alone. Leave it out, or --alpha, --neighbors and --transductive."
        raise StageError(message)
    return rule.min_probability
