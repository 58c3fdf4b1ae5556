"""Whether this machine's matrix products give a row the same bits wherever it stands.

OpenBLAS does with AVX-512; its kernels for older processors round rows 0 to 5 of every twelve otherwise than rows 6 to
11. There a cell's figures depend on its place in a block in the last bits, and equality is tested within 1e-5.
"""

from functools import cache

import numpy as np


@cache
def rows_alike() -> bool:
    """Return whether equal rows of a matrix have equal products."""
    rng = np.random.default_rng(0)
    row, matrix = rng.standard_normal((1, 64), dtype=np.float32), rng.standard_normal((64, 128), dtype=np.float32)
    product = np.repeat(row, 192, axis=0) @ matrix
    return bool((product == product[0]).all())


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare to the bit where the machine allows it."""
    if rows_alike():
        assert np.array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
