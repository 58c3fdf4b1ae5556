"""Reliability of the confidence: whether a model that is 90 % sure is right nine times in ten.

Arrays are of shape (cells,): ``confidence`` between 0 and 1, ``right`` whether the predicted type was the given one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from canal.files import refuse_newer

FORMAT = 1
BINS = 10  # equal intervals of confidence


@dataclass(frozen=True, kw_only=True)
class ReliabilityBins:
    """Confidence and accuracy of the cells in equal intervals of confidence; the bars of the picture.

    Attributes
    ----------
    edges
        Bounds of the bins, one more than there are bins.
    cells
        Cells in each bin.
    confidence, accuracy
        Mean confidence and share of right predictions; 0 where a bin is empty.
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
    """How well the confidence of a stage's model matches its accuracy on cells held out at the stage.

    Attributes
    ----------
    cells
        Number of held-out cells.
    accuracy, confidence
        Share of right predictions, and mean confidence.
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
        """Return the reliability of predictions; one cell at least."""
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
        refuse_newer("The reliability", values["format"], FORMAT)
        bins = {name: tuple(values["bins"][name]) for name in ("edges", "cells", "confidence", "accuracy")}
        plain = {name: float(values[name]) for name in ("accuracy", "confidence", "error", "temperature")}
        return cls(cells=int(values["cells"]), bins=ReliabilityBins(**bins), **plain)


def reliability_bins(confidence: np.ndarray, right: np.ndarray) -> ReliabilityBins:
    """Return mean confidence and accuracy of the cells in each of `BINS` intervals of [0, 1]."""
    assert confidence.shape == right.shape, (confidence.shape, right.shape)
    place = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
    cells = np.bincount(place, minlength=BINS)
    divisor = np.maximum(cells, 1)  # the means of an empty bin are 0
    return ReliabilityBins(
        edges=tuple(np.linspace(0.0, 1.0, BINS + 1).tolist()),
        cells=tuple(cells.tolist()),
        confidence=tuple((np.bincount(place, weights=confidence, minlength=BINS) / divisor).tolist()),
        accuracy=tuple((np.bincount(place, weights=right.astype(float), minlength=BINS) / divisor).tolist()),
    )


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the mean gap between confidence and accuracy over the bins, weighted by their cells; 0 without cells."""
    if not len(confidence):
        return 0.0
    bins = reliability_bins(confidence, right)
    gaps = np.abs(np.array(bins.confidence) - np.array(bins.accuracy))
    return float(np.average(gaps, weights=bins.cells))
