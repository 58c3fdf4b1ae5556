"""What an annotation says of novelty where a threshold of the probability judges."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from canal.detect.probability import check_threshold, probability_verdicts
from canal.learn.reader import GeneSetReader, Prediction
from canal.stages.answers import Answers


@dataclass
class ProbabilityColumns:
    """Collects the highest probability of each cell, over all types of the model.

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

    def add(self, found: Prediction) -> None:
        """Look at the next cells."""
        self._highest.append(found.probabilities.max(axis=1))

    def columns(self, answers: Answers, best_known: np.ndarray) -> Mapping[str, np.ndarray]:  # noqa: ARG002
        """Return the columns by name, each (cells,); there is no p-value."""
        found = probability_verdicts(np.concatenate(self._highest), self.threshold)
        return {"best_known": best_known, "status": found.status, "novelty": found.novelty}

    def facts(self) -> dict[str, Any]:
        """Return the threshold; the rule knows no rate of false alarms."""
        return {"alpha": None, "min_probability": self.threshold}


def probability_columns(reader: GeneSetReader, threshold: float) -> ProbabilityColumns:
    """Return what judges by a threshold.

    Raises
    ------
    StageError
        If the threshold is not above 0 and at most 1.
    """
    check_threshold(threshold)
    return ProbabilityColumns(reader, threshold)
