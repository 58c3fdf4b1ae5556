"""Cells for Avalanche's own strategies: their data sets hold row numbers, the cells stay in one place.

Avalanche's buffers and data sets copy and concatenate what they are given. Row numbers cost nothing, and a cell that is
replayed after the gene panel has grown is looked up on the panel of today, as the example bank's cells are.

Shapes: B cells, G genes of the panel today, C types so far, W types of the whole stream.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from canal.learn.batches import Hiding, PanelCells
from canal.learn.network import Network

ABSENT = -1000.0  # logit of a type that no stage has had yet, as Avalanche's own growing classifier has it


class RowCells:
    """The cells of all stages so far; a strategy sees those whose rows its data set or its buffer holds.

    Parameters
    ----------
    hiding
        What training hides of a cell.
    """

    def __init__(self, hiding: Hiding) -> None:
        self.hiding = hiding
        self.cells: PanelCells | None = None

    def __deepcopy__(self, _memo: dict[int, Any]) -> "RowCells":
        return self  # a strategy's copy of its model looks at the same cells

    def whole(self, rows: Tensor) -> Tensor:
        """Return cells (B, G) as they are; NaN where a gene was not measured."""
        assert self.cells is not None
        values, measured = self.cells.dense(rows.cpu().numpy())
        return values.masked_fill(~measured, torch.nan)

    def shown(self, rows: Tensor, draw: torch.Generator) -> Tensor:
        """Return cells (B, G) as training shows them; NaN where a gene is hidden or was not measured."""
        assert self.cells is not None
        at = rows.cpu().numpy()
        # A cell may be shown through the genes of the files in its batch; others the strategy does not have any more.
        sources, source = np.unique(self.cells.source[at], return_inverse=True)
        batch = PanelCells(values=self.cells.values[at], measured=self.cells.measured[sources], source=source)
        values, measured = self.hiding.apply(batch, np.arange(len(at)), draw)
        return values.masked_fill(~measured, torch.nan)


class RowNetwork(nn.Module):
    """A network as Avalanche's strategies call it: one input, one output of a width that never changes.

    Parameters
    ----------
    network
        Encoder and classifier; it grows by genes and types between stages.
    cells
        Where row numbers are looked up.
    width
        W, the outputs; types that are still to come score `ABSENT`.
    """

    def __init__(self, network: Network, cells: RowCells, width: int) -> None:
        super().__init__()
        self.network, self.cells, self.width = network, cells, width

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, W) of cells (B, G) or of row numbers (B,)."""
        logits = self.network(*self._inputs(x))[1]
        return nn.functional.pad(logits, (0, self.width - logits.shape[1]), value=ABSENT)

    def representation(self, x: Tensor) -> Tensor:
        """Return the representation (B, D) of cells (B, G) or of row numbers (B,)."""
        found: Tensor = self.network(*self._inputs(x))[0]
        return found

    def _inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        dense = x if x.is_floating_point() else self.cells.whole(x)
        # Genes enter at the end: a copy of the model from an earlier stage reads the first ones.
        dense = dense[:, : self.network.encoder.n_genes].to(next(self.network.parameters()).device)
        measured = ~dense.isnan()
        return dense.nan_to_num(0.0), measured


class Representations(nn.Module):
    """The representation half of a `RowNetwork`, as strategies want it that classify by themselves."""

    def __init__(self, network: RowNetwork) -> None:
        super().__init__()
        self.rows = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the representation (B, D)."""
        return self.rows.representation(x)
