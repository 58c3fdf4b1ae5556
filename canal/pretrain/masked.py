"""Masked expression modelling: the Performer of the published layout with its head over bins (scBERT).

Shapes: B cells, G genes of the table, S genes shown, T = S + 1 tokens, E token size, K = bins + 2 tokens, M masked.

How well masked bins are told on held-out cells, beside what needs no model.

Shapes: n cells, G genes, K bins above zero.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from canal.config import PerformerConfig
from canal.model.encoders.performer import performer_layers
from canal.model.encoders.published import TABLE
from canal.pretrain.cells import TokenBlock


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


BATCH = 16
MOST_COUNTED = 20_000  # training cells that the counts of the second baseline are made with


@dataclass(frozen=True, kw_only=True)
class HeldOutTokens:
    """Held-out cells with the same genes masked each time.

    Attributes
    ----------
    tokens
        True tokens, the mask token where a gene was not measured, int64 (n, G).
    shown, masked
        What the model sees, int64 (n, G), and where it is asked, bool (n, G).
    """

    tokens: torch.Tensor
    shown: torch.Tensor
    masked: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Accuracy on the masked tokens without a model.

    Attributes
    ----------
    cell_majority
        Of the commonest bin above zero of each cell, counted with the masked tokens, too.
    gene_majority
        Of the commonest bin of each gene among training cells whose commonest bin is that of the cell.
    """

    cell_majority: float
    gene_majority: float


def held_out_tokens(
    block: TokenBlock, *, share: float, replaced: float, mask_token: int, draw: torch.Generator
) -> HeldOutTokens:
    """Mask the held-out cells once."""
    tokens = torch.where(torch.from_numpy(block.measured), torch.from_numpy(block.tokens).long(), mask_token)
    shown, masked = mask_tokens(tokens, share=share, replaced=replaced, mask_token=mask_token, draw=draw)
    return HeldOutTokens(tokens=tokens, shown=shown, masked=masked)


def validate(model: MaskedModel, cells: HeldOutTokens, device: torch.device) -> dict[str, float]:
    """Return accuracy and cross-entropy on the masked tokens; the answer is one of the bins above zero, as scBERT's."""
    model.eval()
    genes = torch.arange(model.n_genes, device=device)
    right, loss, total = 0, 0.0, 0
    with torch.no_grad():
        for start in range(0, len(cells.tokens), BATCH):
            masked = cells.masked[start : start + BATCH]
            targets = cells.tokens[start : start + BATCH][masked].to(device)
            logits = model(cells.shown[start : start + BATCH].to(device), genes, masked.to(device))
            right += int((logits[:, 1:-1].argmax(dim=1) + 1 == targets).sum())
            loss += float(F.cross_entropy(logits, targets, reduction="sum"))
            total += len(targets)
    return {"accuracy": right / max(total, 1), "held_out_loss": loss / max(total, 1)}


def baselines(cells: HeldOutTokens, training: Iterable[TokenBlock], bins: int) -> Baselines:
    """Score both baselines on the held-out cells.

    Parameters
    ----------
    cells
        The held-out cells.
    training
        Training cells; `MOST_COUNTED` of them at most are counted.
    bins
        Highest bin, K.
    """
    tokens, masked = cells.tokens.numpy(), cells.masked.numpy()
    of_cell = commonest(tokens, bins)
    counts = np.zeros((bins, tokens.shape[1], bins), dtype=np.int64)  # of cells' commonest bin, gene, bin
    seen = 0
    for block in training:
        majority = commonest(block.tokens, bins)
        for m in np.unique(majority):
            rows = block.tokens[majority == m]
            counts[m - 1] += np.stack([(rows == b).sum(axis=0) for b in range(1, bins + 1)], axis=1)
        seen += len(block.tokens)
        if seen >= MOST_COUNTED:
            break
    rare = counts.sum(axis=2, keepdims=True) == 0
    # A gene unseen among such cells is taken for the commonest bin of all cells.
    best = np.where(rare[..., 0], counts.sum(axis=0).argmax(axis=1)[None], counts.argmax(axis=2)) + 1
    where, gene = np.nonzero(masked)
    truth, n = tokens[where, gene], max(len(where), 1)
    return Baselines(
        cell_majority=float((of_cell[where] == truth).sum() / n),
        gene_majority=float((best[of_cell[where] - 1, gene] == truth).sum() / n),
    )


def commonest(tokens: np.ndarray, bins: int) -> np.ndarray:
    """Return the commonest bin above zero of each cell of tokens (n, G), the lower one of equals, (n,)."""
    counts = np.stack([(tokens == b).sum(axis=1) for b in range(1, bins + 1)], axis=1)
    return np.asarray(counts.argmax(axis=1) + 1)
