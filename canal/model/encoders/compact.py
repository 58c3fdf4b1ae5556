"""The default encoder on a CPU: a perceptron on scale-free profiles.

- a profile is divided by its length over the measured genes, so that depth and gene set matter little
- a gene that was not measured adds nothing; genes that enter the panel later start with zero weights
- layer normalisation and GELU, because profiles seen through few genes are shorter sums

Shapes: B cells, G genes, D representation.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from canal.config import CompactConfig
from canal.model.encoders.compact_arrays import SCALE
from canal.model.encoders.contract import BatchDropout, Encoder, grown_linear


class CompactEncoder(Encoder):
    """Perceptron with one hidden layer; see the module's text.

    Parameters
    ----------
    config
        Sizes and dropout.
    n_genes
        Genes of the panel.
    """

    def __init__(self, config: CompactConfig, n_genes: int) -> None:
        super().__init__()
        self.config = config
        self.n_genes = n_genes
        self.dim = config.dim
        self.block = 1024
        self.fc1 = nn.Linear(n_genes, config.hidden)
        self.norm1 = nn.LayerNorm(config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.dim)
        self.norm2 = nn.LayerNorm(config.dim)
        self.dropout = BatchDropout(config.dropout)

    def _encode(self, values_BG: Tensor, measured_BG: Tensor) -> Tensor:
        del measured_BG  # an unmeasured gene has value 0 and adds nothing
        # A profile divided by its Euclidean length; one of zeros stays zero.
        x_BG = F.normalize(values_BG, dim=1) * SCALE
        h_BH = self.dropout(F.gelu(self.norm1(self.fc1(x_BG))))
        return F.gelu(self.norm2(self.fc2(h_BH)))

    def grow(self, n_genes: int) -> None:
        """Add genes with zero weights: a cell that does not have them keeps its representation exactly."""
        if n_genes > self.n_genes:
            self.fc1 = grown_linear(self.fc1, n_genes).to(self.fc1.weight.device)
            self.n_genes = n_genes
