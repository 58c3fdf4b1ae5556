"""What scAnnoNet's training adds: the discriminative index of genes, and the two losses that use it.

The loss of a batch is ``CE + w1 mse(A, index) + w2 collinearity(Z) / B``, with the gate A and the representation Z.

The index of a gene is its Fisher score on the training cells (scAnnoNet's LDF). The published score is
S_b / (S_w + 2 beta S_w), min-max scaled over the genes; beta cancels there, so the index is the scaled Fisher score. It
has a closed form by type means, without the cells x cells matrices of the published code.

Shapes: N cells, B cells of a batch, G genes, S sources, C types, D representation.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from canal.model.encoders.scannonet import ScAnnoNetEncoder
from canal.model.network import Network, PanelCells
from canal.training.avalanche import SupervisedPlugin
from canal.training.batches import Batches

NO_SPREAD = 1e-12  # sums of squares below this are rounding


def discriminative_index(cells: PanelCells, types: np.ndarray) -> np.ndarray:
    """Return the index of each gene, float32 (genes,) in [0, 1].

    A gene is scored over the cells whose file measured it. A gene without any spread has 0; one that varies between
    types and not at all within them has 1.

    Parameters
    ----------
    cells
        Training cells.
    types
        Index of the type of each cell, int (cells,).
    """
    within, between = _sums_of_squares(cells, types)
    score = np.divide(between, within, out=np.zeros_like(within), where=within > NO_SPREAD)
    # A gene that separates the types without any spread within them has no finite score: it gets the highest.
    perfect = (within <= NO_SPREAD) & (between > NO_SPREAD)
    score[perfect] = score.max(initial=0.0)
    # Scaled to [0, 1] over the genes.
    low, high = score.min(initial=np.inf), score.max(initial=0.0)
    if not high > low:
        return np.where(perfect, 1.0, 0.0).astype(np.float32)
    return np.asarray((score - low) / (high - low), dtype=np.float32)


def _sums_of_squares(cells: PanelCells, types: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of squares within and between types of each gene, two float64 (genes,)."""
    n = len(cells)
    n_types, n_sources = int(types.max(initial=-1)) + 1, len(cells.measured)
    # Cells of each type whose file measured the gene.
    of_type = sp.csr_matrix((np.ones(n), (types, np.arange(n))), shape=(n_types, n))
    of_source = sp.csr_matrix((np.ones(n), (np.arange(n), cells.source)), shape=(n, n_sources))
    counts_CG = np.asarray((of_type @ of_source).toarray() @ cells.measured.astype(np.float64))
    # Sums and sums of squares of the values; those of the means follow from them.
    values = cells.values.astype(np.float64)
    sums_CG = np.asarray((of_type @ values).toarray())
    squares_G = np.asarray(values.multiply(values).sum(axis=0)).ravel()
    by_type_G = _mean_square(sums_CG, counts_CG).sum(axis=0)
    whole_G = _mean_square(sums_CG.sum(axis=0), counts_CG.sum(axis=0))
    return np.maximum(squares_G - by_type_G, 0.0), np.maximum(by_type_G - whole_G, 0.0)


def _mean_square(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return n mean^2 = sum^2 / n; 0 where there is no cell."""
    return np.asarray(np.divide(sums**2, counts, out=np.zeros_like(sums), where=counts > 0))


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
        """Train a new gate alone; a later stage goes on with the gate of the stage before."""
        self.index = self.index.to(strategy.device)
        if bool(self.encoder.gate_ready):
            return
        self.encoder.to(strategy.device).train()
        # The gate alone: nothing but its own loss moves it.
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
        """Add the two losses of the batch."""
        config, gate = self.encoder.config, self.encoder.gate_BG
        assert gate is not None, "the gate of the batch is kept in training mode alone"
        strategy.loss = (
            strategy.loss
            + config.gate_weight * gate_loss(gate.float(), self.index, strategy.mbatch[1])
            + config.collinearity_weight * collinearity_loss(strategy.mb_representation)
        )


def encoder_plugins(network: Network, cells: PanelCells, types: np.ndarray, batches: Batches) -> list[SupervisedPlugin]:
    """Return the plugins that the network's encoder needs in training; none but for scAnnoNet's."""
    if isinstance(network.encoder, ScAnnoNetEncoder):
        return [GatePlugin(network.encoder, discriminative_index(cells, types), batches)]
    return []
