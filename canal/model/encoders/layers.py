"""The Performer's layers, faster on a CPU: the same weights, one cell at a time, products in bfloat16 where possible.

The arrays of a cell fit into the processor's caches, those of a batch do not; so cells are spread over threads of one
core each, which never wait for one another, and no product is split. Residuals, normalisation and sums stay in float32.

`FirstLayer` saves most of the first layer of a block of cells. Before it a token is its gene and its bin, nothing else:
where two cells have the same bin in the same gene they have the same queries, keys, values and features. The tokens
that most cells of the block have (the *common* tokens: bin 0, or the mask where the file did not measure the gene) are
computed once; a cell then adds what its other tokens contribute to the context, and subtracts what the common ones in
their place did. Exact up to rounding.

Shapes: B cells, T tokens, E token size, H heads, d size of a head, M features, K tokens of a cell that differ.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from canal.model.encoders.attention import (
    EPS,
    LONGEST_QUERY,
    Features,
    eps_of_queries,
    favor,
    read,
    softmax,
    weighted,
    with_large,
)

HEADS_AT_ONCE = 5  # their features, 2.5 MB in bfloat16 at the published sizes, stay in the cache
SLICES = 8  # of a batch on a CPU, at most: what as many cores can share
FEWEST_SHARING = 3  # more cells than these share the first layer of their common tokens
# Training keeps about 40 KB a token and layer at the published sizes: 41 MB a cell of 1,001 tokens, 700 MB of 16,907.
MOST_TOKENS_KEPT = 4096
MOST_DIFFERING = 0.4  # share of tokens that differ, above which a cell's first layer is computed as a whole


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Weights of one layer; those of products in the numbers of the products, the rest in float32.

    Attributes
    ----------
    attention_norm, forward_norm
        Layer normalisation before attention and before the perceptron.
    to_qkv
        Weights of queries, keys and values, (3 H d, E).
    projection
        ``c P'`` of FAVOR+, (d, M), or ``None`` for exact attention.
    to_out, first, last
        Weight and bias after attention, into and out of the perceptron.
    heads
        Number of heads, H.
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
        """Return the weights of a layer of performer-pytorch; gradients flow back to it."""
        attention_part, forward_part = layer
        attention, perceptron = attention_part.fn, forward_part.fn
        # Exact attention has no projection.
        projection = getattr(attention.fast_attention, "projection_matrix", None)
        if projection is not None:
            projection = (projection.t() * projection.shape[1] ** -0.25).contiguous().to(numbers)

        def cast(linear: nn.Linear) -> tuple[Tensor, Tensor]:
            return linear.weight.to(numbers), linear.bias.to(numbers)

        to_qkv = torch.cat([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight])
        return cls(
            attention_norm=attention_part.norm,
            forward_norm=forward_part.norm,
            to_qkv=to_qkv.to(numbers),
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
        """Return the output of attention before ``to_out``, (heads, tokens, d)."""
        q, k, v = self.qkv(x_TE)
        if self.projection is None:
            return softmax(q, k, v)
        attended = []
        for start in range(0, self.heads, HEADS_AT_ONCE):
            heads = slice(start, start + HEADS_AT_ONCE)
            attended.append(favor(q[heads], k[heads], v[heads], self.projection))
        return torch.cat(attended)

    def after(self, x_TE: Tensor, attended_HTd: Tensor) -> Tensor:
        """Return the layer's tokens, (tokens, E), from its input and the output of `attend`."""
        out = attended_HTd.transpose(0, 1).reshape(len(x_TE), -1)
        x_TE = x_TE + F.linear(out, *self.to_out)
        y_TE = self.forward_norm(x_TE).to(self.to_qkv.dtype)
        return x_TE + F.linear(F.gelu(F.linear(y_TE, *self.first)), *self.last)

    def __call__(self, x_TE: Tensor) -> Tensor:
        """Return the layer's tokens, float32 (tokens, E)."""
        return self.after(x_TE, self.attend(x_TE))

    def of_rows(self, x_TE: Tensor, rows_K: Tensor) -> Tensor:
        """Return the layer's tokens in some rows, float32 (K, E): all tokens are keys, those rows alone are queries."""
        q, k, v = self.qkv(x_TE)
        q = q[:, rows_K]
        attended = softmax(q, k, v) if self.projection is None else favor(q, k, v, self.projection)
        return self.after(x_TE[rows_K], attended)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in the calling thread alone, so that rounding does not depend on the number of threads."""
    allowed = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(allowed)


def map_cells(function: Any, cells: list[Any]) -> list[Any]:
    """Apply a function to every cell without gradients, in as many threads as torch may use here."""
    return in_threads(partial(_without_gradients, function), cells)


class CellsApart(torch.autograd.Function):
    """Cells that go through layers one by one, forward and backward, each by one thread.

    The gradients of the weights are summed over slices of the cells, then over the slices, so that they do not depend
    on the number of threads.
    """

    @staticmethod
    def forward(ctx: Any, through: Callable[[Tensor], Tensor], x_BTE: Tensor, *weights: Tensor) -> Tensor:
        """Return the tokens of all cells after the layers.

        Parameters
        ----------
        through
            From the tokens of a cell (T, E) to those after the layers.
        x_BTE
            Tokens of the cells.
        weights
            What ``through`` uses that is to be trained.
        """
        cells = [x_TE.detach().requires_grad_(ctx.needs_input_grad[1]) for x_TE in x_BTE]
        outputs = in_threads(partial(_with_gradients, through), cells)
        ctx.weights, ctx.passed = weights, list(zip(cells, outputs, strict=True))
        return torch.stack([output.detach() for output in outputs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BTE: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the cells' tokens, where they are wanted, and of the weights."""
        cells_too, *wanted = ctx.needs_input_grad[1:]
        trained = [weight for weight, is_wanted in zip(ctx.weights, wanted, strict=True) if is_wanted]
        passed, ctx.passed = ctx.passed, None  # nothing is kept of the cells after this

        def back(turns: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            """Return the gradients of the weights, summed over a slice of the cells, and of each cell's tokens."""
            sums, of_cells = [torch.zeros_like(weight) for weight in trained], list[Tensor]()
            for turn in turns.tolist():
                cell, output = passed[turn]
                inputs = [*trained, cell] if cells_too else trained
                gradients = torch.autograd.grad(output, inputs, gradient_BTE[turn])
                for total, gradient in zip(sums, gradients, strict=False):
                    total.add_(gradient)
                of_cells += gradients[len(trained) :]
            return sums, of_cells

        slices = in_threads(back, list(torch.arange(len(passed)).chunk(SLICES)))
        totals = iter([torch.stack(parts).sum(0) for parts in zip(*(sums for sums, _ in slices), strict=True)])
        of_cells = torch.stack([part for _, parts in slices for part in parts]) if cells_too else None
        return None, of_cells, *(next(totals) if is_wanted else None for is_wanted in wanted)


def in_threads(function: Any, items: list[Any]) -> list[Any]:
    """Apply a function to every item, in as many threads of one core each as torch may use here; in their order."""
    threads = min(torch.get_num_threads(), len(items))
    if threads <= 1:
        return [function(item) for item in items]
    allowed = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1)) as pool:
        done = list(pool.map(function, items))
    torch.set_num_threads(allowed)  # what threads set is also what later threads begin with
    return done


