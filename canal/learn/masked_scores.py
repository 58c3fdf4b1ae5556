"""How well masked bins are told on held-out cells, beside what needs no model.

Shapes: n cells, G genes, K bins above zero.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from canal.data.blocks import TokenBlock
from canal.encoders.masked import MaskedModel, mask_tokens

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
