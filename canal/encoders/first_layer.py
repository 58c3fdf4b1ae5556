"""The first layer of a block of cells, where most tokens are those of the other cells.

Before the first layer a token is its gene and its bin, nothing else: where two cells have the same bin in the same
gene they have the same queries, keys, values and features. What most cells of the block have (the *common* tokens:
bin 0, or the mask where the file did not measure the gene) is computed once; a cell then adds what its other tokens
contribute to the context and takes away what the common ones would have. Exact up to rounding.

Shapes: B cells, T tokens, E token size, H heads, d size of a head, M features, K tokens of a cell that differ.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from canal.encoders.attention import EPS, eps_of_queries, read, weighted
from canal.encoders.layers import Layer

MOST = 0.4  # share of tokens that differ above which a cell is computed on its own


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Some tokens' features of keys and queries, weighted values, values and the eps of each query."""

    keys: Tensor
    values: Tensor
    plain: Tensor
    queries: Tensor
    eps: Tensor

    @classmethod
    def of(cls, layer: Layer, x_TE: Tensor) -> "_Part":
        assert layer.projection is not None
        q, k, v = layer.qkv(x_TE)
        projection = layer.projection.expand(len(q), -1, -1)
        queries = torch.bmm(q, projection).exp_()
        return cls(
            keys=torch.bmm(k, projection).exp_(),
            values=weighted(k, v),
            plain=v,
            queries=queries,
            eps=eps_of_queries(queries, q),
        )


class FirstLayer:
    """Attention of the first layer given common tokens.

    Parameters
    ----------
    layer
        The first layer, with FAVOR+ attention.
    common_TE
        The common tokens, (tokens, E).
    """

    def __init__(self, layer: Layer, common_TE: Tensor) -> None:
        self.layer = layer
        self.common = common = _Part.of(layer, common_TE)
        self.context = torch.bmm(common.keys.transpose(1, 2), common.values).float()
        self.total = common.plain.sum(1, dtype=torch.float32)
        self.top = common.keys.amax(-1).float()

    def __call__(self, x_TE: Tensor, differs_K: Tensor) -> Tensor:
        """Return the first layer's tokens of a cell whose tokens ``differs_K`` are not the common ones."""
        if not 0 < len(differs_K) <= MOST * len(x_TE):
            return self.layer(x_TE)
        common = self.common
        own = _Part.of(self.layer, x_TE[differs_K])
        context = self._context(own, differs_K)
        attended = read(common.queries, common.eps, context)
        attended[:, differs_K] = read(own.queries, own.eps, context)
        return self.layer.after(x_TE, attended)

    def _context(self, own: _Part, differs_K: Tensor) -> Tensor:
        common = self.common
        sums = self.context + torch.bmm(own.keys.transpose(1, 2), own.values).float()
        sums -= torch.bmm(common.keys[:, differs_K].transpose(1, 2), common.values[:, differs_K]).float()
        total = self.total + (own.plain.float() - common.plain[:, differs_K].float()).sum(1)
        top = self.top.index_fill(1, differs_K, 0.0).amax(1)
        top = torch.maximum(top, own.keys.amax((1, 2)).float())
        ones = torch.full((len(total), 1), float(self.top.shape[1]))
        return sums / top[:, None, None] + EPS * torch.cat([total, ones], dim=1)[:, None]
