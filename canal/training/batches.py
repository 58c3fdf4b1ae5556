"""From the cells of a stage to mini-batches: held-out cells, the cells of an epoch, and the genes that are hidden.

Only training cells are ever drawn more than once in an epoch; held-out cells never are.

Shapes: N cells, B cells of a batch, G genes of the panel, S sources (files).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from canal.model.network import PanelCells

VERY_UNEVEN = 100  # times as many cells of the largest type as of the smallest: scAnnoNet's bound


class Sampling:
    """Which training cells make up an epoch.

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
        self._n = len(types)
        self._rows_of_types = [torch.from_numpy(np.flatnonzero(types == t)) for t in np.unique(types)]
        self._most = max(map(len, self._rows_of_types), default=0)
        self._weights = torch.from_numpy(cell_weights(types)) if kind == "weighted" else None

    @property
    def epoch_size(self) -> int:
        """Cells of an epoch."""
        if self.kind == "oversample" and self._n:
            return len(self._rows_of_types) * self._most
        return self._n

    def order(self, draw: torch.Generator) -> Tensor:
        """Return the rows of one epoch in random order, int64 (epoch size,)."""
        if self._weights is not None:
            return torch.multinomial(self._weights, self._n, replacement=True, generator=draw)
        if self.kind == "oversample" and self._n:
            # Every type gets as many cells as the largest: its own once, and some of them again.
            parts = []
            for rows in self._rows_of_types:
                again = torch.randint(len(rows), (self._most - len(rows),), generator=draw)
                parts += [rows, rows[again]]
            all_rows = torch.cat(parts)
            return all_rows[torch.randperm(len(all_rows), generator=draw)]
        return torch.randperm(self._n, generator=draw)


def cell_weights(types: np.ndarray) -> np.ndarray:
    """Return how likely each cell is drawn, float64 (cells,): 1 / n, or n^-1/2 where sizes differ very much."""
    _, type_of_cell, counts = np.unique(types, return_inverse=True, return_counts=True)
    power = 0.5 if len(counts) and counts.max() / counts.min() > VERY_UNEVEN else 1.0
    return np.asarray(counts[type_of_cell] ** -power, dtype=np.float64)


FEWEST_GENES = 20  # expressed genes that a cell keeps at least when it is shown through another file's genes


@dataclass(frozen=True, kw_only=True)
class Hiding:
    """How training hides genes, so that a cell is recognised through whatever genes a later file measures.

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
        # Through the genes of another file, where enough of the cell's own are among them.
        if self.gene_set_masking > 0 and len(batch.measured) > 1:
            seen = measured & self._gene_sets(batch, len(rows), draw)
            enough = ((values != 0) & seen).sum(dim=1, keepdim=True) >= FEWEST_GENES
            measured = torch.where(enough, seen, measured)
        # Without a share of its genes, drawn for each cell.
        least, most = self.gene_dropout
        if most > 0:
            shares = least + (most - least) * torch.rand(len(rows), 1, generator=draw)
            measured = measured & (torch.rand(values.shape, generator=draw) >= shares)
        return values * measured, measured

    def _gene_sets(self, batch: PanelCells, n: int, draw: torch.Generator) -> Tensor:
        """Return the genes that each of n cells is shown through, bool (n, G): a random source's, or all."""
        sets = torch.from_numpy(batch.measured)
        chosen = sets[torch.randint(len(sets), (n,), generator=draw)]
        masked = torch.rand(n, 1, generator=draw) < self.gene_set_masking
        return chosen | ~masked


class Batches:
    """The mini-batches of an epoch; each iteration is an epoch in an order of its own.

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
        How genes are hidden.
    draw
        Generator of the order and of what is hidden.
    sampling
        Kind of `Sampling`: which cells make up an epoch.
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
            # The last batch takes all that is left: one cell more at most.
            last = number == len(self) - 1
            rows = order[number * self.size : None if last else (number + 1) * self.size]
            values, measured = self.hiding.apply(self.cells, rows.numpy(), self.draw)
            yield values, measured, self.types[rows], self.weights[rows], rows
