"""Figures, each defined once: of an annotation, of continual learning, of the detection of novel types.

What was taken for what: counts of given and predicted types, and the figures that follow from them.

Figures of continual learning, from a table of what each model reaches on the cells of each stage.

A table has shape (models, sets), models in the order they were learned; NaN stands where a model was not tested on a
set. ``born[j]`` is the row of the model that was learned at the stage the cells of set j come from.

How well cells of unknown types are told from cells of known types.

Novelty is high for cells that look new; ``novel`` says which cells truly are. All arrays are of shape (cells,).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Counts = dict[str, dict[str, int]]  # given type -> predicted type -> cells


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures of a table of counts.

    Attributes
    ----------
    cells
        Cells in all.
    accuracy, macro_f1
        Share of right cells; mean F1 over the given types.
    precision, recall, f1
        By given type.
    support
        Cells of each given type.
    """

    cells: int
    accuracy: float
    macro_f1: float
    precision: dict[str, float]
    recall: dict[str, float]
    f1: dict[str, float]
    support: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        per_type = {}
        for name in self.f1:
            per_type[name] = {"recall": self.recall[name], "f1": self.f1[name], "cells": self.support[name]}
        return {"cells": self.cells, "accuracy": self.accuracy, "macro_f1": self.macro_f1, "per_type": per_type}


def count(given: np.ndarray, predicted: np.ndarray) -> Counts:
    """Count what each given type, (cells,), was taken for, (cells,)."""
    pairs = Counter(zip(given.astype(str).tolist(), predicted.astype(str).tolist(), strict=True))
    counts: Counts = {}
    for (truth, answer), n in sorted(pairs.items()):
        counts.setdefault(truth, {})[answer] = n
    return counts


def total(tables: Iterable[Mapping[str, Mapping[str, int]]]) -> Counts:
    """Return the sum of several tables."""
    added: dict[str, Counter[str]] = {}
    for table in tables:
        for truth, answers in table.items():
            added.setdefault(truth, Counter()).update(answers)
    return {truth: dict(sorted(answers.items())) for truth, answers in sorted(added.items())}


def figures_of(counts: Mapping[str, Mapping[str, int]]) -> Figures:
    """Return accuracy, macro-F1 and figures per type; a type that was never given does not count in the mean."""
    answered: Counter[str] = Counter()
    for answers in counts.values():
        answered.update(answers)
    precision, recall, f1, support = {}, {}, {}, {}
    right_in_all = 0
    for name, answers in counts.items():
        right, given, taken = answers.get(name, 0), sum(answers.values()), answered[name]
        precision[name] = right / taken if taken else 0.0
        recall[name] = right / given
        f1[name] = 2 * right / (given + taken)
        support[name] = given
        right_in_all += right
    cells = sum(support.values())
    return Figures(
        cells=cells,
        accuracy=right_in_all / cells if cells else float("nan"),
        macro_f1=float(np.mean(list(f1.values()))) if f1 else float("nan"),
        precision=precision,
        recall=recall,
        f1=f1,
        support=support,
    )


