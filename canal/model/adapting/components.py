"""Leading principal components of some cells of a file: where its own groups show.

Shapes: n cells, S genes that the memory knows and the file measures, V of them, d components.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

# Both chosen on left-out data sets: between 10 and 30 components, and with 1,000 genes, the gains are the same.
VARIABLE_GENES = 2000
COMPONENTS = 15


@dataclass(frozen=True, kw_only=True)
class Components:
    """Principal components of unit profiles.

    Attributes
    ----------
    genes
        The most variable genes, ascending positions among S, (V,).
    mean
        Mean profile over these, (V,).
    directions
        Float32 (V, d), the leading one first.
    """

    genes: np.ndarray
    mean: np.ndarray
    directions: np.ndarray

    @property
    def origin(self) -> np.ndarray:
        """What the mean profile would be without centring, (d,)."""
        return np.asarray(self.mean @ self.directions)

    def of(self, profiles: np.ndarray | sp.csr_matrix) -> np.ndarray:
        """Return the coordinates (n, d) of unit profiles (n, S)."""
        return np.asarray(profiles[:, self.genes] @ self.directions - self.origin, dtype=np.float64)


def leading_components(profiles: sp.csr_matrix) -> Components:
    """Return the principal components of unit profiles (n, S), two cells and two genes at least."""
    # The genes with the highest variance.
    mean = np.asarray(profiles.mean(axis=0), dtype=np.float64).ravel()
    variance = np.asarray(profiles.multiply(profiles).mean(axis=0), dtype=np.float64).ravel() - mean**2
    genes = np.sort(np.argsort(-variance, kind="stable")[:VARIABLE_GENES])
    # The leading eigenvectors of the scatter around the mean, which is never written out: the profiles stay sparse.
    chosen = profiles[:, genes].astype(np.float64)
    n, v = chosen.shape
    centre = mean[genes]

    def scatter(vector: np.ndarray) -> np.ndarray:
        """Return the scatter times a vector of the genes, (V,)."""
        return np.asarray(chosen.T @ (chosen @ vector) - n * centre * (centre @ vector))

    operator = scipy.sparse.linalg.LinearOperator((v, v), matvec=scatter, dtype=np.float64)
    d = min(COMPONENTS, n - 1, v - 1)
    # Begun from the same vector, so that the same cells give the same components.
    _, vectors = scipy.sparse.linalg.eigsh(operator, k=d, which="LA", v0=np.ones(v))
    directions = vectors[:, ::-1]
    return Components(genes=genes, mean=mean[genes], directions=np.asarray(directions, dtype=np.float32))
