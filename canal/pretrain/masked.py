"""Masked expression modelling (scBERT): the model, the masks, and how well masked bins of held-out cells are predicted.

The model is the Performer of the published layout with its head over bins. Two baselines need no model.

Shapes: B cells of a batch, n held-out cells, G genes of the table, S genes shown, T = S + 1 tokens, E token size,
K = bins + 2 tokens, M masked.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from canal.config import PerformerConfig
from canal.model.encoders.layers import EmbeddedCell, Layer, map_cells, sharing_cells, through_layers
from canal.model.encoders.performer import performer_layers
from canal.model.encoders.published import TABLE
from canal.model.network import product_dtype
from canal.pretrain.cells import TokenBlock

BATCH = 16  # held-out cells that go through the model together
# Tokens times their size, from which a CPU is faster cell by cell: preset small has 32,832 and gains a third, cells of
# 31 tokens of 16 lose five sixths.
FEWEST_VALUES = 16_384
MOST_COUNTED = 20_000  # training cells that are counted for the second baseline


class MaskedModel(nn.Module):
    """The Performer with a head over bins: from the tokens of cells to the logits of the masked ones.

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
        self.product_dtype = product_dtype("auto")
        # Layers are named as in the published checkpoint, but for the gene vectors.
        self.token_emb = nn.Embedding(config.bins + 2, config.dim)
        self.gene_emb = nn.Embedding(n_genes, config.dim)
        self.performer = performer_layers(config)
        self.norm = nn.LayerNorm(config.dim)
        self.to_out = nn.Linear(config.dim, config.bins + 2)
        # Of unit spread, as in the stages' encoder: smaller ones drown in what the layers add to every token alike.
        # The fixed vectors replace what is drawn, so that all other weights start the same with and without them.
        nn.init.normal_(self.token_emb.weight)
        nn.init.normal_(self.gene_emb.weight)
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
            Which bins to predict, bool.
        """
        # scBERT appends one token of bin 0 to every cell; nothing is predicted for it.
        tokens_BT, masked_BT = F.pad(tokens_BS, (0, 1)), F.pad(masked_BS, (0, 1))
        genes_TE = F.pad(self.gene_emb(genes_S), (0, 0, 0, 1))
        if self.takes_cells_alone(tokens_BT.shape[1]):
            x_ME = self._one_by_one(tokens_BT, genes_TE, masked_BT)
        else:
            x_ME = self.performer(self.token_emb(tokens_BT) + genes_TE)[masked_BT]
        logits: Tensor = self.to_out(self.norm(x_ME))
        return logits

    def takes_cells_alone(self, n_tokens: int) -> bool:
        """Tell whether cells of so many tokens go through the layers one by one: on a CPU, where they are large."""
        return self.to_out.weight.device.type == "cpu" and n_tokens * self.config.dim >= FEWEST_VALUES

    def _one_by_one(self, tokens_BT: Tensor, genes_TE: Tensor, masked_BT: Tensor) -> Tensor:
        """Return the masked tokens after the last layer, (M, E), as `canal.model.encoders.layers` computes them.

        Of the last layer the masked tokens alone are asked for; the others are its keys and values.
        """
        network: Any = self.performer.net
        layers = [Layer.of(module, self.product_dtype) for module in network.layers]
        x_BTE = self.token_emb(tokens_BT) + genes_TE
        cells = [EmbeddedCell(x_TE) for x_TE in x_BTE]
        if len(layers) > 1:
            cells = sharing_cells(layers[0], x_BTE, tokens_BT, lambda tokens_T: self.token_emb(tokens_T) + genes_TE)
        outputs = []
        for cell, masked_T in zip(cells, masked_BT, strict=True):
            x_TE, masked_K = through_layers(layers[:-1], cell), torch.nonzero(masked_T)[:, 0]
            outputs.append(layers[-1].of_rows(x_TE, masked_K))
        return torch.cat(outputs)

    def published_tensors(self) -> dict[str, Tensor]:
        """Return the weights in the published layout: gene vectors in double precision, then a row of zeros."""
        state = {name: tensor.detach().cpu().clone() for name, tensor in self.state_dict().items()}
        table = state.pop("gene_emb.weight").double()
        state[TABLE] = torch.cat([table, table.new_zeros(1, table.shape[1])])
        state["performer.calls_since_last_redraw"] = torch.tensor(0)
        return state


def mask_tokens(
    tokens_BS: Tensor, *, share: float, replaced: float, mask_token: int, draw: torch.Generator, zeros: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Hide some expressed genes of every cell (scBERT: 15 %, of which 90 % become the mask token), and others.

    Of each cell's tokens between 0 and the mask token, ``ceil(share * their number)`` are drawn, and ``zeros`` times as
    many of its tokens of bin 0. scBERT hides none of these: nothing then keeps in the output of a token that its gene
    is *not* expressed, and most of what tells a cell's type is lost.

    Returns
    -------
    Tokens shown, int64 (B, S), and which bins to predict, bool (B, S).
    """
    expressed = (tokens_BS > 0) & (tokens_BS < mask_token)
    wanted = torch.ceil(share * expressed.sum(dim=1, keepdim=True) - 1e-6)
    masked = _drawn_of_each(expressed, wanted, draw)
    if zeros > 0:
        masked = masked | _drawn_of_each(tokens_BS == 0, zeros * wanted, draw)
    # Most of the masked tokens are hidden; the others are shown as they are and predicted all the same.
    hidden = masked & (torch.rand(tokens_BS.shape, generator=draw) < replaced)
    return tokens_BS.masked_fill(hidden, mask_token), masked


