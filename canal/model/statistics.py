"""What the analytic memory keeps of the cells of one type.

Shapes: n cells, g genes, k factors.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import scipy.sparse as sp

MOST_ROWS = 4096  # cells of one type whose spread is decomposed as it is; more are sketched first
SPARE = 20  # directions beyond the wanted ones that block power iteration carries along
POWERS = 4


@dataclass(frozen=True, kw_only=True)
class TypeStatistics:
    """What is kept of the cells of one type of one stage.

    Attributes
    ----------
    stage, name
        Number of the stage and name of the type.
    n
        Number of cells.
    mean
        Mean unit profile over the stage's genes, float32 (g,).
    factors
        Leading directions of the centred profiles, each times the square root of its sum of squares, (k, g).
    rest
        Variance of each gene that the factors leave out, (g,).
    """

    stage: int
    name: str
    n: int
    mean: np.ndarray
    factors: np.ndarray
    rest: np.ndarray

    def with_rank(self, most: int) -> "TypeStatistics":
        """Return the statistics with the leading ``most`` factors; the others' variance goes to the rest."""
        if len(self.factors) <= most:
            return self
        dropped = (self.factors[most:].astype(np.float64) ** 2).sum(axis=0) / self.n
        return replace(self, factors=self.factors[:most], rest=(self.rest + dropped).astype(np.float32))


def type_statistics(rows: sp.csr_matrix, *, stage: int, name: str, rank: int) -> TypeStatistics:
    """Return what is kept of some unit profiles (n, g)."""
    n = rows.shape[0]
    mean = np.asarray(rows.mean(axis=0), dtype=np.float64).ravel()
    total = np.asarray(rows.multiply(rows).mean(axis=0), dtype=np.float64).ravel() - mean**2
    factors = _leading(rows, mean, min(rank, n - 1))
    rest = np.maximum(total - (factors.astype(np.float64) ** 2).sum(axis=0) / n, 0.0)
    return TypeStatistics(
        stage=stage, name=name, n=n, mean=mean.astype(np.float32), factors=factors, rest=rest.astype(np.float32)
    )


def _leading(rows: sp.csr_matrix, mean: np.ndarray, k: int) -> np.ndarray:
    """Return the k leading right singular vectors of the centred rows, each times its singular value."""
    n, g = rows.shape
    if k <= 0:
        return np.zeros((0, g), dtype=np.float32)
    centred = _sketched(rows, mean) if n > MOST_ROWS else _centred(rows, mean)
    u = _leading_vectors(centred, min(k, len(centred)))
    return np.asarray(u.T.astype(np.float32) @ centred)


def _centred(rows: sp.csr_matrix, mean: np.ndarray) -> np.ndarray:
    """Return the rows less their mean, dense: `MOST_ROWS` of 6,000 genes take 100 MB and are multiplied ten times."""
    dense: np.ndarray = rows.toarray().astype(np.float32, copy=False)
    dense -= mean.astype(np.float32)
    return dense


def _leading_vectors(centred: np.ndarray, k: int) -> np.ndarray:
    """Return k left singular vectors (n, k) of the largest singular values, by block power iteration where cheaper."""
    n = len(centred)
    if n <= 2 * (k + SPARE):
        gram = (centred @ centred.T).astype(np.float64)
        return np.asarray(scipy.linalg.eigh(gram, check_finite=False)[1][:, ::-1][:, :k])
    basis = np.random.default_rng(0).standard_normal((n, k + SPARE))  # a fixed start: same cells, same factors
    for _ in range(POWERS):
        there = basis.astype(np.float32).T @ centred
        basis = scipy.linalg.qr((centred @ there.T).astype(np.float64), mode="economic", check_finite=False)[0]
    there = basis.astype(np.float32).T @ centred
    inner = scipy.linalg.eigh((there @ there.T).astype(np.float64), check_finite=False)[1][:, ::-1][:, :k]
    return np.asarray(basis @ inner)


def _sketched(rows: sp.csr_matrix, mean: np.ndarray) -> np.ndarray:
    """Return fewer rows with nearly the same scatter: random signs fold the centred cells into `MOST_ROWS` sums.

    A count sketch S with one sign a cell has E[(S x)'(S x)] = x'x (Charikar, Chen and Farach-Colton 2002).
    """
    n = rows.shape[0]
    rng = np.random.default_rng(0)
    place, sign = rng.integers(MOST_ROWS, size=n), rng.choice([-1.0, 1.0], size=n)
    fold = sp.csr_matrix((sign, (place, np.arange(n))), shape=(MOST_ROWS, n))
    sums = np.asarray(fold.sum(axis=1)) @ mean[None, :]
    return np.asarray((fold @ rows).toarray() - sums, dtype=np.float32)
