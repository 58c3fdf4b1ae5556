"""Mini-batches from sparse cells, and what training does to them.

Shapes: N cells, B cells of a batch, G genes of the panel, S sources (files).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from canal.learn.sampling import Sampling

FEWEST_GENES = 20  # expressed genes that a cell keeps when it is shown through another file's genes


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


@dataclass(frozen=True, kw_only=True)
class Hiding:
    """How training hides genes, so that a cell is known through whatever genes a later file measures.

    Attributes
    ----------
    gene_dropout
        Least and most share of a cell's genes that are hidden; each cell draws its own between them.
    gene_set_masking
        Share of the cells that are shown through the genes of another source, drawn at random; a cell that would be
        left with fewer than `FEWEST_GENES` expressed genes is shown whole.
    """

    gene_dropout: tuple[float, float]
    gene_set_masking: float

    def apply(self, batch: PanelCells, rows: np.ndarray, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return values and measured of the rows, some genes hidden; a hidden gene counts as not measured."""
        values, measured = batch.dense(rows)
        if self.gene_set_masking > 0 and len(batch.measured) > 1:
            seen = measured & self._gene_sets(batch, len(rows), draw)
            enough = ((values != 0) & seen).sum(dim=1, keepdim=True) >= FEWEST_GENES
            measured = torch.where(enough, seen, measured)
        least, most = self.gene_dropout
        if most > 0:
            shares = least + (most - least) * torch.rand(len(rows), 1, generator=draw)
            measured = measured & (torch.rand(values.shape, generator=draw) >= shares)
        return values * measured, measured

    def _gene_sets(self, batch: PanelCells, n: int, draw: torch.Generator) -> Tensor:
        sets = torch.from_numpy(batch.measured)
        chosen = sets[torch.randint(len(sets), (n,), generator=draw)]
        masked = torch.rand(n, 1, generator=draw) < self.gene_set_masking
        return chosen | ~masked


class Batches:
    """Every cell once an epoch, in an order drawn anew for each epoch; or cells as ``sampling`` draws them.

    Yields tuples of values (B, G), measured (B, G), types (B,), weights (B,) and rows (B,) as CPU tensors. A last
    batch of one cell joins the one before it.

    Parameters
    ----------
    cells
        Cells on the panel.
    types, weights
        Index of the type and weight of each cell, (cells,).
    size
        Cells of a batch.
    hiding
        What training hides.
    draw
        Generator of the order and of what is hidden.
    sampling
        How often a cell comes up.
    """

    def __init__(
        self,
        cells: PanelCells,
        types: np.ndarray,
        weights: np.ndarray,
        size: int,
        hiding: Hiding,
        draw: torch.Generator,
        sampling: str = "each",
    ) -> None:
        self.cells, self.size = cells, size
        self.sampling = Sampling(sampling, types)
        self.types, self.weights = torch.from_numpy(types), torch.from_numpy(weights)
        self.hiding, self.draw = hiding, draw

    def __len__(self) -> int:
        return max(1, -(-(self.sampling.epoch_size - 1) // self.size))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        order = self.sampling.order(self.draw)
        for number in range(len(self)):
            last = number == len(self) - 1
            rows = order[number * self.size : None if last else (number + 1) * self.size]
            values, measured = self.hiding.apply(self.cells, rows.numpy(), self.draw)
            yield values, measured, self.types[rows], self.weights[rows], rows
