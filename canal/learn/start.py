"""Where a stage's network starts: afresh, from the stage before, or from pre-trained weights.

Shapes: G genes of the panel, E token size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from canal.config import PerformerConfig, Preset
from canal.data.panel import GenePanel
from canal.encoders.performer import PerformerEncoder
from canal.encoders.published import PROJECTION, TABLE
from canal.errors import StageError
from canal.learn.network import Network
from canal.learn.pretrained import PretrainedWeights
from canal.seeds import torch_generator


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a network took of pre-trained weights: genes with a row of the table, and those without one."""

    genes: int
    without_row: int


def check_weights(weights: PretrainedWeights, preset: Preset) -> None:
    """Refuse a preset whose encoder cannot take the weights.

    Raises
    ------
    StageError
        If so.
    """
    encoder = preset.encoder
    if not isinstance(encoder, PerformerConfig):
        message = (
            f"Pre-trained weights are a Performer's; preset {preset.name!r} has the encoder {encoder.kind!r}. "
            "Use --preset canal."
        )
        raise StageError(message)
    if not weights.sizes.fits(encoder):
        wanted = weights.sizes.encoder_keys()
        different = [f"encoder.{k} = {getattr(encoder, k)}, the weights have {v}" for k, v in wanted.items()
                     if getattr(encoder, k) != v]  # fmt: skip
        message = f"The weights {weights.name} do not fit the preset: {'; '.join(different)}. Leave these keys out."
        raise StageError(message)


def take_weights(network: Network, weights: PretrainedWeights, panel: GenePanel, known: int, seed: int) -> Taken:
    """Put pre-trained weights into a network, in place; the rows of the table by gene.

    A gene without a row gets a vector drawn from the normal distribution that the rows of the table have, each number
    with its own mean and spread: the network then sees a gene that it does not know, of a kind that it does.

    Parameters
    ----------
    network
        On the genes of ``panel``.
    weights
        They fit its encoder: see `check_weights`.
    panel
        Gene panel of the stage.
    known
        Number of its genes that the network was trained on at an earlier stage. They keep their vectors, and with one
        or more such genes all other weights are kept, too.
    seed
        The stage's seed.
    """
    encoder = network.encoder
    assert isinstance(encoder, PerformerEncoder), type(encoder)
    vectors, has_row = gene_vectors(weights, panel, seed)
    with torch.no_grad():
        encoder.gene_emb.weight[known:] = vectors[known:]
    if known == 0:
        state = encoder.state_dict()
        trunk = {k: v for k, v in weights.tensors.items() if k in state and k != TABLE}
        assert len(trunk) + 4 + _unused(encoder, weights) == len(weights.tensors), "a tensor has no place"
        encoder.load_state_dict(state | trunk)
    fresh = has_row[known:]
    return Taken(genes=int(fresh.sum()), without_row=int((~fresh).sum()))


def gene_vectors(weights: PretrainedWeights, panel: GenePanel, seed: int) -> tuple[Tensor, Tensor]:
    """Return the vector of each panel gene, (G, E), and whether it is a row of the table, bool (G,)."""
    table = weights.tensors[TABLE][:-1].float()
    rows = torch.from_numpy(weights.rows(panel.match(weights.named.genes, weights.named.ensembl).columns))
    has_row = rows >= 0
    draw = torch_generator(seed, "genes without pre-trained vector")
    noise = torch.randn(len(panel), table.shape[1], generator=draw)
    drawn = table.mean(dim=0) + noise * table.std(dim=0, correction=0)
    return torch.where(has_row[:, None], table[rows.clamp(min=0)], drawn), has_row


def _unused(encoder: PerformerEncoder, weights: PretrainedWeights) -> int:
    """Count the projections that exact attention has no use for; gene table, head of 2 and a counter are 4 more."""
    if encoder.config.attention == "performer":
        return 0
    return sum(name.endswith(PROJECTION) for name in weights.tensors)
