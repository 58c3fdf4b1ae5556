"""How much each gene counts for a model in the cells of each group: its attention, or its part of the memory's score.

Attention is that of the encoder: how much every gene gets, the mean over the queries of each layer's map, without the
T x T map itself. With linear attention a layer's map is ``A[q, k] = phi_q . phi_k / phi_q . sum_k phi_k``; its mean
over the queries is ``phi_k . mean_q(phi_q / (phi_q . sum_k phi_k))``, which costs O(T m) for m random features.
scBERT's figures come from the same maps, made whole with the identity as values; there, a map is computed from what the
layer gives out, here from what it takes in.

A model without attention is explained by its analytic memory, whose scores are sums over genes.

Shapes: n cells, B cells of a block, G genes explained, T = G + 1 tokens, H heads, d size of a head, m features,
K groups, C types.
"""

from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from canal.data.values import unit_rows
from canal.errors import StageError
from canal.model.encoders.contract import Encoder
from canal.model.encoders.performer import ExactAttention, PerformerEncoder
from canal.model.memory import AnalyticMemory
from canal.model.network import PanelCells, best_device
from canal.model.reader import GeneSetReader

ATTENTION, MEMORY = "attention", "memory"  # the methods, as reports name them


class Explainer(Protocol):
    """Collects cells of groups and tells for each gene how much it counts.

    Attributes
    ----------
    method
        What the scores are.
    genes
        The genes that are explained: those of the model that the file measures.
    """

    method: str
    genes: tuple[str, ...]

    def add(self, expression: sp.csr_matrix, groups: np.ndarray) -> None:
        """Take cells (n, genes of the file) and the index of each one's group, (n,)."""

    def scores(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean score of each gene in the cells of a group and in all others, each (G,)."""

    def speaks_for(self, group: int) -> np.ndarray | None:
        """Return whether expressing a gene speaks for the group or against it, bool (G,); ``None`` if neither."""


def explainer_of(reader: GeneSetReader, groups: tuple[str, ...]) -> Explainer:
    """Return what explains a model: its encoder's attention, else its analytic memory.

    Parameters
    ----------
    reader
        The model for the genes of a file.
    groups
        Names of the groups; a memory knows those only that are types of the model.

    Raises
    ------
    StageError
        If the model has neither attention nor memory, or a group is no type of the memory.
    """
    if has_attention(reader.model.network.encoder):
        return AttentionExplainer(reader, len(groups))
    if reader.solved is None:
        message = (
            f"This stage cannot be explained: the encoder of preset {reader.model.preset.name!r} has no attention, "
            "and there is no analytic memory. Use a stage of preset 'performer' or 'compact'."
        )
        raise StageError(message)
    return MemoryExplainer(reader, groups)


class MemoryExplainer:
    """What each gene adds to the memory's ridge score of a type: the scores are linear, so that the parts are exact.

    The ridge score of a cell x (a unit profile) for a type is ``sum_g x_g W[g, type]``; a gene's part is its summand.
    What the model answers is made of these scores, see `canal.model.discriminants`: that step is not explained.
    """

    method = MEMORY

    def __init__(self, reader: GeneSetReader, groups: tuple[str, ...]) -> None:
        solved = reader.solved
        assert solved is not None
        # A group that is no type of the memory has no score.
        strange = sorted(set(groups) - set(solved.types))
        if strange:
            message = (
                f"The model does not know {', '.join(map(repr, strange))}, and its analytic memory can explain its own "
                f"types only: {', '.join(solved.types)}."
            )
            raise StageError(message)
        self._match, self._weights = solved.match, solved.weights
        self._type_columns = [solved.types.index(name) for name in groups]
        # Genes that the file does not measure have no part in the scores.
        self._measured = np.flatnonzero(solved.match.measured)
        self.genes = tuple(solved.match.panel_genes[i] for i in self._measured.tolist())
        self._sums = _GroupSums(len(groups), len(self._measured))

    def add(self, expression: sp.csr_matrix, groups: np.ndarray) -> None:
        """Take cells and their groups."""
        self._sums.add(unit_rows(self._match.project(expression)[:, self._measured]), groups)

    def scores(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean part of each gene in the score for the group's type, in its cells and in all others."""
        weights = self._weights[:, self._type_columns[group]]
        own, others = self._sums.means(group)
        return own * weights, others * weights

    def speaks_for(self, group: int) -> np.ndarray:
        """Return which genes add to the score for the group's type where a cell expresses them."""
        return np.asarray(self._weights[:, self._type_columns[group]] > 0)


class TaughtExplainer:
    """What each gene adds to the memory's ridge score of a type in the cells that were taught, without any file.

    The analytic memory knows the mean profile of each type, which takes the place of the cells; every type counts the
    same among the others.

    Parameters
    ----------
    memory
        Of the model.
    types
        Names of the groups, all that the memory has statistics of.
    """

    method = MEMORY

    def __init__(self, memory: AnalyticMemory, types: tuple[str, ...]) -> None:
        self.genes = tuple(memory.panel.genes)
        everything = np.ones(len(memory.panel), dtype=bool)
        self._profiles = memory.type_profiles(everything, types)
        self._weights = memory.solved_for(memory.panel.genes, types).weights

    def add(self, expression: sp.csr_matrix, groups: np.ndarray) -> None:
        """Take no cells: the memory has what it needs."""

    def scores(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the part of each gene in the score for a type, in its mean profile and in that of all others."""
        own = self._profiles[group]
        others = np.delete(self._profiles, group, axis=0)
        elsewhere = others.mean(axis=0) if len(others) else np.zeros_like(own)
        return own * self._weights[:, group], elsewhere * self._weights[:, group]

    def speaks_for(self, group: int) -> np.ndarray:
        """Return which genes add to the score for a type where a cell expresses them."""
        return np.asarray(self._weights[:, group] > 0)


BLOCK = 8  # cells whose features of all tokens are in memory at a time


class AttentionExplainer:
    """The share of attention that goes to each gene, averaged over cells."""

    method = ATTENTION

    def __init__(self, reader: GeneSetReader, groups: int) -> None:
        self._reader = reader
        self._measured = np.flatnonzero(reader.match.measured)
        self.genes = tuple(reader.model.panel.genes[i] for i in self._measured.tolist())
        self._sums = _GroupSums(groups, len(self._measured))

    def add(self, expression: sp.csr_matrix, groups: np.ndarray) -> None:
        """Take cells and their groups."""
        # The cells on the gene panel; all of one file, which measured the same genes.
        match = self._reader.match
        values = match.project(expression)
        source = np.zeros(values.shape[0], dtype=np.int64)
        cells = PanelCells(values=values, measured=match.measured[None], source=source)
        device = best_device()
        encoder = self._reader.model.network.encoder.to(device).eval()
        for rows in cells.blocks(BLOCK):
            values_BG, measured_BG = cells.dense(rows)
            share_BG = attention_to_genes(encoder, values_BG.to(device), measured_BG.to(device))
            self._sums.add(share_BG.double().cpu().numpy()[:, self._measured], groups[rows])
        encoder.to(torch.device("cpu"))

    def scores(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean share of attention in a group and elsewhere."""
        return self._sums.means(group)

    def speaks_for(self, group: int) -> None:  # noqa: ARG002
        """Return nothing: attention says that a gene is looked at, not what for."""
        return


class _GroupSums:
    """Sums of rows by group: ``sums`` (K, G) and the ``counts`` of the rows, (K,)."""

    def __init__(self, groups: int, genes: int) -> None:
        self.sums, self.counts = np.zeros((groups, genes)), np.zeros(groups)

    def add(self, rows: np.ndarray | sp.csr_matrix, groups: np.ndarray) -> None:
        """Add rows (n, G) to the sums of their groups (n,)."""
        # A matrix (K, n) with a one where a row belongs to a group sums them all at once.
        n = len(groups)
        membership = sp.csr_matrix((np.ones(n), (groups, np.arange(n))), shape=(len(self.counts), n))
        total = membership @ rows
        self.sums += total.toarray() if sp.issparse(total) else np.asarray(total)
        self.counts += np.bincount(groups, minlength=len(self.counts))

    def means(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean row of a group and that of all others, zero where there are none."""
        rest = self.counts.sum() - self.counts[group]
        others = (self.sums.sum(axis=0) - self.sums[group]) / max(rest, 1)
        return self.sums[group] / max(self.counts[group], 1), others


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
    """Return the attention of each layer to each token, (B, layers, T): the mean over heads and queries, sum 1.

    Parameters
    ----------
    encoder
        The Performer.
    values_BG, measured_BG
        As for `Encoder.forward`.
    """
    # The tokens as the encoder embeds them: a token for each gene, and the extra one last.
    tokens_BG = encoder.tokens(values_BG, measured_BG)
    extra_B1E = encoder.token_emb.weight[0].expand(len(tokens_BG), 1, -1)
    x_BTE = torch.cat([encoder.token_emb(tokens_BG) + encoder.gene_emb.weight, extra_B1E], dim=1)
    # Layer by layer, each on what the one before gives out.
    performer: Any = encoder.performer
    layers = []
    for attention, forward in performer.net.layers:
        layers.append(_layer_attention(attention, x_BTE))
        x_BTE = x_BTE + attention(x_BTE)
        x_BTE = x_BTE + forward(x_BTE)
    return torch.stack(layers, dim=1)


def _layer_attention(attention: Any, x_BTE: Tensor) -> Tensor:
    """Return the attention of one layer to each token, (B, T)."""
    inner, normed = attention.fn, attention.norm(x_BTE)
    q_BHTd = _split_heads(inner.to_q(normed), inner.heads)
    k_BHTd = _split_heads(inner.to_k(normed), inner.heads)
    if isinstance(inner.fast_attention, ExactAttention):
        share_BHT = _exact_attention(q_BHTd, k_BHTd)
    else:
        share_BHT = _linear_attention(q_BHTd, k_BHTd, inner.fast_attention.projection_matrix)
    return share_BHT.mean(dim=1)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    b, t, inner = x.shape
    return x.view(b, t, heads, inner // heads).transpose(1, 2)


def _linear_attention(q_BHTd: Tensor, k_BHTd: Tensor, projection_md: Tensor) -> Tensor:
    """Return the attention to each token, (B, H, T), by the formula in the head of this file."""
    from performer_pytorch.performer_pytorch import softmax_kernel

    phi_q = softmax_kernel(q_BHTd, projection_matrix=projection_md, is_query=True)
    phi_k = softmax_kernel(k_BHTd, projection_matrix=projection_md, is_query=False)
    total = torch.einsum("bhtm,bhm->bht", phi_q, phi_k.sum(dim=2))
    weight = (phi_q / total.unsqueeze(-1)).mean(dim=2)
    return torch.einsum("bhtm,bhm->bht", phi_k, weight)


QUERIES = 128  # whose exact attention to all tokens is in memory at a time


def _exact_attention(q_BHTd: Tensor, k_BHTd: Tensor) -> Tensor:
    """Return the attention to each token, (B, H, T), from the rows of the whole map, some queries at a time."""
    scale, queries = q_BHTd.shape[-1] ** -0.5, q_BHTd.shape[2]
    total = torch.zeros_like(k_BHTd[..., 0])
    for start in range(0, queries, QUERIES):
        scores = q_BHTd[:, :, start : start + QUERIES] @ k_BHTd.transpose(-1, -2) * scale
        total += scores.softmax(dim=-1).sum(dim=2)
    return total / queries
