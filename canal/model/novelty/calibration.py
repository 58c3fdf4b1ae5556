"""Calibration of novelty: what is kept to turn novelties into p-values with a known rate of false alarms.

At every stage the known cells that the model was not fitted to are scored; their novelties are kept, no profile. They
are standardised by type (see `canal.model.novelty.scores.TypeScale`), so that one table serves all types of a stage. A
cell of a file is compared with the tables of the stages that measured similar genes, and with the cells of the example
bank through the genes of the file: its p-value is the weighted share of these known cells whose novelty is at least as
high.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from canal.errors import StageError
from canal.files import refuse_newer

FORMAT = 2  # 1 had no low and high
SIMILARITY_POWER = 6.0  # the weight of a stage falls with this power of the similarity of its genes to the file's
DOUBT = 2.0  # p-values up to this many alphas are uncertain


@dataclass(frozen=True, kw_only=True)
class HeldOutNovelties:
    """Novelties of the known cells that were held out at one stage.

    Attributes
    ----------
    stage
        Number of the stage.
    genes
        Number of genes of its file.
    novelty
        Of its held-out cells, seen through its genes by a memory without them, (m,).
    low, high
        Usual and high novelty of cells drawn from the stage's own statistics, at that stage; see `rescaled`.
    """

    stage: int
    genes: int
    novelty: np.ndarray
    low: float
    high: float

    def rescaled(self, low: float, high: float) -> np.ndarray:
        """Return the novelties on the scale of a later model, (m,).

        A later stage changes the scale on which the cells of a type are scored. It changes likewise for cells drawn
        from the stage's statistics, which can be drawn again at any time: the held-out cells keep their place beside
        them.

        Parameters
        ----------
        low, high
            Usual and high novelty of cells drawn from the stage's statistics, by the later model.
        """
        if self.high <= self.low:
            return self.novelty  # of format 1, which did not keep the drawn cells' novelty
        return np.asarray(low + (self.novelty - self.low) * (high - low) / (self.high - self.low))

    def trust(self, low: float, high: float) -> float:
        """Return the weight of the novelties of `rescaled`, 0 to 1, lower the further the scale has moved.

        Real cells move further than drawn ones where later stages are of another kind; then the cells of the bank,
        which the later model has scored itself, count more. The weight falls as fast as with the similarity of genes.

        Parameters
        ----------
        low, high
            As for `rescaled`.
        """
        if self.high <= self.low:
            return 1.0  # of format 1
        moved = max(abs(low - self.low), abs(high - self.high)) / (self.high - self.low)
        return float(max(1.0 - moved, 0.0) ** SIMILARITY_POWER)


@dataclass(frozen=True, kw_only=True)
class NoveltyCalibration:
    """What is kept of every stage to turn novelties into p-values; a few bytes a held-out cell.

    Attributes
    ----------
    stages
        One entry a stage.
    """

    stages: tuple[HeldOutNovelties, ...] = ()

    def with_stage(self, held_out: HeldOutNovelties) -> "NoveltyCalibration":
        """Return the calibration with one more stage; an entry of the same number is replaced."""
        return NoveltyCalibration(stages=(*self.without_stage(held_out.stage).stages, held_out))

    def without_stage(self, stage: int) -> "NoveltyCalibration":
        """Return the calibration as if the stage had never been."""
        return NoveltyCalibration(stages=tuple(s for s in self.stages if s.stage != stage))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        stages = []
        for held_out in self.stages:
            entry = {
                "stage": held_out.stage,
                "genes": held_out.genes,
                "low": round(held_out.low, 4),
                "high": round(held_out.high, 4),
                "novelty": [round(novelty, 4) for novelty in held_out.novelty.tolist()],
            }
            stages.append(entry)
        return {"format": FORMAT, "stages": stages}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "NoveltyCalibration":
        """Return the calibration of `to_dict`'s values.

        Raises
        ------
        RegistryError
            If a newer canal wrote them.
        """
        refuse_newer("The novelty calibration", values["format"], FORMAT)
        stages = []
        for entry in values["stages"]:
            held_out = HeldOutNovelties(
                stage=int(entry["stage"]),
                genes=int(entry["genes"]),
                novelty=np.array(entry["novelty"], dtype=np.float64),
                low=float(entry.get("low", 0.0)),
                high=float(entry.get("high", 0.0)),
            )
            stages.append(held_out)
        return cls(stages=tuple(stages))


def check_alpha(alpha: float) -> float:
    """Return the rate of false alarms that was asked for.

    Raises
    ------
    StageError
        If it is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        message = (
            f"alpha is {alpha:g}; expected a share between 0 and 1, such as 0.05: "
            "the share of known cells that may be called novel."
        )
        raise StageError(message)
    return alpha


def verdicts(p_values: np.ndarray, alpha: float) -> np.ndarray:
    """Call each cell ``"novel"``, ``"uncertain"`` or ``"known"``.

    Parameters
    ----------
    p_values
        Of shape (n,).
    alpha
        Share of known cells that may be called novel; p-values above it, up to `DOUBT` times as high, are uncertain.

    Returns
    -------
    Strings of dtype object, (n,). Each depends on its own p-value alone.

    Raises
    ------
    StageError
        If alpha is not between 0 and 1.
    """
    check_alpha(alpha)
    status = np.full(len(p_values), "known", dtype=object)
    status[p_values <= DOUBT * alpha] = "uncertain"
    status[p_values <= alpha] = "novel"
    return status
