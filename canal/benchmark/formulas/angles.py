"""Rows of length 1, whose products are cosines."""

import numpy as np


def unit_rows(a: np.ndarray) -> np.ndarray:
    """Return the rows divided by their length, float64 (N, F); a row of zeros stays one."""
    length = np.linalg.norm(a, axis=1, keepdims=True)
    return np.asarray(np.divide(a, length, out=np.zeros_like(a, dtype=np.float64), where=length > 0))
