"""Groups among novel cells and what speaks for them, on cells whose groups are known."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from canal.novel.groups import (
    ASIDE,
    KNOWN,
    LEAST_KNOWN,
    cluster_cells,
    find_markers,
    join_mixed,
    mixing,
    renumbered,
    separation,
)
from canal.stages.clusters import components_of, keep_compiled, principal_components, umap_coordinates
from tests.make import make_counts


def toy(sizes: tuple[int, ...], n_genes: int = 200, seed: int = 0) -> tuple[sp.csr_matrix, np.ndarray]:
    """Return log-normalised cells of types 0, 1, ... in these numbers, and their types."""
    types = np.repeat(np.arange(len(sizes)), sizes)
    counts = make_counts(types, np.zeros_like(types), n_genes, seed)
    return sp.csr_matrix(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)), types


def clusters_of(expression: sp.csr_matrix, **options) -> np.ndarray:
    """Cluster all cells as novel ones."""
    settings = {"resolution": 1.0, "min_size": 10, "seed": 0} | options
    points = principal_components(expression, 0)
    return cluster_cells(expression, points, points, **settings)


def test_types_become_clusters_by_size():
    """Two types are two clusters, the larger is 1, though Leiden alone splits them further."""
    expression, types = toy((60, 90))

    found = clusters_of(expression)

    assert set(found) == {"1", "2"}
    assert (found == np.where(types == 1, "1", "2")).mean() > 0.97


def test_clustering_is_deterministic_and_ignores_its_input():
    """The same cells give the same clusters; the matrix stays as it was."""
    expression, _ = toy((60, 90))
    before = expression.copy()

    assert clusters_of(expression).tolist() == clusters_of(expression).tolist()
    assert (expression != before).nnz == 0


@pytest.mark.parametrize(
    ("n", "min_size", "expected"),
    [(1, 2, ASIDE), (2, 2, "1"), (9, 10, ASIDE), (10, 10, "1"), (19, 10, "1")],
)
def test_few_cells_are_one_cluster_or_none(n, min_size, expected):
    """Cells that are too few to be split stay together, and are set aside below the size."""
    expression, _ = toy((n,))
    points = np.zeros((n, 2), dtype=np.float32)

    found = cluster_cells(expression, points, points, resolution=1.0, min_size=min_size, seed=0)

    assert found.tolist() == [expected] * n


def test_small_clusters_are_set_aside():
    """A type below the size is in no cluster."""
    expression, types = toy((80, 15))

    found = clusters_of(expression, min_size=20)

    assert (found[types == 1] == ASIDE).mean() > 0.8
    assert (found[types == 0] == "1").mean() > 0.95


def test_mixing_tells_parts_of_one_from_two():
    """Halves of one cloud are mixed as by chance; two clouds are not at all."""
    rng = np.random.default_rng(0)
    cloud, far = rng.normal(size=(200, 5)), rng.normal(size=(100, 5)) + 20

    assert mixing(cloud[::2], cloud[1::2], np.random.default_rng(0)) == pytest.approx(1, abs=0.2)
    assert mixing(cloud, far, np.random.default_rng(0)) == 0


def test_joining_ends_with_what_is_apart():
    """Four parts of two clouds become the two."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(100, 5)), rng.normal(size=(60, 5)) + 20])
    parts = np.concatenate([np.arange(100) % 3, np.arange(60) % 2 + 3])

    found = join_mixed(parts, [(points, 0.3)], seed=0)

    assert len(set(found[:100])) == len(set(found[100:])) == 1
    assert len(set(found)) == 2
    assert join_mixed(parts, [(points, 9.0)], seed=0).tolist() == parts.tolist()


def test_one_space_is_enough_to_join():
    """Two batches that lie apart in one space and in one another in the other are one cluster."""
    rng = np.random.default_rng(0)
    alike, parts = rng.normal(size=(120, 5)), np.arange(120) % 2
    apart = alike + 20.0 * parts[:, None]

    assert len(set(join_mixed(parts, [(apart, 0.3)], seed=0))) == 2
    assert len(set(join_mixed(parts, [(apart, 0.3), (alike, 0.5)], seed=0))) == 1


