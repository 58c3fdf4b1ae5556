"""How well cells of unknown types are told from cells of known types.

Novelty is high for cells that look new; ``novel`` says which cells truly are. All arrays are of shape (cells,).
"""

from dataclasses import asdict, dataclass

import numpy as np


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
    from scipy.stats import rankdata

    positives, negatives = int(novel.sum()), int((~novel).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(novelty)
    return float((ranks[novel].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def aupr(novelty: np.ndarray, novel: np.ndarray) -> float:
    """Return the average precision: precision at each threshold, weighted by the recall it adds."""
    if not novel.any() or novel.all():
        return float("nan")
    found, alarms = _curve(novelty, novel)
    precision, recall = found / (found + alarms), found / found[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def fpr_at_recall(novelty: np.ndarray, novel: np.ndarray, recall: float) -> float:
    """Return the share of known cells above the highest threshold that finds this share of the novel ones."""
    if not novel.any() or novel.all():
        return float("nan")
    found, alarms = _curve(novelty, novel)
    first = int(np.argmax(found >= recall * found[-1]))
    return float(alarms[first] / alarms[-1])


def harmonic_mean(a: float, b: float) -> float:
    """Return the harmonic mean of two shares; 0 where one is 0."""
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def share(hits: np.ndarray, among: np.ndarray) -> float:
    """Return the share of hits among some cells; not a number where there are none."""
    return float(hits[among].mean()) if among.any() else float("nan")


def _curve(novelty: np.ndarray, novel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return novel cells found and known cells above each distinct threshold, from the highest down."""
    order = np.argsort(-novelty, kind="stable")
    last_of_value = np.flatnonzero(np.diff(novelty[order], append=np.nan) != 0)
    return np.cumsum(novel[order])[last_of_value], np.cumsum(~novel[order])[last_of_value]
