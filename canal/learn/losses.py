"""The loss of a stage (CANAL, Briefings in Bioinformatics 2024, representation distillation).

Shapes: B cells, C types, D representation.
"""

from torch import Tensor
from torch.nn import functional as F


def classification_loss(logits_BC: Tensor, types_B: Tensor, weights_B: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy against ``(1 - eps) onehot + eps / C``, weighted mean over the batch."""
    losses_B = F.cross_entropy(logits_BC, types_B, label_smoothing=smoothing, reduction="none")
    return (losses_B * weights_B).sum() / weights_B.sum()


def distillation_loss(rep_BD: Tensor, previous_BD: Tensor) -> Tensor:
    """Mean squared difference to the previous model's representation, over batch and dimensions."""
    return F.mse_loss(rep_BD, previous_BD)


def distillation_weight(strength: float, n_old: int, n_all: int) -> float:
    """Return lambda * |old types| / |old and new types|: the more is new, the freer the representation."""
    return strength * n_old / n_all if n_all else 0.0
