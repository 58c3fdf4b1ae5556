"""Cells on the gene panel of a network.

Shapes: N cells, B cells of a batch, G genes of the panel, S sources (files).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PanelCells:
    """Cells on the gene panel.

    Attributes
    ----------
    values
        CSR float32 (cells, genes), natural ``log1p`` of values per 10,000.
    measured
        Genes that each source measured, bool (sources, genes).
    source
        Source of each cell, int (cells,).
    """

    values: sp.csr_matrix
    measured: np.ndarray
    source: np.ndarray

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def take(self, rows: np.ndarray) -> "PanelCells":
        """Return these cells, in this order."""
        return PanelCells(values=self.values[rows], measured=self.measured, source=self.source[rows])

    def dense(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return values (B, G) float32 and measured (B, G) bool of some rows."""
        # Memory of torch's own: it lies as matrix products like it, so that their rounding does not depend on chance.
        values = torch.empty(len(rows), self.values.shape[1])
        self.values[rows].toarray(out=values.numpy())
        return values, torch.from_numpy(self.measured[self.source[rows]])

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield the rows in blocks, in order."""
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)))


def joined(first: PanelCells, second: PanelCells) -> PanelCells:
    """Return the cells of both, those of ``second`` last."""
    return PanelCells(
        values=sp.vstack([first.values, second.values], format="csr"),
        measured=np.vstack([first.measured, second.measured]),
        source=np.concatenate([first.source, second.source + len(first.measured)]),
    )
