"""Outputs of an encoder's frozen layers, computed once a stage and kept in a file.

Where the first layers of an encoder are never trained, as in the paper, their outputs are the same in every epoch and
for the previous model, as long as a cell is shown the same way each time. Genes that are hidden at random show it
another way each time, and then its outputs must be computed anew.

Shapes: N cells, B cells of a batch; the rest is the encoder's.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from canal.config import TrainingConfig
from canal.model.network import Network, PanelCells
from canal.progress import Progress, Silent


def can_precompute(network: Network, config: TrainingConfig) -> bool:
    """Tell whether there are frozen layers, and every cell goes through them the same way in every epoch."""
    return network.encoder.frozen_layers > 0 and config.gene_dropout[1] == 0 and config.gene_set_masking == 0


@dataclass(frozen=True)
class FrozenOutputs:
    """Outputs of the frozen layers for some cells, (cells, ...), in a file that is mapped into memory, and the cells.

    The file has no name: it is gone when nobody reads it any more, also after a kill.
    """

    outputs: Tensor
    cells: PanelCells

    @classmethod
    def of(
        cls,
        network: Network,
        cells: PanelCells,
        device: torch.device,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> "FrozenOutputs":
        """Run all cells through the frozen layers; the file is in ``folder``, or where temporary files go."""
        progress = progress or Silent()
        progress.start(len(cells), "layers that are not trained")
        encoder = network.encoder
        outputs: Tensor | None = None
        with torch.no_grad():
            for rows in cells.blocks(encoder.block):
                values, measured = cells.dense(rows)
                # Kept in the numbers of the encoder's products: bfloat16 halves the file.
                block = encoder.frozen_outputs(values.to(device), measured.to(device)).to(encoder.product_dtype).cpu()
                # The first block tells the shape of the file.
                if outputs is None:
                    outputs = _mapped_tensor((len(cells), *block.shape[1:]), block.dtype, folder)
                outputs[int(rows[0]) : int(rows[-1]) + 1] = block
                progress.advance(len(rows))
        progress.close()
        return cls(torch.zeros(0) if outputs is None else outputs, cells)

    def rows(self, rows: Tensor | np.ndarray) -> Tensor:
        """Return the outputs of some cells, float32."""
        return self.outputs[torch.as_tensor(rows)].float()

    @torch.no_grad()
    def representations(self, network: Network, progress: Progress | None = None) -> np.ndarray:
        """Return the representation of every cell in evaluation mode, float32 (cells, D)."""
        progress = progress or Silent()
        progress.start(len(self.cells), "representations")
        network.eval()
        device = next(network.parameters()).device
        blocks = [np.zeros((0, network.encoder.dim), np.float32)]
        for rows in self.cells.blocks(network.encoder.block):
            measured = self.cells.dense(rows)[1].to(device)
            representation = network.encoder.from_frozen(self.rows(rows).to(device), measured)
            blocks.append(representation.float().cpu().numpy())
            progress.advance(len(rows))
        progress.close()
        return np.concatenate(blocks)


def _mapped_tensor(shape: tuple[int, ...], dtype: torch.dtype, folder: Path | None) -> Tensor:
    """Return a tensor in a file that loses its name at once, so that nothing is left behind."""
    values = int(np.prod(shape))
    with tempfile.NamedTemporaryFile(dir=folder, prefix="frozen.") as file:
        file.truncate(values * dtype.itemsize)
        return torch.from_file(file.name, shared=True, size=values, dtype=dtype).view(shape)
