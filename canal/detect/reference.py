"""The known cells that a cell is compared with, each with what it counts: p-values of novelties."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from canal.detect.calibration import SIMILARITY_POWER
from canal.errors import StageError


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Known cells to compare with, through one set of genes.

    Attributes
    ----------
    novelty
        Of each cell, ascending, (m,).
    above
        Weight of the cells from each position on, and 0 behind the last, (m + 1,).
    """

    novelty: np.ndarray
    above: np.ndarray

    @classmethod
    def of(cls, novelty: np.ndarray, weight: np.ndarray) -> "Reference":
        """Sort known cells.

        Parameters
        ----------
        novelty, weight
            Of each cell: its novelty, and what it counts beside the cell that is judged, which counts 1; (m,).

        Raises
        ------
        StageError
            If there is none.
        """
        if not len(novelty) or weight.sum() <= 0:
            message = (
                "The model has no novelty calibration: it was made by an older canal, or without held-out cells and "
                "example bank. Add the stage again, or annotate without novelty."
            )
            raise StageError(message)
        order = np.argsort(novelty, kind="stable")
        above = np.append(np.cumsum(weight[order][::-1])[::-1], 0.0)
        return cls(novelty=novelty[order], above=above)

    def p_values(self, novelty: np.ndarray) -> np.ndarray:
        """Return the weighted share of known cells that look at least as new, the cell itself counted in, (n,).

        A known cell exchangeable with the reference has a p-value of at most alpha with a chance of at most alpha.
        """
        beyond = self.above[np.searchsorted(self.novelty, novelty, side="left")]
        return np.asarray((beyond + 1.0) / (self.above[0] + 1.0))


def stage_weights(similarity: Mapping[int, float]) -> dict[int, float]:
    """Return how much each stage's known cells count for a file, 1 for the stage of the most similar genes.

    Parameters
    ----------
    similarity
        Of the file's genes and each stage's, from 0 to 1.
    """
    best = max(similarity.values(), default=0.0)
    if best <= 0:
        return dict.fromkeys(similarity, 1.0)
    return {stage: (value / best) ** SIMILARITY_POWER for stage, value in similarity.items()}


def natural_weights(stages: np.ndarray, types: np.ndarray, counts: Mapping[tuple[int, str], int]) -> np.ndarray:
    """Weigh the cells of an evenly filled bank so that types count by their cells in the stage, mean 1 in each stage.

    Parameters
    ----------
    stages, types
        Of each cell, (N,).
    counts
        Number of cells of each type of each stage; a type that is not counted weighs by its cells in the bank.
    """
    keys = list(zip(stages.tolist(), types.tolist(), strict=True))
    kept = Counter(keys)
    weight = np.array([counts.get(key, kept[key]) / kept[key] for key in keys], dtype=np.float64)
    for stage in np.unique(stages):
        weight[stages == stage] /= weight[stages == stage].mean()
    return weight
