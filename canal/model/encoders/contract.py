"""The one contract of every encoder.

Shapes: B cells, G genes of the panel, D size of the representation.

Dropout for a batch that is shared out: its rows get what they would get in the whole batch.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Encoder(nn.Module, ABC):
    """Cells on the gene panel in, their representation out.

    An encoder grows with the gene panel: ``grow`` adds genes and keeps every old weight.
    """

    n_genes: int
    dim: int
    block: int  # cells that fit in memory at a time
    product_dtype: torch.dtype = torch.float32  # of the large matrix products on a CPU, where an encoder has a choice
    frozen_layers: int = 0  # layers from the first that are never trained; see `frozen_outputs`

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
        """Return what the frozen layers make of a batch, (cells, ...): it may be kept for a whole stage."""
        raise NotImplementedError

    def from_frozen(self, frozen_outputs: Tensor, measured_BG: Tensor) -> Tensor:
        """Return the representation from what the frozen layers made."""
        raise NotImplementedError

    @abstractmethod
    def _encode(self, values_BG: Tensor, measured_BG: Tensor) -> Tensor: ...

    @abstractmethod
    def grow(self, n_genes: int) -> None:
        """Make room for a panel of ``n_genes`` genes; the first ones are the old ones."""


def grown_linear(layer: nn.Linear, in_features: int, *, at: int | None = None) -> nn.Linear:
    """Return a linear layer with more inputs, the old weights kept and the new ones zero.

    Parameters
    ----------
    layer
        The layer so far.
    in_features
        Number of inputs of the new layer.
    at
        Column before which the new inputs go; at the end by default.
    """
    new = nn.Linear(in_features, layer.out_features, bias=layer.bias is not None)
    split = layer.in_features if at is None else at
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
    """Dropout; where ``rows`` is set, the input is rows ``start`` to ``stop`` of a batch of ``total``.

    Attributes
    ----------
    rows
        (start, stop, total), or ``None`` for a whole batch.
    """

    rows: tuple[int, int, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with elements dropped, as numbers drawn for the whole batch decide."""
        if self.rows is None or not self.training:
            return super().forward(x)
        start, stop, total = self.rows
        whole = x.new_ones(total, *x.shape[1:])
        return x * F.dropout(whole, self.p, training=True)[start:stop]
