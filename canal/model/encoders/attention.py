"""Attention of one cell: FAVOR+ in few passes, and exact softmax.

FAVOR+ (Choromanski et al., Rethinking Attention with Performers, ICLR 2021) as performer-pytorch computes it, with
``c = d^-1/4``, the projection ``P`` (features, d) and ``eps = 1e-4``::

    u = c x P'      h = |c x|^2 / 2      phi(x) = exp(u - h - max u) + eps
    out = phi(q) (phi(k)' v) / (phi(q) sum phi(k))

where the maximum of a query is over its features and that of the keys over tokens and features. That takes a dozen
passes over arrays of (tokens, features). Here it is the same sum in four: a product, ``exp`` in place, a maximum, a
product. What is constant in a row stays out of the features: ``exp(-h)`` of a key goes to its value, what a query's
numerator and denominator share cancels, and ``eps`` comes in as a sum over the context.

Nothing is subtracted before ``exp``, so features of very long queries or keys overflow; the result is then not finite
and the caller computes that cell the long way. Training makes queries long: beside features of e^67, which are finite,
``eps`` in their units is not. What such a query reads is divided by its largest feature instead (`eps_of_queries`).

Shapes: H heads, T tokens, d size of a head, M features.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-4  # of performer-pytorch's softmax kernel
LARGEST = 1e30  # eps, times the sum over a context of millions, is still far from where float32 ends


def favor(q_HTd: Tensor, k_HTd: Tensor, v_HTd: Tensor, projection_dM: Tensor) -> Tensor:
    """Return FAVOR+ attention of the shape of ``q``, in its numbers; products in those, sums in float32.

    Parameters
    ----------
    q_HTd, k_HTd, v_HTd
        Queries, keys and values; any strides.
    projection_dM
        ``c P'``, contiguous.
    """
    projection = projection_dM.expand(len(q_HTd), -1, -1)
    features = torch.bmm(k_HTd, projection).exp_()
    top = features.detach().amax((1, 2)).float()
    context, constant = torch.bmm(features.transpose(1, 2), weighted(k_HTd, v_HTd)), eps_of_keys(v_HTd)
    context = context.float() / top[:, None, None] + constant
    features = torch.bmm(q_HTd, projection).exp_()
    return read(features, *eps_of_queries(features, q_HTd), context)


def weighted(k_HTd: Tensor, v_HTd: Tensor) -> Tensor:
    """Return values and a column of ones, times ``exp(-h)`` of their keys: (heads, tokens, d + 1)."""
    weight = torch.exp(-_half_square(k_HTd))[..., None].to(v_HTd.dtype)
    return torch.cat([v_HTd * weight, weight], dim=-1)


def eps_of_keys(v_HTd: Tensor) -> Tensor:
    """Return what ``eps`` adds to the context of every feature, float32 (heads, 1, d + 1)."""
    total = v_HTd.sum(1, keepdim=True, dtype=torch.float32)
    return EPS * F.pad(total, (0, 1), value=float(v_HTd.shape[1]))


def eps_of_queries(features_HTM: Tensor, q_HTd: Tensor) -> tuple[Tensor | None, Tensor]:
    """Return what to divide each query's sums by, and ``eps`` in units of the result, float32 (heads, tokens, 1).

    The first is ``None``, and the units are the query's features, unless ``eps`` is too large in them for float32.
    """
    top = features_HTM.detach().amax(-1).float()[..., None]
    grown = torch.exp(_half_square(q_HTd))[..., None]
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


def _half_square(x_HTd: Tensor) -> Tensor:
    """Return ``|c x|^2 / 2``, float32 (heads, tokens)."""
    scale = 0.5 * float(x_HTd.shape[-1]) ** -0.5
    half: Tensor = torch.linalg.vector_norm(x_HTd, dim=-1, dtype=torch.float32).square() * scale
    return half
