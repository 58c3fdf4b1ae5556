"""The index finds what a brute-force search finds, and refuses what it cannot search."""

import numpy as np
import pytest

from canal.errors import StageError
from canal.model.novelty import neighbours
from canal.model.novelty.neighbours import NeighbourIndex, Neighbours


def brute_force(reference: np.ndarray, queries: np.ndarray, k: int) -> Neighbours:
    reference = reference / np.linalg.norm(reference, axis=1, keepdims=True)
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    distances = np.linalg.norm(queries[:, None] - reference[None], axis=2)
    order = np.argsort(distances, axis=1)[:, :k]
    return Neighbours(indices=order, distances=np.take_along_axis(distances, order, axis=1))


def make_vectors(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("n_queries", [1, 7, 300])
def test_flat_index_equals_brute_force(n_queries):
    """At bank size the search is exact, for one query as for many."""
    reference, queries = make_vectors(200), make_vectors(n_queries, seed=1)
    expected = brute_force(reference, queries, 5)

    found = NeighbourIndex(reference).search(queries, 5)

    assert (found.indices == expected.indices).all()
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-3, atol=1e-4)


def test_larger_reference_is_searched_in_lists(monkeypatch: pytest.MonkeyPatch):
    """Above the limit an inverted file answers, and finds nearly all true neighbours."""
    reference = make_vectors(4000, 8)
    queries = reference[:200] + 0.01 * make_vectors(200, 8, seed=2)
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 1000)
    index = NeighbourIndex(reference)
    expected = brute_force(reference, queries, 5)

    found = index.search(queries, 5)

    assert index.kind == "ivf"
    shared = [len(set(a) & set(b)) / 5 for a, b in zip(found.indices, expected.indices, strict=True)]
    assert np.mean(shared) > 0.9


def test_zero_query_is_answered():
    """A cell without any measured gene has neighbours at the distance of a right angle or less."""
    found = NeighbourIndex(make_vectors(10)).search(np.zeros((1, 16)), 3)

    np.testing.assert_allclose(found.distances, 1.0, rtol=1e-5)


def test_no_query_gives_no_row():
    """An empty block is not an error."""
    assert NeighbourIndex(make_vectors(10)).search(np.zeros((0, 16)), 3).indices.shape == (0, 3)


@pytest.mark.parametrize(
    ("n", "k", "match"),
    [(0, 1, "bank is empty"), (5, 0, "0 neighbours were asked for"), (5, 6, "from 1 to 5")],
    ids=["empty", "none asked", "more than there are"],
)
def test_bad_requests_are_explained(n, k, match):
    """The message says what the index holds and what to do."""
    with pytest.raises(StageError, match=match):
        NeighbourIndex(make_vectors(n)).search(make_vectors(2), k)


@pytest.mark.slow
@pytest.mark.gpu
def test_gpu_finds_the_same():
    """The GPU index returns the neighbours of the CPU index."""
    if not neighbours._gpu_count():
        pytest.skip("faiss-gpu is not installed")
    reference, queries = make_vectors(1000, 64), make_vectors(100, 64, seed=1)
    expected = NeighbourIndex(reference, gpu=False).search(queries, 10)

    found = NeighbourIndex(reference, gpu=True).search(queries, 10)

    assert (found.indices == expected.indices).mean() > 0.999
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-3, atol=1e-3)
