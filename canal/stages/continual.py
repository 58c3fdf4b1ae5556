"""Figures of continual learning, from a table of what each model reaches on the cells of each stage.

A table has shape (models, sets), models in the order they were learned; NaN stands where a model was not tested on a
set. ``born[j]`` is the row of the model that was learned at the stage the cells of set j come from.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Continual:
    """Figures of the last model of a table; NaN where nothing was measured.

    Attributes
    ----------
    average
        Mean over the sets it was tested on.
    forgetting
        Mean over earlier sets of the best any earlier model reached less what it reaches (Chaudhry et al. 2018);
        below zero where it is better than all before.
    backward_transfer
        Mean over earlier sets of what it reaches less what the model of the set's own stage reached
        (Lopez-Paz and Ranzato 2017).
    """

    average: float
    forgetting: float
    backward_transfer: float

    def to_dict(self) -> dict[str, float | None]:
        """Return plain values for JSON, which has no NaN."""
        return {k: None if np.isnan(v) else v for k, v in asdict(self).items()}


def continual(table: np.ndarray, born: Sequence[int]) -> Continual:
    """Return the figures of the last model, from a table (models, sets) and the row of each set's own model."""
    return Continual(
        average=average(table), forgetting=forgetting(table, born), backward_transfer=backward_transfer(table, born)
    )


def average(table: np.ndarray) -> float:
    """Return the mean of the last row over what was measured."""
    return _mean(table[-1]) if len(table) else float("nan")


def forgetting(table: np.ndarray, born: Sequence[int]) -> float:
    """Return the mean loss of the last model against the best earlier one, over earlier sets."""
    return _mean(lost(table, born))


def lost(table: np.ndarray, born: Sequence[int]) -> np.ndarray:
    """Return for each set (sets,) the best earlier figure less the last one; NaN for the last model's own set."""
    result = np.full(table.shape[1], np.nan)
    last = len(table) - 1
    for j, first in enumerate(born):
        earlier = table[first:last, j]
        earlier = earlier[~np.isnan(earlier)]
        if len(earlier):
            result[j] = earlier.max() - table[last, j]
    return result


def backward_transfer(table: np.ndarray, born: Sequence[int]) -> float:
    """Return the mean gain of the last model against the model of each earlier set's own stage."""
    last = len(table) - 1
    gains = [table[last, j] - table[first, j] for j, first in enumerate(born) if first < last]
    return _mean(np.array(gains))


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