def _drawn_of_each(maskable_BS: Tensor, wanted_B1: Tensor, draw: torch.Generator) -> Tensor:
    """Return as many of each cell's maskable tokens as are wanted, all where there are fewer, bool (B, S)."""
    # Rank the maskable tokens of each cell at random, the others behind them; the first are drawn.
    order = torch.rand(maskable_BS.shape, generator=draw).masked_fill_(~maskable_BS, 2.0).argsort(dim=1)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
    return maskable_BS & (ranks < wanted_B1)


@dataclass(frozen=True, kw_only=True)
class HeldOutTokens:
    """Held-out cells with the same genes masked each time.

    Attributes
    ----------
    tokens
        True tokens, the mask token where a gene was not measured, int64 (n, G).
    shown, masked
        Tokens that the model sees, int64 (n, G), and which bins it predicts, bool (n, G).
    """

    tokens: Tensor
    shown: Tensor
    masked: Tensor


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Accuracy on the masked tokens without a model.

    Attributes
    ----------
    cell_majority
        Of the commonest bin above zero of each cell; masked tokens are counted, too.
    gene_majority
        Of the commonest bin of each gene among training cells whose commonest bin is that of the cell.
    """

    cell_majority: float
    gene_majority: float


def mask_held_out(
    block: TokenBlock, *, share: float, replaced: float, mask_token: int, draw: torch.Generator
) -> HeldOutTokens:
    """Mask expressed genes of the held-out cells once, for all epochs; none of bin 0, as in scBERT."""
    tokens = torch.where(torch.from_numpy(block.measured), torch.from_numpy(block.tokens).long(), mask_token)
    shown, masked = mask_tokens(tokens, share=share, replaced=replaced, mask_token=mask_token, draw=draw)
    return HeldOutTokens(tokens=tokens, shown=shown, masked=masked)


def validate(model: MaskedModel, cells: HeldOutTokens, device: torch.device) -> dict[str, float]:
    """Return accuracy and cross-entropy on the masked tokens, among the bins above zero, as in scBERT."""
    model.eval()
    genes = torch.arange(model.n_genes, device=device)

    def of_batch(start: int) -> tuple[int, float, int]:
        masked = cells.masked[start : start + BATCH]
        targets = cells.tokens[start : start + BATCH][masked].to(device)
        logits = model(cells.shown[start : start + BATCH].to(device), genes, masked.to(device))
        # Neither bin 0 nor the mask token is an answer: whether a gene is expressed at all is not asked here.
        logits, targets = logits[:, 1:-1], targets - 1
        right = int((logits.argmax(dim=1) == targets).sum())
        return right, float(F.cross_entropy(logits, targets, reduction="sum")), len(targets)

    # Cells that go through the layers one by one leave cores idle: batches go side by side there.
    starts = list(range(0, len(cells.tokens), BATCH))
    alone = model.takes_cells_alone(model.n_genes + 1)
    with torch.no_grad():
        done = map_cells(of_batch, starts) if alone else [of_batch(start) for start in starts]
    right, loss, total = (sum(figure) for figure in zip(*done, strict=True)) if done else (0, 0.0, 0)
    return {"accuracy": right / max(total, 1), "held_out_loss": loss / max(total, 1)}


def majority_baselines(cells: HeldOutTokens, training: Iterable[TokenBlock], bins: int) -> Baselines:
    """Score both baselines on the held-out cells.

    Parameters
    ----------
    cells
        The held-out cells.
    training
        Training cells; `MOST_COUNTED` of them at most are counted.
    bins
        Highest bin.
    """
    tokens, masked = cells.tokens.numpy(), cells.masked.numpy()
    commonest_of_cell = _commonest_bins(tokens, bins)
    # Training cells by their commonest bin, gene, and bin of the gene.
    counts = np.zeros((bins, tokens.shape[1], bins), dtype=np.int64)
    counted = 0
    for block in training:
        _count_bins(counts, block.tokens, bins)
        counted += len(block.tokens)
        if counted >= MOST_COUNTED:
            break
    # A gene unseen among cells of a commonest bin is taken for its commonest bin in all cells.
    unseen = counts.sum(axis=2) == 0
    commonest_of_gene = np.where(unseen, counts.sum(axis=0).argmax(axis=1)[None], counts.argmax(axis=2)) + 1
    cell, gene = np.nonzero(masked)
    truth, n_masked = tokens[cell, gene], max(len(cell), 1)
    by_gene = commonest_of_gene[commonest_of_cell[cell] - 1, gene]
    return Baselines(
        cell_majority=float((commonest_of_cell[cell] == truth).sum() / n_masked),
        gene_majority=float((by_gene == truth).sum() / n_masked),
    )


def _count_bins(counts: np.ndarray, tokens: np.ndarray, bins: int) -> None:
    """Add cells, tokens (n, G), to the counts (commonest bin, gene, bin)."""
    commonest = _commonest_bins(tokens, bins)
    for majority in np.unique(commonest):
        alike = tokens[commonest == majority]
        for token in range(1, bins + 1):
            counts[majority - 1, :, token - 1] += (alike == token).sum(axis=0)


def _commonest_bins(tokens: np.ndarray, bins: int) -> np.ndarray:
    """Return the commonest bin above zero of each cell of tokens (n, G), the lower one of equals, (n,)."""
    counts = np.stack([(tokens == token).sum(axis=1) for token in range(1, bins + 1)], axis=1)
    return np.asarray(counts.argmax(axis=1) + 1)
