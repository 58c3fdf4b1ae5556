"""Figures of merit, each defined once for the whole package.

Annotation
    Accuracy, precision, recall and F1 follow from confusion counts: given type -> predicted type -> cells.
Continual learning
    Average, forgetting and backward transfer follow from a table of shape (models, sets): what each model reaches on
    the test cells of each stage. Models stand in the order they were learned; NaN where a model was not tested on a
    set. ``own_model[j]`` is the row of the model that was learned at the stage whose cells set j holds.
Novel types
    How well cells of unknown types are told from cells of known types. ``novelty`` is high for cells that look new,
    ``novel`` says which cells truly are of no known type; all arrays are of shape (cells,).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Counts = dict[str, dict[str, int]]  # confusion counts: given type -> predicted type -> cells


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures that follow from confusion counts.

    Attributes
    ----------
    cells
        Number of cells.
    accuracy, macro_f1
        Share of rightly typed cells; mean F1 over the given types. Not a number without cells.
    precision, recall, f1
        By given type.
    support
        Number of cells of each given type.
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


def confusion_counts(given: np.ndarray, predicted: np.ndarray) -> Counts:
    """Count the cells of each pair of given and predicted type, both arrays of shape (cells,)."""
    pairs = Counter(zip(given.astype(str).tolist(), predicted.astype(str).tolist(), strict=True))
    counts: Counts = {}
    for (truth, answer), n in sorted(pairs.items()):
        counts.setdefault(truth, {})[answer] = n
    return counts


def summed_counts(tables: Iterable[Mapping[str, Mapping[str, int]]]) -> Counts:
    """Return the sum of several confusion counts, types in alphabetical order."""
    added: dict[str, Counter[str]] = {}
    for table in tables:
        for truth, answers in table.items():
            added.setdefault(truth, Counter()).update(answers)
    return {truth: dict(sorted(answers.items())) for truth, answers in sorted(added.items())}


def figures_of(counts: Mapping[str, Mapping[str, int]]) -> Figures:
    """Return accuracy, macro-F1 and figures per type; a type that was never given does not count in the mean."""
    # How often each type was predicted, over the cells of all given types.
    predicted_as: Counter[str] = Counter()
    for answers in counts.values():
        predicted_as.update(answers)
    precision, recall, f1, support = {}, {}, {}, {}
    right_in_all = 0
    for name, answers in counts.items():
        right, given, predicted = answers.get(name, 0), sum(answers.values()), predicted_as[name]
        # A type that was never predicted has no false positives either; its precision is 0 by convention.
        precision[name] = right / predicted if predicted else 0.0
        recall[name] = right / given
        f1[name] = 2 * right / (given + predicted)
        support[name] = given
        right_in_all += right
    # Nothing tested is not a figure of 0: it is not a number.
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

    figures = figures_of(confusion_counts(truth, predicted))
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


@dataclass(frozen=True, kw_only=True)
class ContinualFigures:
    """Figures of the last model of a table (models, sets); NaN where nothing was measured.

    Attributes
    ----------
    average
        Mean over the sets it was tested on.
    forgetting
        Mean over earlier sets of the best figure of any earlier model less that of the last one (Chaudhry et al.
        2018); below zero where the last model is better than all before.
    backward_transfer
        Mean over earlier sets of the figure of the last model less that of the set's own model (Lopez-Paz and Ranzato
        2017).
    """

    average: float
    forgetting: float
    backward_transfer: float

    def to_dict(self) -> dict[str, float | None]:
        """Return plain values for JSON, which has no NaN."""
        plain: dict[str, float | None] = {}
        for name, value in asdict(self).items():
            plain[name] = None if np.isnan(value) else value
        return plain


def continual(table: np.ndarray, own_model: Sequence[int]) -> ContinualFigures:
    """Return the figures of the last model, from a table (models, sets) and the row of each set's own model."""
    return ContinualFigures(
        average=average(table),
        forgetting=forgetting(table, own_model),
        backward_transfer=backward_transfer(table, own_model),
    )


def average(table: np.ndarray) -> float:
    """Return the mean of the last row over what was measured."""
    return _mean(table[-1]) if len(table) else float("nan")


def forgetting(table: np.ndarray, own_model: Sequence[int]) -> float:
    """Return the mean loss of the last model against the best earlier one, over earlier sets."""
    return _mean(forgetting_by_set(table, own_model))


def forgetting_by_set(table: np.ndarray, own_model: Sequence[int]) -> np.ndarray:
    """Return for each set (sets,) the best earlier figure less the last one; NaN for the last model's own set."""
    result = np.full(table.shape[1], np.nan)
    last = len(table) - 1
    for j, own in enumerate(own_model):
        # Models before the set's own one never saw its cells and cannot have forgotten them.
        earlier = table[own:last, j]
        earlier = earlier[~np.isnan(earlier)]
        if len(earlier):
            result[j] = earlier.max() - table[last, j]
    return result


def backward_transfer(table: np.ndarray, own_model: Sequence[int]) -> float:
    """Return the mean gain of the last model against the model of each earlier set's own stage."""
    last = len(table) - 1
    gains = []
    for j, own in enumerate(own_model):
        if own < last:
            gains.append(table[last, j] - table[own, j])
    return _mean(np.array(gains))


def _mean(values: np.ndarray) -> float:
    """Return the mean of what was measured; NaN where nothing was."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


@dataclass(frozen=True, kw_only=True)
class NoveltyFigures:
    """Figures of one detection of novel types.

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
        Whether a cell is called novel, bool.
    right
        Whether the predicted type is right, bool; of no account for novel cells.
    novel
        Whether a cell truly is of no known type, bool.
    """
    known = ~novel
    # As the paper counts: a known cell is right only if it is also not called novel.
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


# Among novel cells alone, or known cells alone, nothing can be told apart: these figures are not numbers then.


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

    false_positive_rate, true_positive_rate, _ = roc_curve(novel, novelty, drop_intermediate=False)
    return float(false_positive_rate[np.argmax(true_positive_rate >= recall)])


def harmonic_mean(a: float, b: float) -> float:
    """Return the harmonic mean of two shares; 0 where one is 0."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def share(hits: np.ndarray, among: np.ndarray) -> float:
    """Return the share of hits among some cells; not a number where there are none."""
    return float(hits[among].mean()) if among.any() else float("nan")
