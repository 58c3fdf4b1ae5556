"""Rules of novelty: which one judges the cells of a file, and what it adds to their annotation.

All rules have one interface, `NoveltyRule`: a rule looks at the cells block by block and gives the columns of the
annotation at the end. By default the analytic memory's detector judges each cell by itself (`MemoryRule`). In its place
a threshold of the probability (`ProbabilityRule`) or the paper's rule can judge; by the latter the verdict on a cell
depends on the other cells of the file (`TransductiveRule`, ``--transductive``). `choose_rule` says which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from canal.config import Preset
from canal.errors import StageError
from canal.model.adapting.adaptation import judged_before
from canal.model.novelty.calibration import check_alpha, verdicts
from canal.model.novelty.detector import NoveltyScores
from canal.model.novelty.scores import (
    TEMPERATURE,
    Mixes,
    check_threshold,
    energy,
    max_probability,
    probability_verdicts,
    transductive_scores,
    transductive_threshold,
)
from canal.model.reader import GeneSetReader, Prediction
from canal.model.stage_keys import bank_stages
from canal.seeds import numpy_generator
from canal.stages.predictions import Answers

ALPHA = 0.05  # share of known cells that may be called novel, where none is asked for


@dataclass(frozen=True, kw_only=True)
class NoveltyOptions:
    """How novelty is to be judged; as the preset of the stage says where nothing is asked for.

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


