"""Figures of an annotation against given labels."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well known labels are met.

    Attributes
    ----------
    stage
        Stage whose model annotated.
    cells
        Cells with a label.
    accuracy, macro_f1, ari
        Share of right cells; mean F1 over the types present in the data; adjusted Rand index.
    per_type
        Precision, recall, F1 and support of each type present.
    unknown_types
        Types of the data that the model does not know; their cells count as wrong.
    novelty
        Figures of the detection of novel types, where some were named.
    """

    stage: int
    cells: int
    accuracy: float
    macro_f1: float
    ari: float
    per_type: dict[str, dict[str, float]]
    unknown_types: tuple[str, ...] = ()
    novelty: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def score(truth: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Return accuracy, macro-F1 over the types present in ``truth``, ARI and figures per type.

    Parameters
    ----------
    truth, predicted
        Names of types, of shape (cells,).
    """
    from sklearn.metrics import accuracy_score, adjusted_rand_score, precision_recall_fscore_support

    present = sorted(set(truth.tolist()))
    table = precision_recall_fscore_support(truth, predicted, labels=present, zero_division=0)
    names = ("precision", "recall", "f1", "support")
    per_type = {
        name: {k: float(column[i]) for k, column in zip(names, table, strict=True)} for i, name in enumerate(present)
    }
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "macro_f1": float(np.mean(table[2])),
        "ari": float(adjusted_rand_score(truth, predicted)),
        "per_type": per_type,
    }
