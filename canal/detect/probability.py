"""Novel by a threshold of the highest probability (scBERT calls such cells "Unassigned"; its threshold is 0.5).

The simplest detector: it needs nothing but the model's answer, and knows no rate of false alarms.

Shapes: n cells.
"""

from dataclasses import dataclass

import numpy as np

from canal.errors import StageError

PUBLISHED = 0.5


@dataclass(frozen=True, kw_only=True)
class ProbabilityVerdicts:
    """What the threshold says of cells: novelty 1 - p, float32 (n,), and ``"known"`` or ``"novel"``, (n,)."""

    novelty: np.ndarray
    status: np.ndarray


def probability_verdicts(highest: np.ndarray, threshold: float) -> ProbabilityVerdicts:
    """Call a cell novel whose highest probability is below the threshold.

    Parameters
    ----------
    highest
        Highest probability of any known type, (n,).
    threshold
        Between 0 and 1.
    """
    status = np.where(highest < threshold, "novel", "known").astype(object)
    return ProbabilityVerdicts(novelty=(1.0 - highest).astype(np.float32), status=status)


def check_threshold(threshold: float) -> None:
    """Refuse what is no probability to compare with.

    Raises
    ------
    StageError
        If the threshold is not above 0 and at most 1.
    """
    if not 0.0 < threshold <= 1.0:
        message = (
            f"--min-probability is {threshold:g}; expected a number above 0 and at most 1. scBERT takes {PUBLISHED}."
        )
        raise StageError(message)
