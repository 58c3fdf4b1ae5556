"""Linear discriminants among the ridge scores: which type's scores a cell's are most like.

The ridge scores of the analytic memory are the right coordinates, but the largest of them is the wrong answer: a type's
own score is .9 in one type and .4 in another, and the scores of kin rise together. In the space of the C scores every
type has a centre and all share one spread, both known from the memory's statistics without a cell: for the solution W
and a class of mean m, directions F and rest v, the centre is ``m W`` and the covariance ``(F W)'(F W) + W' diag(v) W``.

Shapes: n cells, C types, K classes (a type of a stage).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg

# All four chosen on left-out data sets of the immune and pancreas streams, on known technologies and on streams whose
# types come one after the other; the answer changes little between half and twice of each.
CENTRE_CELLS = 5.0  # a type of n cells keeps n / (n + this) of its distance to the centre of all types
AMPLITUDE = 0.05  # standard deviation of a cell's amplitude around 1: another technology shrinks all scores of a cell
COVARIANCE_RIDGE = 1e-3  # share of its mean variance that the covariance gets in every direction
LEAST_VARIANCE = 1e-12  # keeps the covariance invertible where a file shows no gene of the memory


@dataclass(frozen=True, kw_only=True)
class ScoreMoments:
    """Where the classes of the memory lie among its ridge scores, and how they spread.

    Attributes
    ----------
    means
        Mean scores of each class, float64 (K, C).
    n
        Cells of each class, (K,).
    types
        Position of each class's type among the scores, (K,).
    covariance
        Mean covariance within the classes, each weighted by the root of its cells, float64 (C, C).
    """

    means: np.ndarray
    n: np.ndarray
    types: np.ndarray
    covariance: np.ndarray

    @cached_property
    def cells(self) -> np.ndarray:
        """Cells of each type, zero for one that the memory has no statistics of, (C,)."""
        return np.bincount(self.types, weights=self.n, minlength=len(self.covariance))

    @cached_property
    def centres(self) -> np.ndarray:
        """Centre of each type, (C, C): what a new cell of it will score on average.

        The stages of a type count by the root of their cells. The ridge fits the noise of a mean of few cells, so that
        the mean scores of a small type are better than those of its cells to come: two cells of a type have a mean of
        .78, a new one scores .06. So a centre is drawn towards the centre of all types, the more the fewer its cells.
        """
        roots = np.sqrt(self.n)
        # The mean of each type over its classes.
        means, weights = np.zeros_like(self.covariance), np.zeros(len(self.covariance))
        np.add.at(means, self.types, roots[:, None] * self.means)
        np.add.at(weights, self.types, roots)
        means /= np.maximum(weights, LEAST_VARIANCE)[:, None]
        # Drawn towards the centre of all.
        root_cells = np.sqrt(self.cells)
        grand = root_cells @ means / max(float(root_cells.sum()), LEAST_VARIANCE)
        kept = (self.cells / (self.cells + CENTRE_CELLS))[:, None]
        return np.asarray(kept * means + (1.0 - kept) * grand)

    @cached_property
    def precision(self) -> np.ndarray:
        """Inverse of the covariance within classes, (C, C)."""
        covariance = self.covariance.copy()
        mean_variance = float(np.trace(covariance)) / max(len(covariance), 1)
        covariance[np.diag_indices_from(covariance)] += COVARIANCE_RIDGE * mean_variance + LEAST_VARIANCE
        return np.asarray(scipy.linalg.inv(covariance, check_finite=False))

    @cached_property
    def discriminants(self) -> "Discriminants":
        """The discriminants of these classes."""
        directions = self.precision @ self.centres.T
        return Discriminants(
            directions=directions,
            lengths=np.einsum("tc,ct->t", self.centres, directions),
            known=self.cells > 0,
        )


@dataclass(frozen=True, kw_only=True)
class Discriminants:
    """The discriminants, ready for cells.

    Attributes
    ----------
    directions
        From scores to their whitened product with each centre, (C, C).
    lengths
        Squared whitened length of each centre, (C,).
    known
        Types that the memory has statistics of, bool (C,).
    """

    directions: np.ndarray
    lengths: np.ndarray
    known: np.ndarray

    def of(self, scores: np.ndarray) -> np.ndarray:
        """Return the log-density of ridge scores (n, C) under each type, less what all types share, float32 (n, C).

        A cell of type t has the scores ``a centre_t + noise`` with an amplitude ``a ~ N(1, AMPLITUDE^2)`` of its own
        that is fitted. A type without statistics gets the least of the others.
        """
        products = scores.astype(np.float64) @ self.directions
        # The amplitude of highest density, and the density there.
        stiffness = AMPLITUDE**-2
        amplitudes = (products + stiffness) / (self.lengths + stiffness)
        density = amplitudes * products - 0.5 * (amplitudes**2 * self.lengths + stiffness * (amplitudes - 1.0) ** 2)
        # Nothing is known of the types that come from the network alone.
        if not self.known.any():
            return np.zeros_like(scores, dtype=np.float32)
        density[:, ~self.known] = density[:, self.known].min(axis=1, keepdims=True)
        return np.asarray(density, dtype=np.float32)
