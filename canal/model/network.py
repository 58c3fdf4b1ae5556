"""The network of a stage: an encoder, and a classifier that grows by new types.

With it stand the cells that it takes (`PanelCells`), where and in which numbers it computes, and how it is made from a
preset and run.

Shapes: N cells, B cells of a batch, G genes of the panel, S sources (files), D representation, C types.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from canal.config import CompactConfig, PerformerConfig, Preset, ScAnnoNetConfig
from canal.model.encoders.compact import CompactEncoder
from canal.model.encoders.contract import Encoder
from canal.model.encoders.performer import PerformerEncoder
from canal.model.encoders.scannonet import ScAnnoNetEncoder
from canal.progress import Progress, Silent
from canal.seeds import derived_seed


@dataclass(frozen=True, kw_only=True)
class PanelCells:
    """Cells on the gene panel.

    Attributes
    ----------
    values
        CSR float32 (cells, genes), natural ``log1p`` of values per 10,000.
    measured
        Genes that each source measured, bool (sources, genes).
    source
        Source of each cell, int (cells,).
    """

    values: sp.csr_matrix
    measured: np.ndarray
    source: np.ndarray

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def take(self, rows: np.ndarray) -> "PanelCells":
        """Return these cells, in this order."""
        return PanelCells(values=self.values[rows], measured=self.measured, source=self.source[rows])

    def dense(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return values (B, G) float32 and measured (B, G) bool of some rows."""
        # In memory of torch's own, aligned for matrix products: their rounding must not depend on where it lies.
        values = torch.empty(len(rows), self.values.shape[1])
        self.values[rows].toarray(out=values.numpy())
        return values, torch.from_numpy(self.measured[self.source[rows]])

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield the rows in blocks, in order."""
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)))


def join_cells(first: PanelCells, second: PanelCells) -> PanelCells:
    """Return the cells of both, those of ``second`` last."""
    return PanelCells(
        values=sp.vstack([first.values, second.values], format="csr"),
        measured=np.vstack([first.measured, second.measured]),
        source=np.concatenate([first.source, second.source + len(first.measured)]),
    )


def best_device() -> torch.device:
    """Return CUDA where it is present, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def product_dtype(precision: str) -> torch.dtype:
    """Return the numbers of large matrix products on a CPU: bfloat16 where asked for, or where the CPU has it.

    Without instructions for it (AVX512-BF16 or AMX) bfloat16 is slower than float32.
    """
    if precision == "bfloat16":
        return torch.bfloat16
    # Older versions of torch cannot tell what the CPU has.
    if precision != "auto" or not hasattr(torch.cpu, "get_capabilities"):
        return torch.float32
    instructions = torch.cpu.get_capabilities()
    has_bfloat16 = instructions.get("avx512_bf16") or instructions.get("amx_bf16")
    return torch.bfloat16 if has_bfloat16 else torch.float32


class seeded:
    """Draw dropout and initialisation from a seed within a ``with`` block, and leave the global generator as it was.

    torch's dropout and initialisers know no generator argument, so the global one is set for the time of the block.

    Parameters
    ----------
    seed
        The recorded seed.
    use
        Name of the use, from which and the seed the block's own seed is derived.
    device
        Device whose generator is set beside the CPU's.
    """

    def __init__(self, seed: int, use: str, device: torch.device | None = None) -> None:
        cuda = [0] if device is not None and device.type == "cuda" else []
        self._fork = torch.random.fork_rng(devices=cuda)
        self._seed = derived_seed(seed, use)

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *exception: object) -> None:
        self._fork.__exit__(*exception)  # type: ignore[arg-type]


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

    def from_frozen(self, frozen_outputs: Tensor, measured_BG: Tensor) -> tuple[Tensor, Tensor]:
        """Return representation (cells, D) and logits (cells, C) from the outputs of the encoder's frozen layers."""
        rep_BD = self.encoder.from_frozen(frozen_outputs, measured_BG)
        return rep_BD, self.classifier(rep_BD)

    def grow(self, n_genes: int, n_types: int, *, random_rows: bool = False) -> None:
        """Make room for more genes and types; old weights and old classifier rows are kept.

        New rows start at zero, below any trained evidence: a fresh row of random direction would claim cells of old
        types before it has seen one of its own. ``random_rows`` leaves them as a new layer has them, as the paper.
        """
        self.encoder.grow(n_genes)
        # The classifier grows only where types are new.
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


def weights_of(network: Network) -> dict[str, np.ndarray]:
    """Return a copy of a network's weights, by the names of its state."""
    return {name: np.array(value.detach().cpu().numpy()) for name, value in network.state_dict().items()}


def run_network(network: Network, cells: PanelCells, progress: Progress | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (cells, types) and representations (cells, D) in evaluation mode, a block at a time."""
    progress = progress or Silent()
    progress.start(len(cells), "representations")
    device = best_device()
    network.to(device).eval()
    logits = [np.zeros((0, network.classifier.out_features), np.float32)]
    representations = [np.zeros((0, network.encoder.dim), np.float32)]
    with torch.no_grad():
        for rows in cells.blocks(network.encoder.block):
            values, measured = cells.dense(rows)
            rep_BD, logits_BC = network(values.to(device), measured.to(device))
            logits.append(logits_BC.float().cpu().numpy())
            representations.append(rep_BD.float().cpu().numpy())
            progress.advance(len(rows))
    progress.close()
    network.to("cpu")
    return np.concatenate(logits), np.concatenate(representations)


def new_network(preset: Preset, n_genes: int, n_types: int, seed: int) -> Network:
    """Return a freshly initialised network; its weights follow from the seed."""
    with seeded(seed, "weights"):
        network = Network(build_encoder(preset.encoder, n_genes), n_types)
    network.encoder.product_dtype = product_dtype(preset.training.precision)
    return network


def build_encoder(config: CompactConfig | PerformerConfig | ScAnnoNetConfig, n_genes: int) -> Encoder:
    """Return a freshly initialised encoder; the global torch seed decides its weights."""
    match config:
        case CompactConfig():
            return CompactEncoder(config, n_genes)
        case PerformerConfig():
            return PerformerEncoder(config, n_genes)
        case ScAnnoNetConfig():
            return ScAnnoNetEncoder(config, n_genes)
