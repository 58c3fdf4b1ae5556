"""Whether a confidence of 0.9 is right nine times in ten.

Arrays are of shape (cells,): ``confidence`` between 0 and 1, ``right`` whether the answer was.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from canal.errors import RegistryError

FORMAT = 1


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


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How well the confidence of a stage's model met its accuracy on cells held out at the stage.

    Attributes
    ----------
    cells
        Number of held-out cells.
    accuracy, confidence
        Share of right answers, and mean confidence.
    error
        Expected calibration error; see `expected_calibration_error`.
    temperature
        Of the model; see `canal.model.model.Fusion`.
    bins
        The bars of the picture.
    """

    cells: int
    accuracy: float
    confidence: float
    error: float
    temperature: float
    bins: ReliabilityBins

    @classmethod
    def of(cls, confidence: np.ndarray, right: np.ndarray, temperature: float) -> "Reliability":
        """Return the reliability of some answers; one cell at least."""
        assert len(confidence), "no cell was held out"
        return cls(
            cells=len(confidence),
            accuracy=float(right.mean()),
            confidence=float(confidence.mean(dtype=np.float64)),
            error=expected_calibration_error(confidence, right),
            temperature=temperature,
            bins=reliability_bins(confidence, right),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"format": FORMAT, **asdict(self), "bins": self.bins.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Reliability":
        """Return the reliability of `to_dict`'s values.

        Raises
        ------
        RegistryError
            If a newer canal wrote them.
        """
        if values["format"] > FORMAT:
            message = f"The reliability is of format {values['format']}, newer than {FORMAT}; update canal."
            raise RegistryError(message)
        bins = {name: tuple(values["bins"][name]) for name in ("edges", "cells", "confidence", "accuracy")}
        plain = {name: float(values[name]) for name in ("accuracy", "confidence", "error", "temperature")}
        return cls(cells=int(values["cells"]), bins=ReliabilityBins(**bins), **plain)


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