def test_renaming_follows_the_order():
    """The first of the order is 1; those set aside stay aside."""
    assert renumbered(np.array(["1", "2", "-"], dtype=object), ["2", "1"]).tolist() == ["2", "1", "-"]


def test_an_edge_is_not_apart():
    """A type of its own stands apart; the outermost cells of a known type do not."""
    rng = np.random.default_rng(0)
    known, types = rng.normal(size=(400, 10)), np.array(["A", "B"] * 200, dtype=object)
    edge = rng.normal(size=(25, 10)) * 1.3

    new = separation(rng.normal(size=(25, 10)) + 5, known, types, seed=0)
    old = separation(edge, known, types, seed=0)

    assert new.apart
    assert new.own_share > 0.95
    assert new.silhouette > 0.4
    assert not old.apart
    assert old.own_share < 0.3


def test_with_too_few_known_cells_nothing_is_said_of_a_cluster():
    """Neither apart nor an edge: there are no figures, where a silhouette of 1 would look like the best evidence."""
    rng = np.random.default_rng(0)
    known, types = rng.normal(size=(LEAST_KNOWN - 1, 10)), np.array(["A"] * (LEAST_KNOWN - 1), dtype=object)

    few = separation(rng.normal(size=(25, 10)) + 5, known, types, seed=0)

    assert (few.silhouette, few.own_share, few.apart, few.comparable) == (None, None, False, False)


def test_markers_are_the_genes_of_the_type():
    """Each type's own genes lead, against one group and against the rest; nothing where nothing can be compared."""
    expression, types = toy((60, 50, 40))
    groups = np.array(["1", "2", KNOWN], dtype=object)[types]
    genes = [f"G{g}" for g in range(200)]

    against_known = find_markers(expression, groups, genes, reference=KNOWN, top=5)
    against_rest = find_markers(expression, groups, genes, reference="rest", top=5)

    assert set(against_known) == {"1", "2"}
    for found in (against_known, against_rest):
        assert {m.gene for m in found["1"]} <= set(genes[:8])
        assert {m.gene for m in found["2"]} <= set(genes[8:16])
        assert all(m.fold > 0 and m.p_value < 0.05 and m.share > m.share_others for m in found["1"])
    assert find_markers(expression[:60], groups[:60], genes, reference="rest", top=5) == {}
    assert find_markers(expression[:61], groups[:61], genes, reference=KNOWN, top=5) == {}


@pytest.mark.parametrize("n", [1, 2, 15, 40])
def test_any_number_of_cells_can_be_drawn(n):
    """Places are finite, whatever the number of cells."""
    points = np.random.default_rng(0).normal(size=(n, 1 if n == 1 else 4)).astype(np.float32)

    assert umap_coordinates(points, 0).shape == (n, 2)
    assert np.isfinite(umap_coordinates(points, 0)).all()


def test_drawing_a_map_leaves_the_threads_as_they_were() -> None:
    """UMAP sets the threads of the process; what is trained afterwards must be rounded as before."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        umap_coordinates(np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), 0)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_what_is_compiled_of_umap_is_kept_for_later_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours ask numba to keep its code on disk; where there is no place for it, it is compiled as before."""
    from umap import umap_

    umap_coordinates(np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), 0)
    for function in (umap_.smooth_knn_dist, umap_.compute_membership_strengths):
        assert function.stats.cache_path is not None

    def nowhere(*_args: object) -> None:
        message = "no locator available"
        raise RuntimeError(message)

    monkeypatch.setattr(type(umap_.smooth_knn_dist), "enable_caching", nowhere)
    keep_compiled.cache_clear()
    keep_compiled()


def test_further_cells_are_put_onto_the_components() -> None:
    """The cells that the components are of lie where they lay; others lie beside those of their type."""
    expression, types = toy((40, 40))
    points, components = components_of(expression, 0)

    np.testing.assert_allclose(components.of(expression), points, atol=1e-3)
    others, other_types = toy((20, 20), seed=1)
    centres = np.array([points[types == kind].mean(axis=0) for kind in (0, 1)])
    nearest = np.linalg.norm(components.of(others)[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == other_types).all()
