"""Seurat's label transfer against its definitions, cell by cell."""

import math

import numpy as np
import pytest

from canal.benchmark.formulas import projection as seurat

RNG = np.random.default_rng(0)


def near(cell: np.ndarray, among: np.ndarray, k: int) -> list[int]:
    """Return the k nearest by angle."""
    cosine = [float(cell @ x) / (np.linalg.norm(cell) * np.linalg.norm(x)) for x in among]
    return sorted(range(len(among)), key=lambda i: -cosine[i])[:k]


def test_anchors_are_mutual_neighbours_scored_by_shared_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain loops over cells find the same pairs and the same scores."""
    reference, query = RNG.normal(size=(40, 6)), RNG.normal(size=(25, 6))
    expected = [
        (r, q) for r in range(40) for q in near(reference[r], query, 4) if r in near(query[q], reference, 4)
    ]  # fmt: skip

    monkeypatch.setattr(seurat, "ANCHOR_NEIGHBOURS", 4)
    monkeypatch.setattr(seurat, "SCORE_NEIGHBOURS", 7)
    found = seurat.find_anchors(reference, query)
    scores = seurat.anchor_scores(found, reference, query)

    assert sorted(map(tuple, found.tolist())) == sorted(expected)
    shared = []
    for r, q in found.tolist():
        a = {("r", i) for i in near(reference[r], reference, 7)} | {("q", i) for i in near(reference[r], query, 7)}
        b = {("r", i) for i in near(query[q], reference, 7)} | {("q", i) for i in near(query[q], query, 7)}
        shared.append(len(a & b))
    low, high = np.quantile(shared, [0.01, 0.9])
    assert scores == pytest.approx([min(max((s - low) / (high - low), 0), 1) for s in shared])


def test_votes_fall_with_distance_and_rise_with_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three anchors on a line, two of them near: weights as the formula gives them by hand."""
    query = np.array([[0.0], [1.0], [3.0]])
    pairs = np.array([[0, 0], [1, 1], [2, 2]])

    monkeypatch.setattr(seurat, "VOTING_ANCHORS", 3)
    weights = seurat.vote_weights(query, pairs, np.array([1.0, 0.5, 1.0]))

    votes = [1 - math.exp(-1.0 / 4), 1 - math.exp(-(2 / 3) * 0.5 / 4), 0.0]
    assert weights[0] == pytest.approx(np.array(votes) / sum(votes))
    assert weights.sum(axis=1) == pytest.approx(np.ones(3))


def test_anchors_without_a_score_count_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell whose nearest anchors are all of score zero is told by all of them."""
    monkeypatch.setattr(seurat, "VOTING_ANCHORS", 2)
    weights = seurat.vote_weights(np.array([[0.0], [1.0]]), np.array([[0, 0], [1, 1]]), np.zeros(2))

    np.testing.assert_allclose(weights, 0.5)


def test_anchors_far_apart_in_the_genes_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two anchors the one whose reference cell is among the nearest of the query cell stays."""
    reference = np.eye(4)
    cells = seurat.Embedding(
        reference=reference, query=reference[:2], scaled_reference=reference, scaled_query=reference[:2],
        loadings=np.eye(4),
    )  # fmt: skip

    monkeypatch.setattr(seurat, "FILTER_NEIGHBOURS", 1)
    kept = seurat.filter_anchors(np.array([[0, 0], [2, 1]]), cells)

    assert kept.tolist() == [[0, 0]]


def test_leading_genes_are_as_many_of_each_component(monkeypatch: pytest.MonkeyPatch) -> None:
    """The most that do not go over the bound."""
    loadings = np.array([[5.0, 4, 3, 0, 0, 0], [0.0, 0, 0, -3, -4, -5]])

    monkeypatch.setattr(seurat, "FILTER_GENES", 5)
    assert seurat.leading_genes(loadings).tolist() == [0, 1, 4, 5]


def test_types_are_transferred_across_a_shift() -> None:
    """Two groups of cells that another file measures with a shift of every gene keep their types."""
    centres, labels = RNG.normal(0, 2, (2, 30)), np.array(["a", "b"] * 60)
    rows = np.tile([0, 1], 60)
    reference = centres[rows] + RNG.normal(size=(120, 30))
    query = centres[rows] + RNG.normal(size=(120, 30)) + RNG.normal(0, 0.3, 30)

    types, votes = seurat.transfer_labels(reference, labels, query)

    assert types == ["a", "b"]
    assert votes.sum(axis=1) == pytest.approx(np.ones(120))
    assert (np.array(types)[votes.argmax(axis=1)] == labels).mean() > 0.95