def score(truth: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Return accuracy, macro-F1 over the types present in ``truth``, ARI and figures per type.

    Parameters
    ----------
    truth, predicted
        Names of types, of shape (cells,).
    """
    from sklearn.metrics import adjusted_rand_score

    figures = figures_of(count(truth, predicted))
    per_type = {}
    for name in figures.f1:
        per_type[name] = {
            "precision": figures.precision[name],
            "recall": figures.recall[name],
            "f1": figures.f1[name],
            "support": float(figures.support[name]),
        }
    return {
        "accuracy": figures.accuracy,
        "macro_f1": figures.macro_f1,
        "ari": float(adjusted_rand_score(truth, predicted)),
        "per_type": per_type,
    }


def as_table(counts: Mapping[str, Mapping[str, int]]) -> tuple[list[str], list[str], np.ndarray]:
    """Return given types, predicted types and the counts as an array (given, predicted); the given types come first."""
    rows = sorted(counts)
    columns = rows + sorted({answer for answers in counts.values() for answer in answers} - set(rows))
    table = np.array([[counts[r].get(c, 0) for c in columns] for r in rows], dtype=np.int64)
    return rows, columns, table.reshape(len(rows), len(columns))


@dataclass(frozen=True, kw_only=True)
class Continual:
    """Figures of the last model of a table; NaN where nothing was measured.

    Attributes
    ----------
    average
        Mean over the sets it was tested on.
    forgetting
        Mean over earlier sets of the best any earlier model reached less what it reaches (Chaudhry et al. 2018);
        below zero where it is better than all before.
    backward_transfer
        Mean over earlier sets of what it reaches less what the model of the set's own stage reached
        (Lopez-Paz and Ranzato 2017).
    """

    average: float
    forgetting: float
    backward_transfer: float

    def to_dict(self) -> dict[str, float | None]:
        """Return plain values for JSON, which has no NaN."""
        return {k: None if np.isnan(v) else v for k, v in asdict(self).items()}


def continual(table: np.ndarray, born: Sequence[int]) -> Continual:
    """Return the figures of the last model, from a table (models, sets) and the row of each set's own model."""
    return Continual(
        average=average(table), forgetting=forgetting(table, born), backward_transfer=backward_transfer(table, born)
    )


def average(table: np.ndarray) -> float:
    """Return the mean of the last row over what was measured."""
    return _mean(table[-1]) if len(table) else float("nan")


def forgetting(table: np.ndarray, born: Sequence[int]) -> float:
    """Return the mean loss of the last model against the best earlier one, over earlier sets."""
    return _mean(lost(table, born))


def lost(table: np.ndarray, born: Sequence[int]) -> np.ndarray:
    """Return for each set (sets,) the best earlier figure less the last one; NaN for the last model's own set."""
    result = np.full(table.shape[1], np.nan)
    last = len(table) - 1
    for j, first in enumerate(born):
        earlier = table[first:last, j]
        earlier = earlier[~np.isnan(earlier)]
        if len(earlier):
            result[j] = earlier.max() - table[last, j]
    return result


def backward_transfer(table: np.ndarray, born: Sequence[int]) -> float:
    """Return the mean gain of the last model against the model of each earlier set's own stage."""
    last = len(table) - 1
    gains = [table[last, j] - table[first, j] for j, first in enumerate(born) if first < last]
    return _mean(np.array(gains))


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


@dataclass(frozen=True, kw_only=True)
class NoveltyFigures:
    """Figures of one detection.

    Attributes
    ----------
    auroc, aupr
        Area under the receiver operating and the precision-recall curve, novel cells being the positives; not a
        number where one kind of cell is absent.
    fpr95
        Share of known cells above the threshold that finds 95 % of the novel ones.
    known_accuracy
        Share of known cells that are not called novel *and* rightly typed.
    novel_recall
        Share of novel cells that are called novel.
    h_score
        Harmonic mean of the two.
    false_alarms
        Share of known cells that are called novel.
    """

    auroc: float
    aupr: float
    fpr95: float
    known_accuracy: float
    novel_recall: float
    h_score: float
    false_alarms: float

    def to_dict(self) -> dict[str, float]:
        """Return plain values for JSON."""
        return asdict(self)


def novelty_figures(novelty: np.ndarray, called: np.ndarray, right: np.ndarray, novel: np.ndarray) -> NoveltyFigures:
    """Return all figures of one detection.

    Parameters
    ----------
    novelty
        Score, higher for newer.
    called
        Cells that are called novel.
    right
        Cells whose known type is right; of no account for novel cells.
    novel
        Cells that truly are of no known type.
    """
    known = ~novel
    accuracy, recall = share(right & ~called, known), share(called, novel)
    return NoveltyFigures(
        auroc=auroc(novelty, novel),
        aupr=aupr(novelty, novel),
        fpr95=fpr_at_recall(novelty, novel, 0.95),
        known_accuracy=accuracy,
        novel_recall=recall,
        h_score=harmonic_mean(accuracy, recall),
        false_alarms=share(called, known),
    )


def auroc(novelty: np.ndarray, novel: np.ndarray) -> float:
    """Return the chance that a novel cell scores above a known one, ties counted half."""
    if not novel.any() or novel.all():
        return float("nan")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(novel, novelty))


def aupr(novelty: np.ndarray, novel: np.ndarray) -> float:
    """Return the average precision: precision at each threshold, weighted by the recall it adds."""
    if not novel.any() or novel.all():
        return float("nan")
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(novel, novelty))


def fpr_at_recall(novelty: np.ndarray, novel: np.ndarray, recall: float) -> float:
    """Return the share of known cells above the highest threshold that finds this share of the novel ones."""
    if not novel.any() or novel.all():
        return float("nan")
    from sklearn.metrics import roc_curve

    alarms, found, _ = roc_curve(novel, novelty, drop_intermediate=False)
    return float(alarms[np.argmax(found >= recall)])


def harmonic_mean(a: float, b: float) -> float:
    """Return the harmonic mean of two shares; 0 where one is 0."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def share(hits: np.ndarray, among: np.ndarray) -> float:
    """Return the share of hits among some cells; not a number where there are none."""
    return float(hits[among].mean()) if among.any() else float("nan")
