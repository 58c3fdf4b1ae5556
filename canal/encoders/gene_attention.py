"""How much attention every gene gets: the mean over the queries of each layer's attention, without the N x N map.

With linear attention a layer's map is ``A[q, k] = phi_q . phi_k / phi_q . sum_k phi_k``; its mean over the queries is
``phi_k . mean_q(phi_q / (phi_q . sum_k phi_k))``, which costs O(N m) for m random features. scBERT's figures come from
the same maps, made whole with the identity as values; there, a map is computed from what the layer gives out, here from
what it takes in.

Shapes: B cells, G genes, T = G + 1 tokens, H heads, d size of a head, m features.
"""

from typing import Any

import torch
from torch import Tensor

from canal.encoders.contract import Encoder
from canal.encoders.performer import ExactAttention, PerformerEncoder

QUERIES = 128  # whose exact attention is in memory at a time


def has_attention(encoder: Encoder) -> bool:
    """Tell whether `attention_to_genes` knows the encoder: a Performer, or one with a ``gene_attention`` of its own."""
    return isinstance(encoder, PerformerEncoder) or hasattr(encoder, "gene_attention")


def attention_to_genes(encoder: Encoder, values_BG: Tensor, measured_BG: Tensor) -> Tensor:
    """Return the share of attention that goes to each gene, (B, G).

    It is the mean over layers, heads and queries. Genes that were not measured get none, and what goes to them and to
    the extra token is left out before the rest is brought to the sum 1.

    Parameters
    ----------
    encoder
        A Performer, or an encoder that has ``gene_attention(values, measured)`` of shape (B, G).
    values_BG, measured_BG
        As for `Encoder.forward`.
    """
    with torch.no_grad():
        if isinstance(encoder, PerformerEncoder):
            share_BG = token_attention(encoder, values_BG, measured_BG).mean(dim=1)[:, :-1]
        else:
            own: Any = encoder
            share_BG = own.gene_attention(values_BG, measured_BG)
        share_BG = share_BG * measured_BG
        return share_BG / share_BG.sum(dim=1, keepdim=True).clamp(min=1e-30)


def token_attention(encoder: PerformerEncoder, values_BG: Tensor, measured_BG: Tensor) -> Tensor:
    """Return the attention of each layer to each token, (B, layers, T): the mean over heads and queries, sum 1."""
    tokens_BG = encoder.tokens(values_BG, measured_BG)
    last_BE = encoder.token_emb.weight[0].expand(len(tokens_BG), 1, -1)
    x_BTE = torch.cat([encoder.token_emb(tokens_BG) + encoder.gene_emb.weight, last_BE], dim=1)
    performer: Any = encoder.performer
    found = []
    for attention, forward in performer.net.layers:
        found.append(_of_layer(attention, x_BTE))
        x_BTE = x_BTE + attention(x_BTE)
        x_BTE = x_BTE + forward(x_BTE)
    return torch.stack(found, dim=1)


def _of_layer(attention: Any, x_BTE: Tensor) -> Tensor:
    inner, normed = attention.fn, attention.norm(x_BTE)
    q, k = (_heads(layer(normed), inner.heads) for layer in (inner.to_q, inner.to_k))
    exact = isinstance(inner.fast_attention, ExactAttention)
    share_BHT = _exact(q, k) if exact else _linear(q, k, inner.fast_attention.projection_matrix)
    return share_BHT.mean(dim=1)


def _heads(x: Tensor, heads: int) -> Tensor:
    b, t, inner = x.shape
    return x.view(b, t, heads, inner // heads).transpose(1, 2)


def _linear(q_BHTd: Tensor, k_BHTd: Tensor, projection_md: Tensor) -> Tensor:
    from performer_pytorch.performer_pytorch import softmax_kernel

    phi_q = softmax_kernel(q_BHTd, projection_matrix=projection_md, is_query=True)
    phi_k = softmax_kernel(k_BHTd, projection_matrix=projection_md, is_query=False)
    total = torch.einsum("bhtm,bhm->bht", phi_q, phi_k.sum(dim=2))
    weight = (phi_q / total.unsqueeze(-1)).mean(dim=2)
    return torch.einsum("bhtm,bhm->bht", phi_k, weight)


def _exact(q_BHTd: Tensor, k_BHTd: Tensor) -> Tensor:
    scale, queries = q_BHTd.shape[-1] ** -0.5, q_BHTd.shape[2]
    total = torch.zeros_like(k_BHTd[..., 0])
    for start in range(0, queries, QUERIES):
        scores = q_BHTd[:, :, start : start + QUERIES] @ k_BHTd.transpose(-1, -2) * scale
        total += scores.softmax(dim=-1).sum(dim=2)
    return total / queries
