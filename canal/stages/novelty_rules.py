"""What an annotation says of novelty: score, p-value, verdict and the nearest reference cells.

What an annotation says of novelty where a threshold of the probability judges.

`--transductive`: the paper's verdict instead of ours; it depends on the other cells of the file.

Which rule judges novelty, and what every rule offers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from canal.config import Preset
from canal.data.cells import CellPool
from canal.errors import StageError
from canal.model.novelty.calibration import check_alpha, verdicts
from canal.model.novelty.rules import (
    TEMPERATURE,
    Mixes,
    check_threshold,
    probability_verdicts,
    transductive_scores,
    transductive_threshold,
)
from canal.model.novelty.scores import energy, max_probability
from canal.model.reader import GeneSetReader, Prediction
from canal.model.stage_keys import bank_stages
from canal.seeds import numpy_generator
from canal.stages.predictions import Answers

ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class NoveltyColumns:
    """What an annotation is to say of novelty; each cell is judged by itself.

    Attributes
    ----------
    reader
        The model for the genes of the file, judging.
    bank
        The reference cells.
    alpha
        Share of known cells that may be called novel.
    neighbors
        Nearest reference cells to name.
    stages
        Number of the stage by the key of a reference cell, where they differ; see `canal.model.stage_keys`.
    """

    reader: GeneSetReader
    bank: CellPool
    alpha: float
    neighbors: int
    stages: Mapping[int, int] = field(default_factory=dict)

    def add(self, found: Prediction) -> None:
        """Nothing is kept of the cells: their answers hold all."""

    def facts(self) -> dict[str, Any]:
        """Return the rate of false alarms."""
        return {"alpha": self.alpha}

    def columns(self, answers: Answers, best_known: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the columns by name, each (cells,)."""
        assert answers.novelty is not None
        found = {
            "best_known": best_known,
            "status": verdicts(answers.novelty.p_value, self.alpha),
            "novelty": answers.novelty.novelty,
            "p_value": answers.novelty.p_value,
        }
        return found | self._neighbor_columns(answers)

    def _neighbor_columns(self, answers: Answers) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        near, stages = answers.neighbours, bank_stages(self.bank, self.stages)
        for k in range(0 if near is None else near.k):
            assert near is not None
            of = near.indices[:, k]
            found[f"neighbor_{k + 1}"] = self.bank.names[of]
            found[f"neighbor_{k + 1}_type"] = self.bank.labels[of]
            found[f"neighbor_{k + 1}_stage"] = stages[of]
            found[f"neighbor_{k + 1}_distance"] = near.distances[:, k]
        return found


def novelty_columns(
    reader: GeneSetReader,
    bank: CellPool,
    alpha: float | None,
    neighbors: int,
    stages: Mapping[int, int] | None = None,
) -> NoveltyColumns | None:
    """Return what is said of novelty, or ``None`` where the model cannot tell and nobody asked.

    Parameters
    ----------
    reader
        The model for the genes of the file.
    bank
        Its example bank.
    alpha
        Share of known cells that may be called novel; 0.05, if the model can tell, where ``None``.
    neighbors
        Nearest reference cells to name.
    stages
        Number of the stage by the key of a reference cell, where they differ.

    Raises
    ------
    StageError
        If alpha is not between 0 and 1, or novelty or neighbours are asked of a model that has no calibration, no
        analytic memory or too small a bank.
    """
    if alpha is not None:
        check_alpha(alpha)
    if neighbors > len(bank):
        message = (
            f"{neighbors} nearest cells were asked for; the example bank of this stage has {len(bank)}. "
            "Ask for fewer with --neighbors."
        )
        raise StageError(message)
    asked = alpha is not None or neighbors > 0
    able = reader.annotator.novelty.stages or len(bank)
    detector = reader.novelty(bank) if able else None
    if detector is None and asked:
        message = (
            "This stage cannot tell novel cells: it has no analytic memory or no calibration (preset "
            f"{reader.annotator.preset.name!r}). Use a stage of preset 'compact', or leave out --alpha and --neighbors."
        )
        raise StageError(message)
    if detector is None:
        return None
    return NoveltyColumns(
        reader=reader.judging(detector),
        bank=bank,
        alpha=ALPHA if alpha is None else alpha,
        neighbors=neighbors,
        stages=stages or {},
    )


@dataclass
class ProbabilityColumns:
    """Collects the highest probability of each cell, over all types of the model.

    Attributes
    ----------
    reader
        The model for the genes of the file.
    threshold
        Cells are novel below it.
    """

    reader: GeneSetReader
    threshold: float
    _highest: list[np.ndarray] = field(default_factory=list)

    def add(self, found: Prediction) -> None:
        """Look at the next cells."""
        self._highest.append(found.probabilities.max(axis=1))

    def columns(self, answers: Answers, best_known: np.ndarray) -> Mapping[str, np.ndarray]:  # noqa: ARG002
        """Return the columns by name, each (cells,); there is no p-value."""
        found = probability_verdicts(np.concatenate(self._highest), self.threshold)
        return {"best_known": best_known, "status": found.status, "novelty": found.novelty}

    def facts(self) -> dict[str, Any]:
        """Return the threshold; the rule knows no rate of false alarms."""
        return {"alpha": None, "min_probability": self.threshold}


def probability_columns(reader: GeneSetReader, threshold: float) -> ProbabilityColumns:
    """Return what judges by a threshold.

    Raises
    ------
    StageError
        If the threshold is not above 0 and at most 1.
    """
    check_threshold(threshold)
    return ProbabilityColumns(reader, threshold)


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


def verdict_for(
    rule: NoveltyRule,
    reader: GeneSetReader,
    bank: CellPool,
    *,
    cells: int,
    seed: int,
    stages: Mapping[int, int] | None = None,
) -> Verdict:
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
    stages
        Number of the stage by the key of a reference cell, where they differ.

    Raises
    ------
    StageError
        If two rules are asked for at once, a number is out of bounds, or the model cannot tell.
    """
    threshold = _threshold(rule, reader.annotator.preset)
    if threshold is not None:
        return probability_columns(reader, threshold)
    if rule.transductive:
        near = novelty_columns(reader, bank, None, rule.neighbors, stages) if rule.neighbors else None
        return transductive_columns(reader, cells, seed, alpha=rule.alpha, neighbors=near)
    return novelty_columns(reader, bank, rule.alpha, rule.neighbors, stages) or Unjudged(reader)


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
