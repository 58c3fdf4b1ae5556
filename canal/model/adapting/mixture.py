"""What is estimated from the cells of a file: a shift of the memory's scores, and where its types lie in the file.

Expectation and maximisation by turns, from the model's plain answer. Each type has a Gaussian among the file's
principal components, all of one covariance. Its centre starts where the memory's mean of the type lies, moved by what
the types of the file have in common, and follows the file's own cells as far as there are enough of them. The same
common move is taken off the ridge scores. Both moves are shrunk by how well the types agree on them (James-Stein): a
file of known technology, or one whose types contradict each other, is not moved.

Shapes: n cells, C types, d components.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from canal.model.discriminants import ScoreMoments
from canal.model.model import Fusion

# All chosen on left-out data sets of the immune and pancreas streams and on hard files made from them (docs/unseen.md);
# the gains change little between half and twice of each.
ROUNDS = 10
OWN_CELLS = 30.0  # cells of the file that count as much for a centre as the memory, and for a move as full weight
MOVES = 1.0  # types' worth of evidence against any move
SPREAD_SHRINKAGE = 0.1  # share of the covariance that becomes its mean variance in every direction
GROUP_WEIGHT = 4.5 / 15**0.5  # of a Gaussian's log-density beside a discriminant: components are no independent genes
LEAST_SHARE = 1e-6  # of a type among the cells


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Cells of a file as the model sees them.

    Attributes
    ----------
    logits
        Of the network, (n, C).
    scores
        Ridge scores of the memory, (n, C).
    coordinates
        Among the file's principal components, (n, d).
    """

    logits: np.ndarray
    scores: np.ndarray
    coordinates: np.ndarray

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, rows: np.ndarray) -> "Sample":
        """Return some of the cells."""
        return Sample(logits=self.logits[rows], scores=self.scores[rows], coordinates=self.coordinates[rows])


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the model knows of the types before it sees the file.

    Attributes
    ----------
    moments
        Where the classes of the memory lie among its scores.
    fusion
        How network and memory are joined.
    centres
        The memory's mean profile of each type among the file's principal components, (C, d).
    """

    moments: ScoreMoments
    fusion: Fusion
    centres: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What was estimated.

    Attributes
    ----------
    shift
        What is taken off the ridge scores, (C,).
    move
        How far the memory's centres move together among the components, (d,).
    centres
        Centre of each type in the file, (C, d).
    precision
        Inverse of the covariance around them, (d, d).
    shares
        Share of each type among the cells, (C,).
    """

    shift: np.ndarray
    move: np.ndarray
    centres: np.ndarray
    precision: np.ndarray
    shares: np.ndarray

    def memory_answer(self, known: Known, scores: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
        """Return what stands in the place of the memory's discriminants, float64 (n, C).

        Parameters
        ----------
        known
            As at `fit_mixture`.
        scores, coordinates
            Of any cells of the file, (n, C) and (n, d).
        """
        shifted = known.moments.discriminants.of(scores - self.shift).astype(np.float64)
        # The log-density of each type's Gaussian, less what all types share.
        directions = self.precision @ self.centres.T
        density = coordinates @ directions - 0.5 * np.einsum("td,dt->t", self.centres, directions)
        density -= density.max(axis=1, keepdims=True)
        return np.asarray(shifted + GROUP_WEIGHT * density + np.log(np.maximum(self.shares, LEAST_SHARE)))


def fit_mixture(sample: Sample, known: Known) -> Mixture:
    """Estimate the mixture from some cells of a file.

    Parameters
    ----------
    sample
        The cells, two at least.
    known
        What the model knows of the types.
    """
    moments, fusion = known.moments, known.fusion
    # Cells that the memory's own centre of each type counts for, fewer where the type was taught from few.
    prior = np.where(moments.cells > 0, 1.0 / (1.0 / OWN_CELLS + 1.0 / np.maximum(moments.cells, 1e-9)), 0.0)
    answer = moments.discriminants.of(sample.scores).astype(np.float64)
    mixture = None
    for _ in range(ROUNDS):
        # Expectation: how probable each type is for each cell.
        probability = softmax(fusion.evidence(sample.logits, answer).astype(np.float64) / fusion.memory, axis=1)
        # Maximisation: the types' own means, and the covariance around them.
        mass = probability.sum(axis=0)
        total = np.maximum(mass, 1e-9)[:, None]
        means = probability.T @ sample.coordinates / total
        scatter = sample.coordinates.T @ sample.coordinates - (means.T * mass) @ means
        precision = _precision(scatter / len(sample))
        # What all types have in common: types with many cells, in the file and in the memory, say most.
        weights = mass / (mass + OWN_CELLS) * prior / OWN_CELLS
        move = _common_move(means - known.centres, weights, precision)
        shift = _common_move(probability.T @ sample.scores / total - moments.centres, weights, moments.precision)
        centres = (mass[:, None] * means + prior[:, None] * (known.centres + move)) / np.maximum(mass + prior, 1e-9)[
            :, None
        ]
        shares = mass / mass.sum()
        mixture = Mixture(shift=shift, move=move, centres=centres, precision=precision, shares=shares)
        answer = mixture.memory_answer(known, sample.scores, sample.coordinates)
    assert mixture is not None
    return mixture


def _precision(covariance: np.ndarray) -> np.ndarray:
    """Return the inverse of a covariance (d, d), a share of which becomes its mean variance."""
    d = len(covariance)
    mean_variance = float(np.trace(covariance)) / d
    even = (SPREAD_SHRINKAGE * mean_variance + 1e-9) * np.eye(d)
    return np.asarray(np.linalg.inv((1.0 - SPREAD_SHRINKAGE) * covariance + even))


def _common_move(moves: np.ndarray, weights: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return the mean of the types' moves, shrunk to nothing the more they differ from each other.

    Parameters
    ----------
    moves
        Of each type, (C, k).
    weights
        How much each type says, (C,).
    precision
        What a move is measured by, (k, k).
    """
    total = float(weights.sum())
    if total < 1e-9:
        return np.zeros(moves.shape[1])
    mean = weights @ moves / total
    # The spread of the moves around their mean, divided by the number of types that it rests on.
    types = total**2 / float((weights**2).sum())
    away = moves - mean
    spread = float(weights @ np.einsum("tk,kl,tl->t", away, precision, away)) / total
    size = float(mean @ precision @ mean)
    kept = max(0.0, 1.0 - spread / (max(types - 1.0, 0.1) * max(size, 1e-9))) * total / (total + MOVES)
    return np.asarray(kept * mean)
