"""The contract of every encoder, and the layers that encoders share.

Shapes: B cells, G genes of the panel, D size of the representation.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Encoder(nn.Module, ABC):
    """Cells on the gene panel in, their representation out.

    An encoder grows with the gene panel: ``grow`` adds genes and keeps every old weight.

    Attributes
    ----------
    n_genes
        Genes of the panel.
    dim
        Size of the representation.
    block
        Cells that fit in memory at a time.
    product_dtype
        Numbers of the large matrix products on a CPU, where an encoder has a choice.
    frozen_layers
        How many layers, from the first, are never trained; see `frozen_outputs`.
    """

    n_genes: int
    dim: int
    block: int
    product_dtype: torch.dtype = torch.float32
    frozen_layers: int = 0

    def forward(self, values_BG: Tensor, measured_BG: Tensor) -> Tensor:
        """Return the representation of a batch.

        Parameters
        ----------
        values_BG
            Natural ``log1p`` of values scaled to 10,000 a cell, float of shape (cells, genes); 0 where not measured.
        measured_BG
            Whether the gene was measured, bool of shape (cells, genes).

        Returns
        -------
        Tensor of shape (cells, ``dim``).
        """
        assert values_BG.shape == measured_BG.shape, (values_BG.shape, measured_BG.shape)
        assert values_BG.shape[1] == self.n_genes, (values_BG.shape, self.n_genes)
        return self._encode(values_BG, measured_BG)

    def frozen_outputs(self, values_BG: Tensor, measured_BG: Tensor) -> Tensor:
        """Return the outputs of the frozen layers for a batch, (cells, ...); they may be kept for a whole stage."""
        raise NotImplementedError

    def from_frozen(self, frozen_outputs: Tensor, measured_BG: Tensor) -> Tensor:
        """Return the representation of a batch from the outputs of its frozen layers."""
        raise NotImplementedError

    @abstractmethod
    def _encode(self, values_BG: Tensor, measured_BG: Tensor) -> Tensor: ...

    @abstractmethod
    def grow(self, n_genes: int) -> None:
        """Make room for a panel of ``n_genes`` genes; the first ones are the old ones."""


def grown_linear(layer: nn.Linear, in_features: int, *, before: int | None = None) -> nn.Linear:
    """Return a linear layer with more inputs, the old weights kept and the new ones zero.

    Parameters
    ----------
    layer
        The layer so far.
    in_features
        Number of inputs of the new layer.
    before
        Column before which the new inputs go; at the end by default.
    """
    new = nn.Linear(in_features, layer.out_features, bias=layer.bias is not None)
    # Old inputs before the new ones, and behind them.
    split = layer.in_features if before is None else before
    tail = layer.in_features - split
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :split] = layer.weight[:, :split]
        if tail:
            new.weight[:, -tail:] = layer.weight[:, split:]
        if layer.bias is not None:
            new.bias.copy_(layer.bias)
    return new


class BatchDropout(nn.Dropout):
    """Dropout for a batch that processes share: its rows are dropped as they would be in the whole batch.

    Attributes
    ----------
    rows
        (start, stop, total): the input is rows ``start`` to ``stop`` of a batch of ``total``; ``None`` for a whole
        batch.
    """

    rows: tuple[int, int, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with elements dropped, by numbers that are drawn for the whole batch."""
        if self.rows is None or not self.training:
            return super().forward(x)
        start, stop, total = self.rows
        whole = x.new_ones(total, *x.shape[1:])
        return x * F.dropout(whole, self.p, training=True)[start:stop]