class NoveltyRule(Protocol):
    """Judges the cells of one file."""

    @property
    def reader(self) -> GeneSetReader:
        """The model for the genes of the file, made to yield what the rule needs."""

    def add(self, prediction: Prediction) -> None:
        """Look at the next cells of the file."""

    def columns(self, answers: Answers, best_known: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the columns of the annotation by name, each (cells,)."""

    def facts(self) -> dict[str, Any]:
        """Return what the annotation says of the rule, such as its threshold."""


def choose_rule(
    options: NoveltyOptions, reader: GeneSetReader, *, cells: int, seed: int, whole: bool = True
) -> NoveltyRule:
    """Return the rule that judges novelty in a file; `NoRule` where the model cannot tell and nothing was asked for.

    Parameters
    ----------
    options
        What was asked for.
    reader
        The model for the genes of the file.
    cells
        Number of cells of the file.
    seed
        Seed that the stage recorded.
    whole
        Whether the cells are a whole file and not some of its rows.

    Raises
    ------
    StageError
        If two rules are asked for at once, a number is out of bounds, or the model cannot tell.
    """
    # A threshold of the probability judges alone.
    threshold = _probability_threshold(options, reader.model.preset)
    if threshold is not None:
        check_threshold(threshold)
        return ProbabilityRule(reader, threshold)
    if options.transductive:
        # The rule itself names no cells; the memory's detector finds the neighbours beside it.
        nearest = memory_rule(reader, None, options.neighbors) if options.neighbors else None
        return transductive_rule(reader, cells, seed, alpha=options.alpha, neighbors=nearest)
    rule = memory_rule(reader, options.alpha, options.neighbors)
    return NoRule(reader) if rule is None else replace(rule, whole=whole)


def _probability_threshold(options: NoveltyOptions, preset: Preset) -> float | None:
    """Return the probability to judge by: what was asked for, or the preset's where nothing was."""
    asked_otherwise = options.alpha is not None or options.neighbors or options.transductive
    if options.min_probability is None:
        by_default = preset.novelty.detector == "probability" and not asked_otherwise
        return preset.novelty.min_probability if by_default else None
    if asked_otherwise:
        message = "--min-probability judges alone. Leave it out, or --alpha, --neighbors and --transductive."
        raise StageError(message)
    return options.min_probability


@dataclass(frozen=True)
class NoRule:
    """No cell is judged: nothing was asked for and the model cannot tell, or nobody needs it."""

    reader: GeneSetReader

    def add(self, prediction: Prediction) -> None:
        """Keep nothing of the cells."""

    def columns(self, answers: Answers, best_known: np.ndarray) -> Mapping[str, np.ndarray]:  # noqa: ARG002
        """Return no column."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return that there is no rate of false alarms."""
        return {"alpha": None}


@dataclass(frozen=True, kw_only=True)
class MemoryRule:
    """The analytic memory's detector: each cell gets a novelty by itself, and a calibrated p-value.

    Attributes
    ----------
    reader
        The model for the genes of the file, with its novelty detector.
    alpha
        Share of known cells that may be called novel.
    whole
        Whether the cells are a whole file, so that the p-values may rest on them, too; see `file_p_values`.
    """

    reader: GeneSetReader
    alpha: float
    whole: bool = True

    def add(self, prediction: Prediction) -> None:
        """Keep nothing of the cells: their answers hold novelty and p-value."""

    def columns(self, answers: Answers, best_known: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the columns by name, each (cells,)."""
        assert answers.novelty is not None
        p_value = answers.novelty.p_value
        if self.whole:
            p_value = file_p_values(self.reader, answers.novelty)
        judged = {
            "best_known": best_known,
            "status": verdicts(p_value, self.alpha),
            "novelty": answers.novelty.novelty,
            "p_value": p_value,
        }
        return judged | self.neighbor_columns(answers)

    def neighbor_columns(self, answers: Answers) -> dict[str, np.ndarray]:
        """Return name, type, stage and distance of each of the nearest cells of the bank, where they were asked for."""
        columns: dict[str, np.ndarray] = {}
        nearest, bank = answers.neighbours, self.reader.model.bank
        if nearest is None:
            return columns
        stages = bank_stages(bank, self.reader.model.stage_of_key)
        for k in range(nearest.k):
            rows = nearest.indices[:, k]
            columns[f"neighbor_{k + 1}"] = bank.names[rows]
            columns[f"neighbor_{k + 1}_type"] = bank.labels[rows]
            columns[f"neighbor_{k + 1}_stage"] = stages[rows]
            columns[f"neighbor_{k + 1}_distance"] = nearest.distances[:, k]
        return columns

    def facts(self) -> dict[str, Any]:
        """Return the rate of false alarms."""
        return {"alpha": self.alpha}


# How much of what the bulk of a file is newer than known cells of the stages is taken off without --adapt. Data sets
# left out (immune, pancreas): false alarms at alpha .05 fall from .335 and .718 to .13 and .08, the recall of a type
# that was left out as well from .63 to .47 and from .92 to .41; known technologies: .114 and .041 to .056 and .041.
PLAIN_SHARE = 0.6


def file_shift(reader: GeneSetReader, novelty: NoveltyScores) -> float:
    """Return what is taken off the novelty of a file's cells before they are compared with those of the stages.

    Known cells of a technology that no stage has taught look newer than those that the stages held out. Most cells of
    most files are of known types: what the bulk of the file is newer is taken off in part.

    Parameters
    ----------
    reader
        The model for the genes of the file, with its novelty detector.
    novelty
        Of all cells of the file, (cells,).

    Returns
    -------
    0 for a file of few cells, for one whose cells are like those taught, and for one that the model was adapted to.
    """
    assert reader.detector is not None
    if reader.judges_by_file or judged_before(novelty.p_value).held_back:
        return 0.0
    return PLAIN_SHARE * reader.detector.for_genes.newer_bulk(novelty.novelty)


def file_p_values(reader: GeneSetReader, novelty: NoveltyScores) -> np.ndarray:
    """Return p-values that rest on the file, too, float32 (cells,); arguments as for `file_shift`."""
    assert reader.detector is not None
    shift = file_shift(reader, novelty)
    if not shift:
        return novelty.p_value
    return reader.detector.for_genes.p_values(novelty.novelty - shift).astype(np.float32)


# Share of cells with a p-value up to this that a file may have whose cells are like those of the stages: twice as many.
USUAL_P, MOST_UNUSUAL = 0.05, 0.1
LEAST_TO_TELL = 20  # cells; of fewer the share says little


def calibration_facts(reader: GeneSetReader, answers: Answers, *, whole: bool = True) -> dict[str, Any]:
    """Return whether the p-values of a file mean what they say, and how far its cells are from each taught stage.

    The p-values compare a cell with known cells of the stages. Known cells of a technology that no stage has taught
    look newer than these, so that more of them are called novel than was asked for.

    Parameters
    ----------
    reader
        The model for the genes of the file, as it judged.
    answers
        For all cells of the file.
    whole
        Whether these are a whole file and not some of its rows.

    Returns
    -------
    ``calibrated_for``: ``yes``, ``no``, or ``unknown`` for a few cells; ``unlike``: share of the cells with a p-value
    up to .05, before the file has a say; ``unlike_stages``: by number of the stage, the share of the cells that are
    newer than 95 in 100 of its own; ``novelty_shift``: that of `file_shift`. Nothing where the memory's
    detector did not judge.
    """
    if reader.detector is None or answers.novelty is None or not len(answers.novelty.novelty):
        return {}
    novelty, detector = answers.novelty.alone, reader.detector.for_genes
    unlike = float((detector.p_values(novelty) <= USUAL_P).mean())
    stages = {}
    for key, share in detector.unlike_by_stage(novelty, USUAL_P).items():
        stages[str(reader.model.stage_of_key.get(key, key))] = share
    shift = file_shift(reader, answers.novelty) if whole else 0.0
    return _calibration(unlike, stages, len(novelty)) | {"novelty_shift": round(shift, 4)}


def _calibration(unlike: float, stages: dict[str, float], cells: int) -> dict[str, Any]:
    """Return the facts of `calibration_facts`."""
    calibrated = "yes"
    if unlike > MOST_UNUSUAL:
        calibrated = "no"
    elif cells < LEAST_TO_TELL:
        calibrated = "unknown"
    return {"calibrated_for": calibrated, "unlike": unlike, "unlike_stages": stages}


def joined_calibration(facts: Sequence[Mapping[str, Any]], cells: Sequence[int]) -> dict[str, Any]:
    """Return the facts of `calibration_facts` for a file from those of its parts.

    Parameters
    ----------
    facts, cells
        Of each part: its facts, and its number of cells.
    """
    parts = [(part, n) for part, n in zip(facts, cells, strict=True) if "unlike" in part]
    total = sum(n for _, n in parts)
    if not total:
        return {}
    # Shares become numbers of cells again, so that the answer is the same whatever the parts.
    stages = {}
    for stage in parts[0][0]["unlike_stages"]:
        stages[stage] = sum(round(part["unlike_stages"][stage] * n) for part, n in parts) / total
    return _calibration(sum(round(part["unlike"] * n) for part, n in parts) / total, stages, total)


def memory_rule(reader: GeneSetReader, alpha: float | None, neighbors: int) -> MemoryRule | None:
    """Return the rule of the analytic memory, ``None`` where the model cannot tell and nothing was asked for.

    Parameters
    ----------
    reader
        The model for the genes of the file.
    alpha
        Share of known cells that may be called novel; `ALPHA`, if the model can tell, where ``None``.
    neighbors
        Nearest reference cells to name.

    Raises
    ------
    StageError
        If alpha is not between 0 and 1, or novelty or neighbours are asked of a model that has no calibration, no
        analytic memory or too small a bank.
    """
    model = reader.model
    if alpha is not None:
        check_alpha(alpha)
    if neighbors > len(model.bank):
        message = (
            f"{neighbors} nearest cells were asked for; the example bank of this stage has {len(model.bank)}. "
            "Ask for fewer with --neighbors."
        )
        raise StageError(message)
    # Without any known cell to compare with, held out or in the bank, a model cannot tell.
    detector = reader.novelty() if model.novelty.stages or len(model.bank) else None
    if detector is not None:
        return MemoryRule(reader=reader.with_novelty(detector, neighbors), alpha=ALPHA if alpha is None else alpha)
    # It need not be able to, unless it is asked.
    if alpha is None and not neighbors:
        return None
    message = (
        "This stage cannot tell novel cells: it has no analytic memory or no calibration (preset "
        f"{model.preset.name!r}). Use a stage of preset 'compact', or leave out --alpha and --neighbors."
    )
    raise StageError(message)


def judging_reader(reader: GeneSetReader) -> GeneSetReader:
    """Return the reader with the memory's novelty detector where the model has one, itself elsewhere."""
    rule = memory_rule(reader, None, 0)
    return reader if rule is None else rule.reader


@dataclass
class ProbabilityRule:
    """scBERT's rule: a cell is novel whose highest probability, over all types of the model, is below a threshold.

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

    def add(self, prediction: Prediction) -> None:
        """Keep the highest probability of the next cells."""
        self._highest.append(prediction.probabilities.max(axis=1))

    def columns(self, answers: Answers, best_known: np.ndarray) -> Mapping[str, np.ndarray]:  # noqa: ARG002
        """Return the columns by name, each (cells,); there is no p-value."""
        judged = probability_verdicts(np.concatenate(self._highest), self.threshold)
        return {"best_known": best_known, "status": judged.status, "novelty": judged.novelty}

    def facts(self) -> dict[str, Any]:
        """Return the threshold; the rule knows no rate of false alarms."""
        return {"alpha": None, "min_probability": self.threshold}


# What the annotation says of the paper's rule, in `uns` and in JSON.
TRANSDUCTIVE = "CANAL (Wan et al. 2024): each verdict depends on the other cells of the file"


@dataclass
class TransductiveRule:
    """The paper's rule: the cells of a file are judged together, once all of them were looked at.

    Two numbers of each cell are kept, and the logits of the cells that are mixed.

    Attributes
    ----------
    reader
        The model for the genes of the file.
    mixes
        Pairs of cells that are mixed for the threshold.
    neighbors
        Names the nearest reference cells, where asked for.
    """

    reader: GeneSetReader
    mixes: Mixes
    neighbors: MemoryRule | None = None
    _confidence: list[np.ndarray] = field(default_factory=list)
    _energy: list[np.ndarray] = field(default_factory=list)
    _mixed_logits: list[np.ndarray] = field(default_factory=list)
    _done: int = 0

    def add(self, prediction: Prediction) -> None:
        """Keep confidence and energy of the next cells, and the logits of those that are mixed."""
        logits = prediction.logits
        self._confidence.append(max_probability(logits))
        self._energy.append(energy(logits, TEMPERATURE))
        # The cells to mix were drawn by their row of the file: those of this block.
        rows = self.mixes.rows
        in_block = rows[(rows >= self._done) & (rows < self._done + len(logits))]
        self._mixed_logits.append(logits[in_block - self._done])
        self._done += len(logits)

    @cached_property
    def threshold(self) -> float:
        """The score above which a cell of this file is novel."""
        mixes, logits = self.mixes, np.concatenate(self._mixed_logits)
        first = logits[np.searchsorted(mixes.rows, mixes.first)]
        second = logits[np.searchsorted(mixes.rows, mixes.second)]
        return transductive_threshold(first, second, mixes.weights)

    def columns(self, answers: Answers, best_known: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the columns by name, each (cells,); there is no p-value and no uncertain cell."""
        score = transductive_scores(np.concatenate(self._confidence), np.concatenate(self._energy))
        status = np.where(score > self.threshold, "novel", "known").astype(object)
        judged = {"best_known": best_known, "status": status, "novelty": score.astype(np.float32)}
        return judged if self.neighbors is None else judged | self.neighbors.neighbor_columns(answers)

    def facts(self) -> dict[str, Any]:
        """Return the name of the rule and its threshold in this file."""
        return {"alpha": None, "transductive": TRANSDUCTIVE, "threshold": self.threshold}


def transductive_rule(
    reader: GeneSetReader, cells: int, seed: int, *, alpha: float | None, neighbors: MemoryRule | None = None
) -> TransductiveRule:
    """Return the paper's rule for a file.

    Parameters
    ----------
    reader
        The model for the genes of the file.
    cells
        Number of cells of the file.
    seed
        Seed that the stage recorded; it draws the cells to mix.
    alpha
        What was asked for; the rule has none.
    neighbors
        Names the nearest reference cells, where asked for.

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
    # The memory rule's reader finds the neighbours, too.
    judging = reader if neighbors is None else neighbors.reader
    return TransductiveRule(judging, Mixes.draw(cells, numpy_generator(seed, "transductive")), neighbors)
