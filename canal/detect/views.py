"""What goes into the novelty detector beside statistics, and what comes out of it.

Shapes: n cells, S genes that a file measures, N cells of the bank.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True, kw_only=True)
class BankView:
    """The example bank as seen through the genes of a file.

    Attributes
    ----------
    values
        Unit profiles over the measured genes, (N, S).
    types, stages
        Name of the type and number of the stage of each cell, (N,).
    """

    values: sp.csr_matrix
    types: np.ndarray
    stages: np.ndarray

    def __post_init__(self) -> None:
        n = self.values.shape[0]
        assert self.types.shape == self.stages.shape == (n,), (self.types.shape, self.stages.shape, n)


@dataclass(frozen=True, kw_only=True)
class NoveltyScores:
    """What the detector says of some cells; each entry depends on its own cell alone.

    Attributes
    ----------
    novelty
        Higher for newer; about 0 for the typical known cell, float32 (n,).
    p_value
        Share of known cells that look at least as new, float32 (n,).
    """

    novelty: np.ndarray
    p_value: np.ndarray
