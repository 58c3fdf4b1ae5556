"""The Performer's layers for speed: the same weights, a cell at a time, products in bfloat16 where the CPU has them.

A cell's arrays fit the processor's caches, a batch's do not; so cells are spread over threads of one core each, which
wait for nobody, and no product is split. Residuals, normalisation and sums stay in float32.

Shapes: T tokens, E token size, H heads, d size of a head, M features.

The first layer of a block of cells, where most tokens are those of the other cells.

Before the first layer a token is its gene and its bin, nothing else: where two cells have the same bin in the same
gene they have the same queries, keys, values and features. What most cells of the block have (the *common* tokens:
bin 0, or the mask where the file did not measure the gene) is computed once; a cell then adds what its other tokens
contribute to the context and takes away what the common ones would have. Exact up to rounding.

Shapes: B cells, T tokens, E token size, H heads, d size of a head, M features, K tokens of a cell that differ.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from canal.model.encoders.attention import EPS, eps_of_queries, favor, read, softmax, weighted

HEADS_AT_ONCE = 5  # their features, 2.5 MB in bfloat16 at the published sizes, stay in the cache


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Weights of one layer as the fast path takes them; products' weights in its numbers, the rest in float32.

    Attributes
    ----------
    attention_norm, forward_norm
        Layer normalisation before attention and before the perceptron.
    to_qkv
        (3 H d, E).
    projection
        ``c P'`` of FAVOR+, (d, M), or ``None`` for exact attention.
    to_out, first, last
        Weight and bias after attention, into and out of the perceptron.
    heads
        H.
    """

    attention_norm: nn.LayerNorm
    forward_norm: nn.LayerNorm
    to_qkv: Tensor
    projection: Tensor | None
    to_out: tuple[Tensor, Tensor]
    first: tuple[Tensor, Tensor]
    last: tuple[Tensor, Tensor]
    heads: int

    @classmethod
    def of(cls, layer: Any, numbers: torch.dtype) -> "Layer":
        """Take the weights of a layer of performer-pytorch; gradients flow back to it."""
        (attention_norm, attention), (forward_norm, perceptron) = ((part.norm, part.fn) for part in layer)
        projection = getattr(attention.fast_attention, "projection_matrix", None)
        if projection is not None:
            projection = (projection.t() * projection.shape[1] ** -0.25).contiguous().to(numbers)

        def cast(linear: nn.Linear) -> tuple[Tensor, Tensor]:
            return linear.weight.to(numbers), linear.bias.to(numbers)

        return cls(
            attention_norm=attention_norm,
            forward_norm=forward_norm,
            to_qkv=torch.cat([x.weight for x in (attention.to_q, attention.to_k, attention.to_v)]).to(numbers),
            projection=projection,
            to_out=cast(attention.to_out),
            first=cast(perceptron.fn.w1),
            last=cast(perceptron.fn.w2),
            heads=attention.heads,
        )

    def qkv(self, x_TE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (heads, tokens, d)."""
        y_TE = self.attention_norm(x_TE).to(self.to_qkv.dtype)
        parts = F.linear(y_TE, self.to_qkv).view(len(x_TE), 3, self.heads, -1)
        q, k, v = parts.permute(1, 2, 0, 3)
        return q, k, v

    def attend(self, x_TE: Tensor) -> Tensor:
        """Return what attention gives before ``to_out``, (heads, tokens, d)."""
        q, k, v = self.qkv(x_TE)
        if self.projection is None:
            return softmax(q, k, v)
        heads = [slice(at, at + HEADS_AT_ONCE) for at in range(0, self.heads, HEADS_AT_ONCE)]
        return torch.cat([favor(q[part], k[part], v[part], self.projection) for part in heads])

    def after(self, x_TE: Tensor, attended_HTd: Tensor) -> Tensor:
        """Return the layer's tokens from what attention gave."""
        out = attended_HTd.transpose(0, 1).reshape(len(x_TE), -1)
        x_TE = x_TE + F.linear(out, *self.to_out)
        y_TE = self.forward_norm(x_TE).to(self.to_qkv.dtype)
        return x_TE + F.linear(F.gelu(F.linear(y_TE, *self.first)), *self.last)

    def __call__(self, x_TE: Tensor) -> Tensor:
        """Return the layer's tokens, float32 (tokens, E)."""
        return self.after(x_TE, self.attend(x_TE))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in the calling thread alone, so that what is rounded does not depend on the number of threads."""
    allowed = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(allowed)


def map_cells(function: Any, cells: list[Any]) -> list[Any]:
    """Apply a function to every cell, in as many threads of one core each as torch may use here."""
    threads = min(torch.get_num_threads(), len(cells))
    if threads <= 1 or torch.is_grad_enabled():
        return [function(cell) for cell in cells]
    allowed = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1)) as pool:
        done = list(pool.map(partial(_without_gradients, function), cells))
    torch.set_num_threads(allowed)  # what threads set is also what later threads begin with
    return done


@torch.no_grad()  # is a setting of each thread
def _without_gradients(function: Any, cell: Any) -> Any:
    return function(cell)


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
