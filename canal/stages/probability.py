"""When an annotation judges novelty by a threshold of the probability, and what it says then."""

from collections.abc import Mapping

import numpy as np

from canal.config import Preset
from canal.detect.probability import check_threshold, probability_verdicts
from canal.errors import StageError


def threshold_of(preset: Preset, alpha: float | None, neighbors: int, asked: float | None) -> float | None:
    """Return the threshold to judge by, or ``None`` where the analytic memory judges.

    Parameters
    ----------
    preset
        Of the stage; its ``novelty.detector`` says which detector judges where nobody asks for another.
    alpha, neighbors
        Asked of the memory's detector.
    asked
        The threshold that was asked for.

    Raises
    ------
    StageError
        If both detectors are asked for, or the threshold is none.
    """
    if asked is None:
        by_default = preset.novelty.detector == "probability" and alpha is None and not neighbors
        return preset.novelty.min_probability if by_default else None
    check_threshold(asked)
    if alpha is not None or neighbors:
        message = "--min-probability judges by the probability alone. Leave out --alpha and --neighbors, or it."
        raise StageError(message)
    return asked


def probability_columns(
    probabilities: np.ndarray, best_known: np.ndarray, threshold: float
) -> Mapping[str, np.ndarray]:
    """Return the columns of an annotation by name, each (cells,); there is no p-value."""
    found = probability_verdicts(probabilities, threshold)
    return {"best_known": best_known, "status": found.status, "novelty": found.novelty}
