"""How often a training cell comes up in an epoch. Only training cells are ever drawn more than once."""

import numpy as np
import torch
from torch import Tensor

VERY_UNEVEN = 100  # times as many cells of the largest type as of the smallest


class Sampling:
    """The rows of an epoch.

    Parameters
    ----------
    kind
        ``each``: every cell once. ``oversample``: every cell once and, of each type, cells drawn again until it has as
        many as the largest (TransAnno-Net). ``weighted``: as many cells as there are, drawn with replacement, every
        type as likely as another, or by the root of its size where one is over 100 times another (scAnnoNet).
    types
        Index of the type of each training cell, int (cells,).
    """

    def __init__(self, kind: str, types: np.ndarray) -> None:
        self.kind = kind
        self._rows = [torch.from_numpy(np.flatnonzero(types == t)) for t in np.unique(types)]
        self._n = len(types)
        self._weights = torch.from_numpy(cell_weights(types)) if kind == "weighted" else None

    @property
    def epoch_size(self) -> int:
        """Cells of an epoch."""
        if self.kind == "oversample" and self._n:
            return len(self._rows) * max(len(rows) for rows in self._rows)
        return self._n

    def order(self, draw: torch.Generator) -> Tensor:
        """Return the rows of one epoch in random order, int64 (epoch size,)."""
        if self._weights is not None:
            return torch.multinomial(self._weights, self._n, replacement=True, generator=draw)
        if self.kind == "oversample" and self._n:
            most = max(len(rows) for rows in self._rows)
            every = torch.cat([self._filled(rows, most, draw) for rows in self._rows])
            return every[torch.randperm(len(every), generator=draw)]
        return torch.randperm(self._n, generator=draw)

    @staticmethod
    def _filled(rows: Tensor, most: int, draw: torch.Generator) -> Tensor:
        again = torch.randint(len(rows), (most - len(rows),), generator=draw)
        return torch.cat([rows, rows[again]])


def cell_weights(types: np.ndarray) -> np.ndarray:
    """Return how likely each cell is drawn, float64 (cells,): 1 / n, or n^-1/2 where sizes differ very much."""
    _, at, counts = np.unique(types, return_inverse=True, return_counts=True)
    power = 0.5 if len(counts) and counts.max() / counts.min() > VERY_UNEVEN else 1.0
    return np.asarray(counts[at] ** -power, dtype=np.float64)