@torch.no_grad()  # is a setting of each thread
def _without_gradients(function: Any, cell: Any) -> Any:
    return function(cell)


@torch.enable_grad()
def _with_gradients(function: Any, cell: Any) -> Any:
    return function(cell)


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    """What FAVOR+ computes of each of some tokens.

    Attributes
    ----------
    keys, queries
        Their features.
    weighted_values
        Values and a column of ones, weighted by their keys; see `weighted`.
    values
        The values themselves, (heads, tokens, d).
    divisor, eps
        Of each query; see `eps_of_queries`.
    """

    keys: Features
    queries: Features
    weighted_values: Tensor
    values: Tensor
    divisor: Tensor | None
    eps: Tensor

    @classmethod
    def of(cls, layer: Layer, x_TE: Tensor) -> "_Tokens":
        assert layer.projection is not None
        q, k, v = layer.qkv(x_TE)
        queries = Features.of(q, layer.projection, longest=LONGEST_QUERY)
        keys = Features.of(k, layer.projection)
        divisor, eps = eps_of_queries(queries)
        return cls(
            keys=keys,
            queries=queries,
            weighted_values=weighted(keys.half_square, v),
            values=v,
            divisor=divisor,
            eps=eps,
        )

    @property
    def large(self) -> Tensor:
        """Heads that are too large, bool (heads,)."""
        return self.keys.large | self.queries.large

    def read(self, context_HMv: Tensor) -> Tensor:
        """Return what the tokens' queries read from a context; see `canal.model.encoders.attention.read`."""
        return read(self.queries.features, self.divisor, self.eps, context_HMv)


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
        self.common = common = _Tokens.of(layer, common_TE)
        # Sums over the common tokens, and the largest feature of each key, (heads, tokens).
        self.context = torch.bmm(common.keys.features.transpose(1, 2), common.weighted_values).float()
        self.total = common.values.sum(1, dtype=torch.float32)
        self.top = common.keys.top

    def __call__(self, x_TE: Tensor, differs_K: Tensor) -> Tensor:
        """Return the first layer's tokens of a cell whose tokens ``differs_K`` are not the common ones."""
        if not 0 < len(differs_K) <= MOST_DIFFERING * len(x_TE):
            return self.layer(x_TE)
        # All tokens read from the cell's context: the common ones with the common queries, the others with their own.
        common = self.common
        own = _Tokens.of(self.layer, x_TE[differs_K])
        context = self._context(own, differs_K)
        attended = common.read(context)
        attended[:, differs_K] = own.read(context)
        # Heads that are too large share nothing.
        large = common.large | own.large
        if bool(large.any()):
            assert self.layer.projection is not None
            attended = with_large(attended, large, self.layer.qkv(x_TE), self.layer.projection)
        return self.layer.after(x_TE, attended)

    def _context(self, own: _Tokens, differs_K: Tensor) -> Tensor:
        """Return the context of a cell's tokens, float32 (heads, M, d + 1)."""
        common = self.common
        # The common tokens' sums, plus those of the cell's other tokens, less those of the ones that they replace.
        sums = self.context + torch.bmm(own.keys.features.transpose(1, 2), own.weighted_values).float()
        replaced = common.keys.features[:, differs_K].transpose(1, 2)
        sums -= torch.bmm(replaced, common.weighted_values[:, differs_K]).float()
        total = self.total + (own.values.float() - common.values[:, differs_K].float()).sum(1)
        # The largest feature of the cell's keys, in units of which eps counts.
        top = self.top.index_fill(1, differs_K, 0.0).amax(1)
        top = torch.maximum(top, own.keys.top.amax(1))
        ones = torch.full((len(total), 1), float(self.top.shape[1]))
        return sums / top[:, None, None] + EPS * torch.cat([total, ones], dim=1)[:, None]


