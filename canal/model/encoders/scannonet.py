"""A perceptron behind a gate that weighs each gene of each cell (scAnnoNet, 2025).

- gate: A = sigmoid(W2 dropout(tanh(W1 x + b1)) + b2), a weight for every gene of every cell
- perceptron on x * A with one hidden layer and a ReLU representation
- training pulls the gate towards the discriminative index of each gene: `canal.training.scannonet`
- a gene that was not measured has value 0 and adds nothing; genes that enter later start with zero weights

Shapes: B cells, G genes, H hidden, D representation.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from canal.config import ScAnnoNetConfig
from canal.model.encoders.contract import Encoder, grown_linear


class ScAnnoNetEncoder(Encoder):
    """Gate and perceptron; see the module's text.

    Attributes
    ----------
    gate_BG
        Weights of the genes in the last batch of training, ``None`` outside of training.
    gate_ready
        Whether the gate has been trained alone, bool scalar; saved with the weights.

    Parameters
    ----------
    config
        Sizes, dropout and how the gate is trained.
    n_genes
        Genes of the panel.
    """

    gate_ready: Tensor

    def __init__(self, config: ScAnnoNetConfig, n_genes: int) -> None:
        super().__init__()
        self.config = config
        self.n_genes = n_genes
        self.dim = config.dim
        self.block = 1024
        self.gate_in = nn.Linear(n_genes, config.gate)
        self.gate_out = nn.Linear(config.gate, n_genes)
        self.fc1 = nn.Linear(n_genes, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.gate_BG: Tensor | None = None
        self.register_buffer("gate_ready", torch.tensor(False))
        for layer in (self.gate_in, self.gate_out, self.fc1, self.fc2):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def gate(self, values_BG: Tensor) -> Tensor:
        """Return the weight of every gene of every cell, between 0 and 1, (cells, genes)."""
        return torch.sigmoid(self.gate_out(self.dropout(torch.tanh(self.gate_in(values_BG)))))

    def gate_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the gate alone."""
        return [*self.gate_in.parameters(), *self.gate_out.parameters()]

    def _encode(self, values_BG: Tensor, measured_BG: Tensor) -> Tensor:
        del measured_BG  # an unmeasured gene has value 0 and adds nothing, neither here nor to the gate
        gate_BG = self.gate(values_BG)
        self.gate_BG = gate_BG if self.training else None
        h_BH = self.dropout(F.relu(self.fc1(values_BG * gate_BG)))
        return F.relu(self.fc2(h_BH))

    def grow(self, n_genes: int) -> None:
        """Add genes with zero weights: a cell that does not have them keeps its representation exactly."""
        if n_genes <= self.n_genes:
            return
        device = self.fc1.weight.device
        self.gate_in = grown_linear(self.gate_in, n_genes).to(device)
        self.gate_out = _more_rows(self.gate_out, n_genes).to(device)
        self.fc1 = grown_linear(self.fc1, n_genes).to(device)
        self.n_genes = n_genes


def _more_rows(layer: nn.Linear, out_features: int) -> nn.Linear:
    """Return a linear layer with more outputs, the old rows kept and the new ones zero."""
    new = nn.Linear(layer.in_features, out_features)
    with torch.no_grad():
        for new_values, old_values in ((new.weight, layer.weight), (new.bias, layer.bias)):
            new_values.zero_()
            new_values[: len(old_values)] = old_values
    return new
