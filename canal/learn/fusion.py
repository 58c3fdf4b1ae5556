"""How network and analytic memory are joined into one calibrated probability.

The network gives probabilities, the memory ridge scores near 1 for the type and near 0 elsewhere. Their weighted sum
decides; divided by a temperature and put through a softmax it is the confidence. The temperature is learned on cells
of the stage that neither was fitted to; it never changes which type is best.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How the two are joined.

    Attributes
    ----------
    memory
        Weight of the memory's scores beside the network's probabilities.
    temperature
        Of their sum, the geometric mean of what fits each stage: a stage of types that are easy to tell apart must
        not make the model sure of those that are not.
    stages
        Number of stages in the mean.
    """

    memory: float
    temperature: float
    stages: int = 1

    def evidence(self, logits: np.ndarray, scores: np.ndarray | None) -> np.ndarray:
        """Return the weighted sum (cells, types) that decides."""
        total = softmax(logits, axis=1)
        if scores is not None:
            total = total + self.memory * scores
        return np.asarray(total, dtype=np.float32)

    def join(self, logits: np.ndarray, scores: np.ndarray | None) -> np.ndarray:
        """Return calibrated probabilities (cells, types) from logits and scores, each (cells, types)."""
        probabilities = softmax(self.evidence(logits, scores) / self.temperature, axis=1)
        return np.asarray(probabilities, dtype=np.float32)

    def calibrated(self, logits: np.ndarray, scores: np.ndarray | None, types: np.ndarray) -> "Fusion":
        """Return the fusion with the temperature of highest likelihood on held-out cells.

        Parameters
        ----------
        logits, scores
            Of the held-out cells, each (cells, types).
        types
            Index of each cell's type, (cells,).
        """
        from scipy.optimize import minimize_scalar

        evidence, rows = self.evidence(logits, scores), np.arange(len(types))

        def loss(log_temperature: float) -> float:
            return -float(log_softmax(evidence / np.exp(log_temperature), axis=1)[rows, types].mean())

        found = minimize_scalar(loss, bounds=(np.log(0.02), np.log(2.0)), method="bounded")
        return Fusion(memory=self.memory, temperature=float(np.exp(found.x)))

    def averaged(self, before: "Fusion") -> "Fusion":
        """Return the fusion with the temperature averaged over the stages so far."""
        n = before.stages
        log_mean = (n * np.log(before.temperature) + np.log(self.temperature)) / (n + 1)
        return Fusion(memory=self.memory, temperature=float(np.exp(log_mean)), stages=n + 1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"format": 1, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fusion":
        """Return the fusion of `to_dict`'s values."""
        return cls(
            memory=float(values["memory"]),
            temperature=float(values["temperature"]),
            stages=int(values.get("stages", 1)),
        )
