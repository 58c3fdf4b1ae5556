"""Attention of one cell: FAVOR+ in few passes, and exact softmax.

FAVOR+ (Choromanski et al., Rethinking Attention with Performers, ICLR 2021) as performer-pytorch computes it, with
``c = d^-1/4``, the projection ``P`` (features, d) and ``eps = 1e-4``::

    u = c x P'      h = |c x|^2 / 2      phi(x) = exp(u - h - max u) + eps
    out = phi(q) (phi(k)' v) / (phi(q) sum phi(k))

where the maximum of a query is over its features and that of the keys over tokens and features. That takes a dozen
passes over arrays of (tokens, features). Here it is the same sum in four: a product, ``exp`` in place, a maximum, a
product. What is constant in a row stays out of the features: ``exp(-h)`` of a key goes to its value, what a query's
numerator and denominator share cancels, and ``eps`` comes in as a sum over the context.

Nothing is subtracted before ``exp``, so features of very long queries or keys would overflow. Training makes them long:

- beside features of e^67, which are finite, ``eps`` in their units is not. What such a query reads is divided by its
  largest feature instead (`eps_of_queries`)
- a head with a feature of more than `LARGEST` is too large: it is computed with the maxima taken away first; so is one
  with a token whose features are all but 0, as there are where features are few

Shapes: H heads, T tokens, d size of a head, M features.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-4  # of performer-pytorch's softmax kernel
# A feature, or eps in units of a query, times the sum over a context of millions is still far from where float32 ends.
LARGEST = 1e30
LONGEST_QUERY = math.log(LARGEST / EPS)  # its half square: eps may be counted in units of e to that


def favor(q_HTd: Tensor, k_HTd: Tensor, v_HTd: Tensor, projection_dM: Tensor) -> Tensor:
    """Return FAVOR+ attention of the shape of ``q``, in its numbers; products in those, sums in float32.

    Parameters
    ----------
    q_HTd, k_HTd, v_HTd
        Queries, keys and values; any strides.
    projection_dM
        ``c P'``, contiguous.
    """
    keys = Features.of(k_HTd, projection_dM)
    context, constant = torch.bmm(keys.features.transpose(1, 2), weighted(keys.half_square, v_HTd)), eps_of_keys(v_HTd)
    context = context.float() / keys.top.amax(1)[:, None, None] + constant
    queries = Features.of(q_HTd, projection_dM, longest=LONGEST_QUERY)
    attended = read(queries.features, *eps_of_queries(queries), context)
    return with_large(attended, keys.large | queries.large, (q_HTd, k_HTd, v_HTd), projection_dM)


def with_large(
    attended_HTd: Tensor, large_H: Tensor, qkv_HTd: tuple[Tensor, Tensor, Tensor], projection_dM: Tensor
) -> Tensor:
    """Return attention in which the heads that are too large are computed with the maxima taken away, in float32."""
    if not bool(large_H.any()):
        return attended_HTd
    heads = torch.nonzero(large_H)[:, 0]
    q, k, v = (x_HTd[heads].float() for x_HTd in qkv_HTd)
    projection = projection_dM.float().expand(len(heads), -1, -1)
    u_HTM = torch.bmm(k, projection)
    features = (u_HTM - u_HTM.detach().amax((1, 2), keepdim=True)).exp()
    context = torch.bmm(features.transpose(1, 2), weighted(half_square(k), v)) + eps_of_keys(v)
    u_HTM = torch.bmm(q, projection)
    features = (u_HTM - u_HTM.detach().amax(-1, keepdim=True)).exp()
    # A query's exp(-h) stays with its features here: in their units eps could be of any size.
    sums = torch.bmm(features, context) * torch.exp(-half_square(q))[..., None] + EPS * context.sum(1, keepdim=True)
    return attended_HTd.index_copy(0, heads, (sums[..., :-1] / sums[..., -1:]).to(attended_HTd.dtype))


@dataclass(frozen=True, kw_only=True)
class Features:
    """What FAVOR+ computes of queries, or of keys.

    Attributes
    ----------
    features
        ``exp(u)``, (heads, tokens, M); ones in a head that is too large for it, or too small.
    top
        The largest of each token, float32 (heads, tokens).
    half_square
        ``|c x|^2 / 2`` of each token, float32 (heads, tokens).
    large
        Which heads these are, bool (heads,).
    """

    features: Tensor
    top: Tensor
    half_square: Tensor
    large: Tensor

    @classmethod
    def of(cls, x_HTd: Tensor, projection_dM: Tensor, longest: float = math.inf) -> "Features":
        """Return the features of queries or of keys; gradients of those of a head that is too large are zero.

        Parameters
        ----------
        x_HTd, projection_dM
            See `favor`.
        longest
            Half square above which a head is too large, whatever its features.
        """
        projection = projection_dM.expand(len(x_HTd), -1, -1)
        features, half = torch.bmm(x_HTd, projection).exp_(), half_square(x_HTd)
        top = features.detach().amax(-1).float()
        # Not (x <= y) is true of what is no number, too.
        large = ~((top.amax(1) <= LARGEST) & (top.amin(1) >= 1 / LARGEST) & (half.detach().amax(1) <= longest))
        if bool(large.any()):
            return replace(cls.of(x_HTd.masked_fill(large[:, None, None], 0.0), projection_dM), large=large)
        return cls(features=features, top=top, half_square=half, large=large)


def weighted(half_square_HT: Tensor, v_HTd: Tensor) -> Tensor:
    """Return values and a column of ones, times ``exp(-h)`` of their keys: (heads, tokens, d + 1)."""
    weight = torch.exp(-half_square_HT)[..., None].to(v_HTd.dtype)
    return torch.cat([v_HTd * weight, weight], dim=-1)


def eps_of_keys(v_HTd: Tensor) -> Tensor:
    """Return what ``eps`` adds to the context of every feature, float32 (heads, 1, d + 1)."""
    total = v_HTd.sum(1, keepdim=True, dtype=torch.float32)
    return EPS * F.pad(total, (0, 1), value=float(v_HTd.shape[1]))


def eps_of_queries(queries: Features) -> tuple[Tensor | None, Tensor]:
    """Return what to divide each query's sums by, and ``eps`` in units of the result, float32 (heads, tokens, 1).

    The first is ``None``, and the units are the query's features, unless ``eps`` is too large in them for float32.
    """
    top = queries.top[..., None]
    grown = torch.exp(queries.half_square)[..., None]
    eps = EPS * top * grown
    small = eps < LARGEST
    if bool(small.all()):
        return None, eps
    return torch.where(small, 1.0, top), torch.where(small, eps, EPS * grown)


def read(features_HTM: Tensor, divisor_HT1: Tensor | None, eps_HT1: Tensor, context_HMv: Tensor) -> Tensor:
    """Return what queries read from a context (heads, features, d + 1), in the numbers of the features."""
    sums = torch.bmm(features_HTM, context_HMv.to(features_HTM.dtype)).float()
    if divisor_HT1 is not None:
        sums = sums / divisor_HT1
    sums = torch.addcmul(sums, eps_HT1, context_HMv.sum(1, keepdim=True))
    return (sums[..., :-1] / sums[..., -1:]).to(features_HTM.dtype)


def softmax(q_HTd: Tensor, k_HTd: Tensor, v_HTd: Tensor) -> Tensor:
    """Return softmax(q k' / sqrt(d)) v, of the shape of ``q``."""
    return F.scaled_dot_product_attention(q_HTd[None], k_HTd[None], v_HTd[None])[0]


def half_square(x_HTd: Tensor) -> Tensor:
    """Return ``|c x|^2 / 2``, float32 (heads, tokens)."""
    scale = 0.5 * float(x_HTd.shape[-1]) ** -0.5
    half: Tensor = torch.linalg.vector_norm(x_HTd, dim=-1, dtype=torch.float32).square() * scale
    return half
