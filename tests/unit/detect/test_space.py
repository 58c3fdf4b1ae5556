"""The coordinates that novelty is measured in."""

import numpy as np
import pytest

from canal.model.novelty.space import right_singular_vectors


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)], ids=["fewer rows", "fewer genes"])
def test_the_leading_directions_are_those_of_a_full_decomposition(shape: tuple[int, int]) -> None:
    """Whichever side is decomposed: the same subspaces, leading first, and none without variance."""
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((shape[0], 6)) * 2.0 ** -np.arange(6)) @ rng.standard_normal((6, shape[1]))
    reference = np.linalg.svd(rows)[2]

    found = right_singular_vectors(rows, 4)

    np.testing.assert_allclose(np.abs(np.sum(found.T * reference[:4], axis=1)), 1.0, rtol=1e-6)
    assert right_singular_vectors(rows, 10).shape == (shape[1], 6)
