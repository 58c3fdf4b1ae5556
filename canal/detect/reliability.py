"""Whether a confidence of 0.9 is right nine times in ten.

Arrays are of shape (cells,): ``confidence`` between 0 and 1, ``right`` whether the answer was.
"""

from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ReliabilityBins:
    """Confidence and accuracy in equal intervals of confidence; the picture's bars.

    Attributes
    ----------
    edges
        Bounds of the bins, one more than there are bins.
    cells
        Cells in each bin.
    confidence, accuracy
        Mean confidence and share of right answers; 0 where a bin is empty.
    """

    edges: tuple[float, ...]
    cells: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]

    def to_dict(self) -> dict[str, list[float]]:
        """Return plain values for JSON."""
        return {name: list(values) for name, values in asdict(self).items()}


def reliability_bins(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> ReliabilityBins:
    """Sort the cells into bins of confidence.

    Parameters
    ----------
    bins
        Number of equal intervals of [0, 1].
    """
    assert confidence.shape == right.shape, (confidence.shape, right.shape)
    place = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    cells = np.bincount(place, minlength=bins)
    filled = np.maximum(cells, 1)
    return ReliabilityBins(
        edges=tuple(np.linspace(0.0, 1.0, bins + 1).tolist()),
        cells=tuple(cells.tolist()),
        confidence=tuple((np.bincount(place, weights=confidence, minlength=bins) / filled).tolist()),
        accuracy=tuple((np.bincount(place, weights=right.astype(float), minlength=bins) / filled).tolist()),
    )


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Return the mean gap between confidence and accuracy over the bins, weighted by their cells; 0 without cells."""
    if not len(confidence):
        return 0.0
    found = reliability_bins(confidence, right, bins)
    gaps = np.abs(np.array(found.confidence) - np.array(found.accuracy))
    return float(np.average(gaps, weights=found.cells))