@dataclass(frozen=True)
class EmbeddedCell:
    """The tokens (T, E) of a cell; the first layer of its block and the tokens that differ (K,), or ``None``."""

    x_TE: Tensor
    first: FirstLayer | None = None
    differs_K: Tensor | None = None


def sharing_cells(
    layer: Layer, x_BTE: Tensor, tokens_BT: Tensor, embedded: Callable[[Tensor], Tensor]
) -> list[EmbeddedCell]:
    """Return the cells of a block with what their first layer shares; alone where they are few, or it is exact.

    Parameters
    ----------
    layer
        The first layer.
    x_BTE, tokens_BT
        Embedded tokens, and the tokens.
    embedded
        Embeds the tokens of a cell, (T,).
    """
    if len(x_BTE) <= FEWEST_SHARING or layer.projection is None:
        return [EmbeddedCell(x_TE) for x_TE in x_BTE]
    # The most frequent token of each gene, and where each cell has another.
    common_T = tokens_BT.mode(dim=0).values
    first = FirstLayer(layer, embedded(common_T))
    cells = []
    for x_TE, tokens_T in zip(x_BTE, tokens_BT, strict=True):
        cells.append(EmbeddedCell(x_TE, first, torch.nonzero(tokens_T != common_T)[:, 0]))
    return cells


def through_layers(layers: list[Layer], cell: EmbeddedCell) -> Tensor:
    """Return the tokens of a cell after some layers, of which the first is that of its block."""
    x_TE, rest = cell.x_TE, layers
    if cell.first is not None and cell.differs_K is not None:
        x_TE, rest = cell.first(x_TE, cell.differs_K), layers[1:]
    # A long cell keeps each layer's input alone, and makes the rest again in the backward pass.
    again = torch.is_grad_enabled() and len(x_TE) > MOST_TOKENS_KEPT
    for layer in rest:
        x_TE = checkpoint(layer, x_TE, use_reentrant=False, preserve_rng_state=False) if again else layer(x_TE)
    return x_TE
