"""Known types and cells for the detector's tests, made with NumPy alone."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

GENES = 80
TYPES = ("B", "NK", "T")


@dataclass(frozen=True)
class Summary:
    """What a memory keeps of one type of one stage."""

    stage: int
    name: str
    n: int
    mean: np.ndarray
    factors: np.ndarray
    rest: np.ndarray


def make_profiles(kind: int, n: int, seed: int, genes: int = GENES) -> sp.csr_matrix:
    """Return unit profiles (n, genes) of a type, whose own ten genes are high."""
    rng = np.random.default_rng(seed)
    rate = np.random.default_rng(0).gamma(0.8, 1.0, genes)
    rate[10 * kind : 10 * kind + 10] += 6.0
    values = np.log1p(rng.poisson(rate * rng.lognormal(0.0, 0.2, (n, 1))))
    return sp.csr_matrix((values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32))


def make_summary(profiles: sp.csr_matrix, name: str, stage: int = 1, rank: int = 20) -> Summary:
    """Return the statistics of unit profiles, by a singular value decomposition."""
    rows = profiles.toarray().astype(np.float64)
    centred = rows - rows.mean(axis=0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    factors = (values[:, None] * vectors)[:rank]
    rest = np.maximum((centred**2).mean(axis=0) - (factors**2).sum(axis=0) / len(rows), 0.0)
    return Summary(stage, name, len(rows), rows.mean(axis=0), factors, rest)


def make_known(n: int = 150, stage: int = 1, seed: int = 1) -> tuple[Summary, ...]:
    """Return the statistics of all known types at a stage."""
    return tuple(make_summary(make_profiles(kind, n, seed + kind), name, stage) for kind, name in enumerate(TYPES))


def make_cells(n: int, seed: int) -> sp.csr_matrix:
    """Return fresh cells of the known types, type after type."""
    return sp.vstack([make_profiles(kind, n, seed + kind) for kind in range(len(TYPES))], format="csr")
