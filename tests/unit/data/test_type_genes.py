"""Type-specific genes: fold change, correlation and corrected test against plain numpy and scipy."""

import numpy as np
import scipy.sparse as sp
from scipy import stats

from canal.config import SpecificGenesConfig, load_preset
from canal.data.stream import read_cells
from canal.data.variable_genes import coexpressed, correlations, log2_fold_changes, marker_positions, type_specific
from tests.make import make_adata


def config(**changes: float) -> SpecificGenesConfig:
    """Return bounds for toy cells."""
    sizes = {"markers": 8, "fold_change": 1.0, "false_discovery": 0.05, "min_correlation": 0.0, "min_cells": 10}
    return SpecificGenesConfig(**(sizes | changes))


def toy_values(n: int = 90, g: int = 12) -> tuple[sp.csr_matrix, np.ndarray]:
    """Return sparse values with a gene that never varies, and labels of uneven types."""
    rng = np.random.default_rng(3)
    values = rng.poisson(1.5, (n, g)).astype(np.float32)
    values[:, 5] = 0.0
    return sp.csr_matrix(values), np.array(["a"] * 50 + ["b"] * 30 + ["c"] * 10)


def test_fold_change_weighs_the_other_types_alike() -> None:
    """Log2 of the mean in a type over the plain mean of the other types' means, however many cells they have."""
    values, labels = toy_values()
    dense = values.toarray().astype(np.float64)
    mean = {t: dense[labels == t].mean(axis=0) for t in "abc"}

    found = log2_fold_changes(values, labels, np.array(["a", "b", "c"]))

    expected = np.log2((mean["b"] + 1e-6) / ((mean["a"] + mean["c"]) / 2 + 1e-6))
    np.testing.assert_allclose(found[1], expected, rtol=1e-6, atol=1e-9)


def test_markers_are_the_highest_and_only_those_above_the_bound() -> None:
    """At most so many a type, none at or below the bound, each gene once."""
    change = np.array([[3.0, 2.0, 1.0, 0.5], [1.5, -1.0, 0.0, 4.0]])

    assert marker_positions(change, 2, 1.0).tolist() == [0, 1, 3]
    assert marker_positions(change, 3, 1.6).tolist() == [0, 1, 3]
    assert marker_positions(change, 1, 9.0).tolist() == []


def test_correlations_are_pearsons() -> None:
    """As numpy's, and 0 for a gene that does not vary."""
    values, _ = toy_values()

    found = correlations(values, np.array([0, 3]))

    dense = np.delete(values.toarray(), 5, axis=1)
    expected = np.corrcoef(dense.T)[[0, 3]]
    np.testing.assert_allclose(np.delete(found, 5, axis=1), expected, atol=1e-10)
    assert (found[:, 5] == 0).all()


def test_the_coexpression_test_is_corrected_over_all_pairs() -> None:
    """Benjamini and Hochberg over every pair of marker and gene, with scipy's p-values of each pair."""
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(60, 40))
    dense[:, 20:26] += 0.45 * dense[:, :1]  # some near the bound, so that the correction decides
    markers, others = np.array([0, 1]), np.arange(2, 40)
    pairs = [(g, stats.pearsonr(dense[:, m], dense[:, g])) for m in markers for g in others]
    p = np.array([found.pvalue for _, found in pairs])
    ranked = np.argsort(p)
    passing = p[ranked] <= 0.05 * np.arange(1, len(p) + 1) / len(p)
    kept = ranked[: np.flatnonzero(passing).max() + 1]
    expected = sorted({pairs[i][0] for i in kept})
    uncorrected = {g for g, found in pairs if found.pvalue < 0.05}

    found = coexpressed(sp.csr_matrix(dense), markers, 0.05, 0.0)

    assert found.tolist() == expected
    assert set(expected) < uncorrected
    strong = {g for g, pair in pairs if abs(pair.statistic) >= 0.4}
    assert coexpressed(sp.csr_matrix(dense), markers, 0.05, 0.4).tolist() == sorted(strong & set(expected))


def test_markers_of_the_types_are_found() -> None:
    """Most genes that toy types raise are chosen; a type with too few cells has no say in its markers."""
    cells = read_cells(make_adata(300, 200, types=("B", "CD4 T", "CD8 T")), labels="cell_type")
    others = np.flatnonzero(cells.labels != "B")
    few = cells.take(np.concatenate([others, np.flatnonzero(cells.labels == "B")[:5]]))
    markers_alone = config(min_correlation=1.0)  # no other gene correlates wholly with a marker

    found = type_specific(cells, 200, markers_alone)

    assert len(found) <= 24
    assert len(set(range(24)) & set(found.tolist())) >= 18
    without = type_specific(cells.take(others), 200, markers_alone)
    assert type_specific(few, 200, markers_alone).tolist() == without.tolist()


def test_one_type_alone_still_gives_genes() -> None:
    """Where there is nothing to compare with, the most variable genes are taken."""
    cells = read_cells(make_adata(40, 60, types=("B",)), labels="cell_type")

    assert len(type_specific(cells, 60, config())) == 16


def test_the_preset_asks_for_its_table() -> None:
    """Ranking and table go together in the shipped preset, whose bounds are the published ones."""
    genes = load_preset("scannonet").genes

    assert genes.specific is not None
    assert (genes.per_stage, genes.specific.markers, genes.specific.fold_change) == (4000, 20, 1.0)
