"""Masked expression modelling: the Performer of the published layout with its head over bins (scBERT).

Shapes: B cells, G genes of the table, S genes shown, T = S + 1 tokens, E token size, K = bins + 2 tokens, M masked.
"""

import torch
from torch import Tensor, nn

from canal.config import PerformerConfig
from canal.encoders.performer import performer_layers
from canal.encoders.published import TABLE


class MaskedModel(nn.Module):
    """Tokens of cells in, the logits of the masked ones out.

    Parameters
    ----------
    config
        Sizes of the Performer.
    n_genes
        Genes of the table.
    vectors
        Fixed vectors of the genes, (G, E); learned ones where ``None``.
    """

    def __init__(self, config: PerformerConfig, n_genes: int, vectors: Tensor | None = None) -> None:
        super().__init__()
        self.config, self.n_genes = config, n_genes
        self.mask_token = config.bins + 1
        self.token_emb = nn.Embedding(config.bins + 2, config.dim)
        self.gene_emb = nn.Embedding(n_genes, config.dim)
        self.performer = performer_layers(config)
        self.norm = nn.LayerNorm(config.dim)
        self.to_out = nn.Linear(config.dim, config.bins + 2)
        nn.init.normal_(self.token_emb.weight, std=0.02)
        nn.init.normal_(self.gene_emb.weight, std=0.02)
        if vectors is not None:
            self.gene_emb.weight.requires_grad_(False)
            with torch.no_grad():
                self.gene_emb.weight.copy_(vectors)

    def forward(self, tokens_BS: Tensor, genes_S: Tensor, masked_BS: Tensor) -> Tensor:
        """Return the logits of the masked tokens, (M, K), cell by cell.

        Parameters
        ----------
        tokens_BS
            Tokens shown, int64.
        genes_S
            Row of the table of each column, int64.
        masked_BS
            Where a bin is asked for, bool.
        """
        x_BSE = self.token_emb(tokens_BS) + self.gene_emb(genes_S)
        last_BE = self.token_emb.weight[0].expand(len(tokens_BS), 1, -1)
        x_BTE = self.performer(torch.cat([x_BSE, last_BE], dim=1))
        logits: Tensor = self.to_out(self.norm(x_BTE[:, :-1][masked_BS]))
        return logits

    def published(self) -> dict[str, Tensor]:
        """Return the weights in the published layout; positions in double precision and a row of zeros at the end."""
        state = {k: v.detach().cpu().clone() for k, v in self.state_dict().items()}
        table = state.pop("gene_emb.weight").double()
        state[TABLE] = torch.cat([table, table.new_zeros(1, table.shape[1])])
        state["performer.calls_since_last_redraw"] = torch.tensor(0)
        return state


def mask_tokens(
    tokens_BS: Tensor, *, share: float, replaced: float, mask_token: int, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide some expressed genes of every cell (scBERT: 15 %, of which 90 % become the mask token).

    Of each cell's tokens between 0 and the mask token, ``ceil(share * their number)`` are drawn.

    Returns
    -------
    Tokens shown, int64 (B, S), and where a bin is asked for, bool (B, S).
    """
    maskable = (tokens_BS > 0) & (tokens_BS < mask_token)
    order = torch.rand(tokens_BS.shape, generator=draw).masked_fill_(~maskable, 2.0).argsort(dim=1)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
    wanted = torch.ceil(share * maskable.sum(dim=1, keepdim=True) - 1e-6)
    masked = maskable & (ranks < wanted)
    hidden = masked & (torch.rand(tokens_BS.shape, generator=draw) < replaced)
    return tokens_BS.masked_fill(hidden, mask_token), masked
