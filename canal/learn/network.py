"""The network of a stage: an encoder and a classifier that grows by new types.

Shapes: B cells, G genes of the panel, D representation, C types.
"""

import torch
from torch import Tensor, nn

from canal.encoders.contract import Encoder


class Network(nn.Module):
    """Encoder and linear classifier.

    Parameters
    ----------
    encoder
        Any encoder of the contract.
    n_types
        Number of cell types.
    """

    def __init__(self, encoder: Encoder, n_types: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.dim, n_types)

    def forward(self, values_BG: Tensor, measured_BG: Tensor) -> tuple[Tensor, Tensor]:
        """Return the representation (cells, D) and the logits (cells, C)."""
        rep_BD = self.encoder(values_BG, measured_BG)
        return rep_BD, self.classifier(rep_BD)

    def finish(self, halfway: Tensor, measured_BG: Tensor) -> tuple[Tensor, Tensor]:
        """Return representation and logits from what the encoder's frozen layers made of the cells."""
        rep_BD = self.encoder.finish(halfway, measured_BG)
        return rep_BD, self.classifier(rep_BD)

    def grow(self, n_genes: int, n_types: int, *, random_rows: bool = False) -> None:
        """Make room for more genes and types; old weights and old classifier rows are kept.

        New rows start at zero, below any trained evidence: a fresh row of random direction would claim cells of old
        types before it has seen one of its own. ``random_rows`` leaves them as a new layer has them, as the paper.
        """
        self.encoder.grow(n_genes)
        old = self.classifier
        if n_types <= old.out_features:
            return
        new = nn.Linear(old.in_features, n_types).to(old.weight.device)
        with torch.no_grad():
            if not random_rows:
                new.weight.zero_()
                new.bias.fill_(float(old.bias.mean()))
            new.weight[: old.out_features] = old.weight
            new.bias[: old.out_features] = old.bias
        self.classifier = new
