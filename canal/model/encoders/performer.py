"""The paper's encoder: gene tokens through a Performer (CANAL, Briefings in Bioinformatics 2024; scBERT, 2022).

- each gene has a token: the log2 bin of its expression, or the mask token where the gene was not measured
- a learned embedding of the gene's identity is added to it, which belongs to the gene wherever it stands on the panel
- an extra token at the end, as in the published layout
- performer-pytorch's layers; ``attention = "exact"`` puts softmax attention in the same layers
- on a CPU the same weights are computed by `canal.model.encoders.layers`
- head: one shared convolution (1 x dim) -> a number for each gene -> hidden -> representation

Shapes: B cells, G genes, T = G + 1 tokens, E token size, H heads, D representation.
"""

import math
import warnings
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from canal.config import PerformerConfig
from canal.model.encoders.contract import Encoder, grown_linear
from canal.model.encoders.layers import (
    CellsApart,
    EmbeddedCell,
    Layer,
    map_cells,
    one_thread,
    sharing_cells,
    through_layers,
)

LN_2 = math.log(2.0)


class ExactAttention(nn.Module):
    """Softmax attention with the call of performer-pytorch's ``FastAttention``."""

    def forward(self, q_BHTd: Tensor, k_BHTd: Tensor, v_BHTd: Tensor) -> Tensor:
        """Return softmax(q k' / sqrt(d)) v, of the shape of ``q``."""
        return F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd)


class PerformerEncoder(Encoder):
    """Performer over gene tokens; see the module's text.

    Parameters
    ----------
    config
        Sizes and kind of attention.
    n_genes
        Genes of the panel.
    """

    def __init__(self, config: PerformerConfig, n_genes: int) -> None:
        super().__init__()
        self.config = config
        self.n_genes = n_genes
        # What the contract asks for.
        self.dim = config.representation
        self.block = 64
        self.frozen_layers = max(config.depth - 2, 0) if config.trainable == "paper" else 0
        # Embeddings, layers and head, under the published names.
        self.mask_token = config.bins + 1
        self.token_emb = nn.Embedding(config.bins + 2, config.dim)
        self.gene_emb = nn.Embedding(n_genes, config.dim)
        self.performer = performer_layers(config)
        self.norm = nn.LayerNorm(config.dim)
        self.conv = nn.Linear(config.dim, 1)
        self.fc1 = nn.Linear(n_genes + 1, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.representation)
        # Of unit spread, as published: smaller embeddings drown in what the layers add to every token alike, the
        # convolution then sees the same number for every gene of every cell, and where it is negative nothing learns.
        nn.init.normal_(self.token_emb.weight)
        nn.init.normal_(self.gene_emb.weight)
        if config.trainable == "paper":
            self.freeze_as_paper()

    def tokens(self, values_BG: Tensor, measured_BG: Tensor) -> Tensor:
        """Return the token of each gene, int64 of shape (cells, genes).

        ``min(floor(log2(1 + value)), bins)`` (systems: CANAL's preprocessing), the mask token where not measured.
        """
        bins_BG = torch.floor(values_BG / LN_2 + 1e-6).clamp_(0, self.config.bins).long()
        return torch.where(measured_BG, bins_BG, self.mask_token)

    def frozen_outputs(self, values_BG: Tensor, measured_BG: Tensor) -> Tensor:
        """Return the tokens after the frozen layers, (cells, T, E)."""
        return self._from_tables(values_BG, measured_BG, self.frozen_layers)

    def from_frozen(self, frozen_BTE: Tensor, measured_BG: Tensor) -> Tensor:
        """Return the representation from the tokens after the frozen layers."""
        return self._head(self._run(frozen_BTE, self.frozen_layers, self.config.depth), measured_BG)

    def _encode(self, values_BG: Tensor, measured_BG: Tensor) -> Tensor:
        return self._head(self._from_tables(values_BG, measured_BG, self.config.depth), measured_BG)

    def _from_tables(self, values_BG: Tensor, measured_BG: Tensor, stop: int) -> Tensor:
        """Return the tokens after the first ``stop`` layers, from the embeddings on."""
        tokens_BT = F.pad(self.tokens(values_BG, measured_BG), (0, 1))  # the extra token at the end is 0
        return self._run(self._embedded(tokens_BT), 0, stop, tokens_BT)

    def _embedded(self, tokens_T: Tensor) -> Tensor:
        """Return token and gene embedding, of the shape of the tokens (..., T) and E."""
        x: Tensor = self.token_emb(tokens_T) + F.pad(self.gene_emb.weight, (0, 0, 0, 1))
        return x

    def _run(self, x_BTE: Tensor, start: int, stop: int, tokens_BT: Tensor | None = None) -> Tensor:
        """Return the tokens after layers ``start`` to ``stop``; ``tokens_BT`` where they are still the embeddings."""
        network: Any = self.performer.net
        modules = network.layers[start:stop]
        if x_BTE.device.type != "cpu":
            return _performer_pytorch(modules, x_BTE)
        # On a CPU one cell at a time; in training each makes its own copy of the layers, for a graph of its own.
        trained = [weight for weight in modules.parameters() if weight.requires_grad]
        if torch.is_grad_enabled() and (trained or x_BTE.requires_grad):
            apart: Any = CellsApart.apply
            tokens: Tensor = apart(partial(_alone, modules, self.product_dtype), x_BTE, *trained)
            return tokens
        layers = [Layer.of(module, self.product_dtype) for module in modules]
        return torch.stack(map_cells(partial(through_layers, layers), self._cells(x_BTE, tokens_BT, layers)))

    def _cells(self, x_BTE: Tensor, tokens_BT: Tensor | None, layers: list[Layer]) -> list[EmbeddedCell]:
        """Return the cells of a block; with what their first layers share, where that is worth computing."""
        if tokens_BT is None or torch.is_grad_enabled() or not layers:
            return [EmbeddedCell(x_TE) for x_TE in x_BTE]
        with one_thread():
            return sharing_cells(layers[0], x_BTE, tokens_BT, self._embedded)

    def _head(self, x_BTE: Tensor, measured_BG: Tensor) -> Tensor:
        """Return the representation from the tokens after the last layer; by one thread where nothing is trained."""
        with nullcontext() if torch.is_grad_enabled() else one_thread():
            return self._representation(x_BTE, measured_BG)

    def _representation(self, x_BTE: Tensor, measured_BG: Tensor) -> Tensor:
        h_BT = F.relu(self.conv(self.norm(x_BTE)).squeeze(-1))
        h_BT = torch.cat([h_BT[:, :-1] * measured_BG, h_BT[:, -1:]], dim=1)
        return F.relu(self.fc2(F.relu(self.fc1(h_BT))))

    def grow(self, n_genes: int) -> None:
        """Add genes; old embeddings and old columns of the head stay as they are."""
        more = n_genes - self.n_genes
        if more <= 0:
            return
        # New genes get embeddings of unit spread, like those of the first.
        new = torch.randn(more, self.config.dim, device=self.gene_emb.weight.device)
        old = self.gene_emb.weight.detach()
        self.gene_emb = nn.Embedding(n_genes, self.config.dim).to(new.device)
        with torch.no_grad():
            self.gene_emb.weight.copy_(torch.cat([old, new]))
        # Their columns of the head go before that of the extra token.
        self.fc1 = grown_linear(self.fc1, n_genes + 1, before=self.n_genes).to(new.device)
        self.n_genes = n_genes
        if self.config.trainable == "paper":
            self.freeze_as_paper()

    def freeze_as_paper(self) -> None:
        """Train only what the paper trains: the last LayerNorm, the last layer but one and the head."""
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        layers: Any = self.performer.net
        trained: list[nn.Module] = [self.norm, self.conv, self.fc1, self.fc2, layers.layers[-2]]
        for module in trained:
            for parameter in module.parameters():
                parameter.requires_grad_(True)


