"""Many stages of a type become few classes that have the mean and covariance of all their cells."""

import numpy as np
import pytest

from canal.model.novelty import space
from canal.model.novelty.space import KnownClass, joint_classes

GENES = 6


def known(stage: int, name: str, cells: np.ndarray, columns: np.ndarray) -> KnownClass:
    """Return the class of some cells, all of whose spread is in its factors."""
    mean = cells.mean(axis=0)
    return KnownClass(
        stage=stage, name=name, n=len(cells), columns=columns, mean=mean,
        factors=(cells - mean) / np.sqrt(len(cells)), rest=np.zeros(len(columns)),
    )  # fmt: skip


@pytest.fixture
def cells() -> dict[int, np.ndarray]:
    """Return the cells of one type in twelve stages, of differing number and place."""
    rng = np.random.default_rng(0)
    return {stage: rng.standard_normal((20 + stage, GENES)) + rng.standard_normal(GENES) for stage in range(12)}


def test_classes_together_are_their_cells_together(
    cells: dict[int, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mean and covariance of neighbouring stages are those computed from their cells."""
    every = np.arange(GENES)
    matrix = np.random.default_rng(1).standard_normal((GENES, 4)).astype(np.float32)
    classes = [known(stage, name, rows, every) for stage, rows in cells.items() for name in ("B", "NK")]

    monkeypatch.setattr(space, "MOST_CLASSES", 8)
    found = joint_classes(classes, matrix)

    assert [c.stages for c in found if c.name == "B"] == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)]
    together = np.concatenate([cells[stage] for stage in (3, 4, 5)]) @ matrix
    second = next(c for c in found if c.stages == (3, 4, 5))
    assert second.n == len(together)
    np.testing.assert_allclose(second.mean, together.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(second.covariance, np.cov(together.T, bias=True), atol=1e-4)


def test_few_classes_stay_as_they_are(cells: dict[int, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the limit, every type of every stage is a class of its own, in the order given."""
    every = np.arange(GENES)
    classes = [known(stage, "B", rows, every) for stage, rows in cells.items()]

    monkeypatch.setattr(space, "MOST_CLASSES", 12)
    found = joint_classes(classes, np.eye(GENES, dtype=np.float32))

    assert [c.stages for c in found] == [(stage,) for stage in cells]


def test_rest_of_the_variance_of_other_genes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gene that one stage did not measure has the other's variance, by its share of the cells."""
    zero = np.zeros((0, 2))
    first = KnownClass(
        stage=1, name="B", n=30, columns=np.array([0, 1]), mean=np.zeros(2), factors=zero, rest=np.ones(2)
    )
    second = KnownClass(
        stage=2, name="B", n=10, columns=np.array([1, 2]), mean=np.zeros(2), factors=zero, rest=np.ones(2)
    )

    monkeypatch.setattr(space, "MOST_CLASSES", 1)
    found = joint_classes([first, second], np.eye(3, dtype=np.float32))

    np.testing.assert_allclose(np.diag(found[0].covariance), [0.75, 1.0, 0.25], atol=1e-6)
