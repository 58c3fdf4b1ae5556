"""Novel by a threshold of the highest probability (scBERT calls such cells "Unassigned"; its threshold is 0.5).

The simplest detector: it needs nothing but the model's answer, and knows no rate of false alarms.

Shapes: n cells.

The paper's rule for novel cells, whose verdict on a cell depends on the other cells of its file.

CANAL (Wan et al., 2024, "novel cell detection"): a cell's score is the mean of its energy, scaled to [0, 1] by the
lowest and the highest of the file, and of one less its largest probability. The threshold comes from mixes of the
file's cells, drawn in pairs. The paper mixes what its hidden layer says of two cells; our classifier is linear in the
representation, so that a mix of two representations has the same mix of their logits.

Shapes: n cells of the file, C types, P pairs.
"""

from dataclasses import dataclass

import numpy as np

from canal.errors import StageError
from canal.model.novelty.scores import energy, max_probability

PUBLISHED = 0.5


@dataclass(frozen=True, kw_only=True)
class ProbabilityVerdicts:
    """What the threshold says of cells: novelty 1 - p, float32 (n,), and ``"known"`` or ``"novel"``, (n,)."""

    novelty: np.ndarray
    status: np.ndarray


def probability_verdicts(highest: np.ndarray, threshold: float) -> ProbabilityVerdicts:
    """Call a cell novel whose highest probability is below the threshold.

    Parameters
    ----------
    highest
        Highest probability of any known type, (n,).
    threshold
        Between 0 and 1.
    """
    status = np.where(highest < threshold, "novel", "known").astype(object)
    return ProbabilityVerdicts(novelty=(1.0 - highest).astype(np.float32), status=status)


def check_threshold(threshold: float) -> None:
    """Refuse what is no probability to compare with.

    Raises
    ------
    StageError
        If the threshold is not above 0 and at most 1.
    """
    if not 0.0 < threshold <= 1.0:
        message = (
            f"--min-probability is {threshold:g}; expected a number above 0 and at most 1. scBERT takes {PUBLISHED}."
        )
        raise StageError(message)


TEMPERATURE = 0.8  # T of the paper's energy
WEIGHTS = 128  # mixes of each pair, their weights uniform in [0, 1]: the paper's Beta(1, 1)
PAIRS = 1_000  # the mean over this many settles the threshold to the third decimal


@dataclass(frozen=True, kw_only=True)
class Mixes:
    """Which cells of a file are mixed.

    Attributes
    ----------
    first, second
        Rows of the pairs, (P,).
    weights
        Of the first cell of a pair, (W,).
    """

    first: np.ndarray
    second: np.ndarray
    weights: np.ndarray

    @classmethod
    def draw(cls, cells: int, rng: np.random.Generator) -> "Mixes":
        """Draw a partner for each cell, or for `PAIRS` of them where there are more.

        Parameters
        ----------
        cells
            Number of cells of the file, n.
        rng
            Draws pairs and weights.
        """
        first = np.arange(cells) if cells <= PAIRS else np.sort(rng.choice(cells, PAIRS, replace=False))
        return cls(first=first, second=rng.integers(cells, size=len(first)), weights=rng.random(WEIGHTS))

    @property
    def rows(self) -> np.ndarray:
        """Rows that are mixed, ascending."""
        return np.union1d(self.first, self.second)


def transductive_scores(confidence: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Return the paper's score of every cell of a file, 0 to 1 and higher for newer, (n,).

    Parameters
    ----------
    confidence
        Largest probability of each cell, (n,).
    energies
        Energy of each cell at `TEMPERATURE`, (n,).
    """
    return np.asarray((_min_max(energies) + 1.0 - confidence) / 2.0)


def transductive_threshold(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    """Return the score above which a cell of the file is novel: one less the mean score of mixed cells.

    Parameters
    ----------
    first, second
        Logits of the cells of each pair, (P, C).
    weights
        Of the first, (W,).
    """
    w = weights.astype(np.float32)[None, :, None]
    mixes = (w * first[:, None, :] + (1 - w) * second[:, None, :]).reshape(-1, first.shape[1])
    scores = transductive_scores(1.0 - max_probability(mixes), energy(mixes, TEMPERATURE))
    return float(1.0 - scores.mean())


def _min_max(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low)) if high > low else np.zeros(len(values))
