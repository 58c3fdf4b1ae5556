"""The paper's encoder: gene tokens through a Performer (CANAL, Briefings in Bioinformatics 2024; scBERT, 2022).

- a token a gene: the log2 bin of its expression, or the mask token where the gene was not measured
- a learned embedding of the gene's identity, by gene and not by position in somebody's list
- one token more at the end, as in the published layout
- performer-pytorch's layers; ``attention = "exact"`` puts softmax attention in the same layers
- head: one shared convolution (1 x dim) -> a number a gene -> hidden -> representation

Shapes: B cells, G genes, T = G + 1 tokens, E token size, H heads, D representation.
"""

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from canal.config import PerformerConfig
from canal.encoders.contract import Encoder, grown_linear

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
        self.dim = config.representation
        self.block = 16
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

    def _encode(self, values_BG: Tensor, measured_BG: Tensor) -> Tensor:
        x_BGE = self.token_emb(self.tokens(values_BG, measured_BG)) + self.gene_emb.weight
        last_BE = self.token_emb.weight[0].expand(len(values_BG), 1, -1)
        x_BTE = self.norm(self.performer(torch.cat([x_BGE, last_BE], dim=1)))
        h_BT = F.relu(self.conv(x_BTE).squeeze(-1))
        h_BT = torch.cat([h_BT[:, :-1] * measured_BG, h_BT[:, -1:]], dim=1)
        return F.relu(self.fc2(F.relu(self.fc1(h_BT))))

    def grow(self, n_genes: int) -> None:
        """Add genes; old embeddings and old columns of the head stay as they are."""
        more = n_genes - self.n_genes
        if more <= 0:
            return
        fresh = torch.randn(more, self.config.dim, device=self.gene_emb.weight.device)
        old = self.gene_emb.weight.detach()
        self.gene_emb = nn.Embedding(n_genes, self.config.dim).to(fresh.device)
        with torch.no_grad():
            self.gene_emb.weight.copy_(torch.cat([old, fresh]))
        self.fc1 = grown_linear(self.fc1, n_genes + 1, at=self.n_genes).to(fresh.device)
        self.n_genes = n_genes
        if self.config.trainable == "paper":
            self.freeze_as_paper()

    def freeze_as_paper(self) -> None:
        """Leave trainable what the paper trains: the last LayerNorm, the last layer but one and the head."""
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        layers: Any = self.performer.net
        trained: list[nn.Module] = [self.norm, self.conv, self.fc1, self.fc2, layers.layers[-2]]
        for module in trained:
            for parameter in module.parameters():
                parameter.requires_grad_(True)


def performer_layers(config: PerformerConfig) -> nn.Module:
    """Return the layers of performer-pytorch, their random features drawn once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # distutils, in performer-pytorch
        from performer_pytorch import Performer
    performer: Any = Performer(
        dim=config.dim, depth=config.depth, heads=config.heads, dim_head=config.dim_head, causal=False,
        feature_redraw_interval=None, qkv_bias=False,
    )  # fmt: skip
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