def _alone(modules: Any, product_dtype: torch.dtype, x_TE: Tensor) -> Tensor:
    """Return the tokens of a cell that shares nothing after some layers."""
    return through_layers([Layer.of(module, product_dtype) for module in modules], EmbeddedCell(x_TE))


def _performer_pytorch(modules: Any, x_BTE: Tensor) -> Tensor:
    """Return the tokens after some layers as performer-pytorch computes them."""
    for attention, perceptron in modules:
        x_BTE = x_BTE + attention(x_BTE)
        x_BTE = x_BTE + perceptron(x_BTE)
    return x_BTE


def performer_layers(config: PerformerConfig) -> nn.Module:
    """Return the layers of performer-pytorch, their random features drawn once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # distutils, in performer-pytorch
        from performer_pytorch import Performer
    performer: Any = Performer(
        dim=config.dim,
        depth=config.depth,
        heads=config.heads,
        dim_head=config.dim_head,
        causal=False,
        feature_redraw_interval=None,
        qkv_bias=False,
    )
    # Redrawn projections would move the teacher's representations: they stay as first drawn.
    performer.fix_projection_matrices_()
    # The updater registers the whole net a second time, which safetensors refuses.
    performer.proj_updater = _NoRedraw()
    if config.attention == "exact":
        for attention, _ in performer.net.layers:
            attention.fn.fast_attention = ExactAttention()
    module: nn.Module = performer
    return module


class _NoRedraw(nn.Module):
    def redraw_projections(self) -> None:
        """Do nothing: the projections are fixed."""
