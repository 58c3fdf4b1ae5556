"""What trains scAnnoNet's gate and representation beside the classification loss.

L = CE + w1 mse(A, index) + w2 collinearity(Z) / B

Shapes: B cells, G genes, D representation.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from canal.encoders.scannonet import ScAnnoNetEncoder
from canal.learn._avalanche import SupervisedPlugin
from canal.learn.batches import Batches, PanelCells
from canal.learn.discriminative import discriminative_index
from canal.learn.network import Network


def gate_loss(gate_BG: Tensor, index_G: Tensor, measured_BG: Tensor) -> Tensor:
    """Mean squared difference of the gate to the discriminative index, over the measured genes."""
    squares_BG = (gate_BG - index_G) ** 2 * measured_BG
    return squares_BG.sum() / measured_BG.sum().clamp(min=1)


def collinearity_loss(rep_BD: Tensor) -> Tensor:
    """Return |sum of the off-diagonal entries of Z'Z| / (D^2 - D), divided by the cells of the batch.

    The published code divides by B^2 - D, with the cells of the batch in place of the D^2 entries of Z'Z: a batch of 8
    cells divides by 0 at D = 64, and a smaller one changes the sign.
    """
    b, d = rep_BD.shape
    # The entries of Z'Z sum to the squared row sums of Z, and its trace to the squares of Z.
    off_diagonal = rep_BD.sum(dim=1).square().sum() - rep_BD.square().sum()
    return off_diagonal.abs() / max(d * d - d, 1) / b


class GatePlugin(SupervisedPlugin):
    """Train a new gate alone towards the discriminative index, then add both losses to every batch.

    Parameters
    ----------
    encoder
        The encoder that is trained.
    index
        Discriminative index of the stage's training cells, float32 (G,).
    batches
        Mini-batches of the stage.
    """

    def __init__(self, encoder: ScAnnoNetEncoder, index: np.ndarray, batches: Batches) -> None:
        super().__init__()
        self.encoder, self.index, self.batches = encoder, torch.from_numpy(index), batches

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Train the gate alone, once in its life: a later stage goes on from the gate that there is."""
        self.index = self.index.to(strategy.device)
        if bool(self.encoder.gate_ready):
            return
        self.encoder.to(strategy.device).train()
        config = self.encoder.config
        optimizer = torch.optim.Adam(self.encoder.gate_parameters(), lr=config.gate_learning_rate)
        for _epoch in range(config.gate_epochs):
            for values, measured, *_rest in self.batches:
                optimizer.zero_grad()
                gate = self.encoder.gate(values.to(strategy.device))
                gate_loss(gate, self.index, measured.to(strategy.device)).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        self.encoder.gate_ready.fill_(True)

    def before_backward(self, strategy: Any, **_: Any) -> None:
        """Add the losses of the batch."""
        config, gate = self.encoder.config, self.encoder.gate_BG
        assert gate is not None, "the gate of the batch is kept in training mode alone"
        strategy.loss = (
            strategy.loss
            + config.gate_weight * gate_loss(gate.float(), self.index, strategy.mbatch[1])
            + config.collinearity_weight * collinearity_loss(strategy.mb_representation)
        )


def encoder_plugins(network: Network, cells: PanelCells, types: np.ndarray, batches: Batches) -> list[SupervisedPlugin]:
    """Return what the network's encoder asks for in training beside the classification loss."""
    if isinstance(network.encoder, ScAnnoNetEncoder):
        return [GatePlugin(network.encoder, discriminative_index(cells, types), batches)]
    return []
