"""What an annotation says of novelty: score, p-value, verdict and the nearest reference cells."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from canal.data.pool import CellPool
from canal.detect.calibration import check_alpha, verdicts
from canal.errors import StageError
from canal.learn.reader import GeneSetReader, Prediction
from canal.stages.answers import Answers

ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class NoveltyColumns:
    """What an annotation is to say of novelty; each cell is judged by itself.

    Attributes
    ----------
    reader
        The model for the genes of the file, judging.
    bank
        The reference cells.
    alpha
        Share of known cells that may be called novel.
    neighbors
        Nearest reference cells to name.
    """

    reader: GeneSetReader
    bank: CellPool
    alpha: float
    neighbors: int

    def add(self, found: Prediction) -> None:
        """Nothing is kept of the cells: their answers hold all."""

    def facts(self) -> dict[str, Any]:
        """Return the rate of false alarms."""
        return {"alpha": self.alpha}

    def columns(self, answers: Answers, best_known: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the columns by name, each (cells,)."""
        assert answers.novelty is not None
        found = {
            "best_known": best_known,
            "status": verdicts(answers.novelty.p_value, self.alpha),
            "novelty": answers.novelty.novelty,
            "p_value": answers.novelty.p_value,
        }
        return found | self._neighbor_columns(answers)

    def _neighbor_columns(self, answers: Answers) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        near = answers.neighbours
        for k in range(0 if near is None else near.k):
            assert near is not None
            of = near.indices[:, k]
            found[f"neighbor_{k + 1}"] = self.bank.names[of]
            found[f"neighbor_{k + 1}_type"] = self.bank.labels[of]
            found[f"neighbor_{k + 1}_stage"] = self.bank.stage[of]
            found[f"neighbor_{k + 1}_distance"] = near.distances[:, k]
        return found


def novelty_columns(
    reader: GeneSetReader, bank: CellPool, alpha: float | None, neighbors: int
) -> NoveltyColumns | None:
    """Return what is said of novelty, or ``None`` where the model cannot tell and nobody asked.

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
    return NoveltyColumns(
        reader=reader.judging(detector), bank=bank, alpha=ALPHA if alpha is None else alpha, neighbors=neighbors
    )
