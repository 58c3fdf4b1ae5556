"""Over-clustering for the majority vote: of many cells, of more than are clustered at once, and with progress."""

import numpy as np
import pytest

from canal.stages import clusters
from canal.stages.clusters import majority_vote


class Steps:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.total, self.done, self.closed = 0, 0, False

    def start(self, total_steps: int, description: str) -> None:
        """Remember the number of steps."""
        assert description == "clustering"
        self.total = total_steps

    def advance(self, steps: int, note: str = "") -> None:
        """Count."""
        assert isinstance(note, str)
        self.done += steps

    def close(self) -> None:
        """Remember."""
        self.closed = True


def blobs(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points of four kinds far from each other, the kind of each, and an answer of which a tenth is wrong."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(4, size=n)
    points = (20 * np.eye(4)[kinds] + rng.standard_normal((n, 4))).astype(np.float32)
    names = np.array(["B", "NK", "CD4 T", "HSC"], dtype=object)
    wrong = rng.random(n) < 0.1
    return points, names[kinds], np.where(wrong, names[(kinds + 1) % 4], names[kinds])


@pytest.mark.parametrize("most", [20_000, 500])
def test_many_cells_are_clustered(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Whole, and by a sample: the vote mends the answer, the same each time, and says how far it is."""
    monkeypatch.setattr(clusters, "MOST_CLUSTERED", most)
    monkeypatch.setattr(clusters, "ASSIGNED_AT_ONCE", 1_000)
    points, truth, answer = blobs(4_500)
    steps = Steps()

    voted = majority_vote(answer, points, None, seed=0, progress=steps)

    assert (voted == truth).mean() > 0.97 > (answer == truth).mean()
    assert steps.total == steps.done == (1 if most > 4_500 else 5)
    assert steps.closed
    if most == 500:
        np.testing.assert_array_equal(voted, majority_vote(answer, points, None, seed=0))
