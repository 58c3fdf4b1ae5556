"""What an annotation says of novelty: score, p-value, verdict and the nearest reference cells."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from canal.data.pool import CellPool
from canal.detect.calibration import check_alpha, verdicts
from canal.errors import StageError
from canal.learn.annotator import GeneSetReader
from canal.learn.novelty import NoveltyReader

ALPHA = 0.05


@dataclass
class NoveltyColumns:
    """Collects the novelty of the cells of a file, block by block; each cell is judged by itself.

    Attributes
    ----------
    reader
        Detector for the genes of the file.
    bank
        The reference cells.
    alpha
        Share of known cells that may be called novel.
    neighbors
        Nearest reference cells to name.
    """

    reader: NoveltyReader
    bank: CellPool
    alpha: float
    neighbors: int
    _novelty: list[np.ndarray] = field(default_factory=list)
    _p_value: list[np.ndarray] = field(default_factory=list)
    _indices: list[np.ndarray] = field(default_factory=list)
    _distances: list[np.ndarray] = field(default_factory=list)

    def add(self, block: sp.csr_matrix) -> None:
        """Judge the cells of a block (cells, genes of the file)."""
        found = self.reader.score(block)
        self._novelty.append(found.novelty)
        self._p_value.append(found.p_value)
        if self.neighbors:
            near = self.reader.neighbours(block, self.neighbors)
            self._indices.append(near.indices)
            self._distances.append(near.distances)

    def facts(self) -> dict[str, Any]:
        """Return what the annotation says of its verdicts."""
        return {"alpha": self.alpha}

    def columns(self, best_known: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the columns by name, each (cells,)."""
        p_value = np.concatenate(self._p_value)
        found = {
            "best_known": best_known,
            "status": verdicts(p_value, self.alpha),
            "novelty": np.concatenate(self._novelty),
            "p_value": p_value,
        }
        return found | self._neighbor_columns()

    def _neighbor_columns(self) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        if not self.neighbors:
            return found
        rows, distances = np.concatenate(self._indices), np.concatenate(self._distances)
        for k in range(self.neighbors):
            of = rows[:, k]
            found[f"neighbor_{k + 1}"] = self.bank.names[of]
            found[f"neighbor_{k + 1}_type"] = self.bank.labels[of]
            found[f"neighbor_{k + 1}_stage"] = self.bank.stage[of]
            found[f"neighbor_{k + 1}_distance"] = distances[:, k]
        return found


def novelty_columns(
    reader: GeneSetReader, bank: CellPool, alpha: float | None, neighbors: int
) -> NoveltyColumns | None:
    """Return what collects the novelty, or ``None`` where the model cannot tell and nobody asked.

    Parameters
    ----------
    reader
        The model for the genes of the file.
    bank
        Its example bank.
    alpha
        Share of known cells that may be called novel; 0.05, if the model can tell, where ``None``.
    neighbors
        Nearest reference cells to name.

    Raises
    ------
    StageError
        If alpha is not between 0 and 1, or novelty or neighbours are asked of a model that has no calibration, no
        analytic memory or too small a bank.
    """
    if alpha is not None:
        check_alpha(alpha)
    if neighbors > len(bank):
        message = (
            f"{neighbors} nearest cells were asked for; the example bank of this stage has {len(bank)}. "
            "Ask for fewer with --neighbors."
        )
        raise StageError(message)
    asked = alpha is not None or neighbors > 0
    able = reader.annotator.novelty.stages or len(bank)
    detector = reader.novelty(bank) if able else None
    if detector is None and asked:
        message = (
            "This stage cannot tell novel cells: it has no analytic memory or no calibration (preset "
            f"{reader.annotator.preset.name!r}). Use a stage of preset 'compact', or leave out --alpha and --neighbors."
        )
        raise StageError(message)
    if detector is None:
        return None
    return NoveltyColumns(reader=detector, bank=bank, alpha=ALPHA if alpha is None else alpha, neighbors=neighbors)
