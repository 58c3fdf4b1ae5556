"""Published formulas against worked examples and independent implementations."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats
from scipy.spatial.distance import cosine

from canal.benchmark.formulas import models as cellid
from canal.benchmark.formulas import models as scibet
from canal.benchmark.formulas import models as scina
from canal.benchmark.formulas import projection as scmap

RNG = np.random.default_rng(0)


def test_scibet_is_the_published_formula(monkeypatch):
    """Two types, three genes: scores, probabilities and likelihoods as computed by hand."""
    linear = np.array([[7.0, 1.0, 0.0], [7.0, 3.0, 0.0], [0.0, 3.0, 1.0]])
    labels = np.array(["a", "a", "b"])
    logged = sp.csr_matrix(np.log2(linear + 1))
    monkeypatch.setattr(scibet, "CHOSEN_GENES", 2)
    types, columns, model = scibet.fit_scibet(logged, labels)
    # Gene means are (7, 2, 0) and (0, 3, 1).
    scores = [
        math.log2(3.5 + 1) - (math.log2(8) + math.log2(1)) / 2,
        math.log2(2.5 + 1) - (math.log2(3) + math.log2(4)) / 2,
        math.log2(0.5 + 1) - (math.log2(1) + math.log2(2)) / 2,
    ]
    assert scibet.entropy_scores(np.array([[7.0, 2, 0], [0, 3, 1]])) == pytest.approx(scores)
    assert (types, columns.tolist()) == (["a", "b"], [0, 2])
    # Sums of log2(x + 1) are (6, 0) for a and (0, 1) for b on the genes 0 and 2.
    expected = [[math.log2(7 / 8), math.log2(1 / 8)], [math.log2(1 / 3), math.log2(2 / 3)]]
    assert model == pytest.approx(np.array(expected))
    cell = sp.csr_matrix([[2.0, 1.0]])
    likelihood = [2 * math.log2(7 / 8) + math.log2(1 / 8), 2 * math.log2(1 / 3) + math.log2(2 / 3)]
    assert scibet.log2_likelihoods(cell, model)[0] == pytest.approx(likelihood)


def test_scmap_features_stand_above_the_line(monkeypatch):
    """Genes are those with the largest residuals of a least-squares line through mean and log2 dropout."""
    values = RNG.poisson(RNG.gamma(1.0, 1.0, 40), (60, 40)).astype(float)
    values[:, 0] = 0  # never seen, and
    values[:, 1] = 5  # always seen: neither can be a feature
    dropout = 100 * (values == 0).mean(axis=0)
    used = np.flatnonzero((dropout > 0) & (dropout < 100))
    line = stats.linregress(values.mean(axis=0)[used], np.log2(dropout[used]))
    residual = np.log2(dropout[used]) - line.intercept - line.slope * values.mean(axis=0)[used]
    monkeypatch.setattr(scmap, "FEATURES", 10)
    assert scmap.select_features(sp.csr_matrix(values)).tolist() == sorted(used[np.argsort(-residual)[:10]].tolist())


def test_scmap_cluster_asks_two_of_three_measures():
    """Cosine, Pearson and Spearman vote as their plain definitions do, cell by cell."""
    cells, index = RNG.gamma(1.0, 1.0, (30, 12)), RNG.gamma(1.0, 1.0, (4, 12))
    cells[:15] = index[RNG.integers(4, size=15)] + RNG.normal(0, 0.3, (15, 12))
    types = ["a", "b", "c", "d"]
    labels, similarity = scmap.project_on_clusters(cells, types, index)
    for cell, label, value in zip(cells, labels, similarity, strict=True):
        measures = [
            [1 - cosine(cell, m) for m in index],
            [stats.pearsonr(cell, m).statistic for m in index],
            [stats.spearmanr(cell, m).statistic for m in index],
        ]
        votes = [int(np.argmax(m)) for m in measures]
        agreed = next((v for v in votes if votes.count(v) > 1), None)
        best = None if agreed is None else max(max(m) for m, v in zip(measures, votes, strict=True) if v == agreed)
        assert label == (types[agreed] if best is not None and best >= 0.7 else scmap.UNASSIGNED)
        assert best is None or value == pytest.approx(best)
    assert {scmap.UNASSIGNED} < set(labels.tolist())


def test_scmap_cell_asks_the_nearest_three():
    """A cell is assigned where its three nearest agree and the nearest is near enough."""
    reference, labels = RNG.normal(size=(40, 8)), np.array(["a", "b"] * 20)
    cells = np.concatenate([reference[:6] + 0.01, RNG.normal(size=(20, 8))])
    found, _ = scmap.project_on_cells(cells, reference, labels)
    for cell, label in zip(cells, found, strict=True):
        similar = np.array([1 - cosine(cell, r) for r in reference])
        nearest = labels[np.argsort(-similar)[:3]]
        agree = len(set(nearest.tolist())) == 1 and similar.max() >= 0.5
        assert label == (nearest[0] if agree else scmap.UNASSIGNED)


def test_scmap_medians_leave_out_types_without_any():
    """A type whose medians are all zero has no place to be projected to."""
    types, table = scmap.type_medians(np.array([[1.0, 2], [3, 2], [0, 0], [0, 5], [0, 0]]), np.array(list("aabbb")))
    assert types == ["a"]
    assert table.tolist() == [[2.0, 2.0]]


def test_scina_starts_from_the_mixture_it_says(monkeypatch):
    """Without a step, the probabilities are those of normals at the quantiles, by Bayes' rule."""
    values, signature = RNG.gamma(2.0, 1.0, (50, 5)), np.array([0, 0, 1, 1, 1])
    high, low, deviation = np.quantile(values, 0.7, axis=0), np.quantile(values, 0.3, axis=0), values.std(axis=0)
    inside, outside = (stats.norm.pdf(values, mean, deviation) for mean in (high, low))
    likelihood = np.stack(
        [np.where(signature == r, inside, outside).prod(axis=1) for r in (0, 1, -1)], axis=1
    )  # fmt: skip
    expected = likelihood / likelihood.sum(axis=1, keepdims=True)
    monkeypatch.setattr(scina, "MOST_STEPS", 0)
    assert scina.type_probabilities(values, signature) == pytest.approx(expected)


def test_scina_finds_types_and_cells_of_none():
    """Cells that raise the markers of one type are of it; cells that raise none are of none."""
    truth = np.repeat([0, 1, 2], [60, 30, 40])
    values = RNG.normal(0.0, 0.4, (130, 6))
    signature = np.array([0, 0, 0, 1, 1, 1])
    values[truth == 0, :3] += 3.0
    values[truth == 1, 3:] += 3.0
    assert (scina.type_probabilities(values, signature).argmax(axis=1) == truth).mean() > 0.97


def test_cellid_coordinates_are_a_correspondence_analysis(monkeypatch):
    """Coordinates are right singular vectors of the divided table, up to sign; the trivial one is left out."""
    values = RNG.gamma(1.0, 1.0, (12, 30))
    scaled = ((values - values.min(axis=0)) / (values.max(axis=0) - values.min(axis=0))).T
    fuzzy = np.vstack([scaled, 1 - scaled])
    table = fuzzy / np.sqrt(np.outer(fuzzy.sum(axis=1), fuzzy.sum(axis=0)))
    right = np.linalg.svd(table)[2][1:5].T
    monkeypatch.setattr(cellid, "DIMENSIONS", 4)
    places, genes = cellid.multiple_correspondence(values)
    sign = np.sign((places * right).sum(axis=0))
    assert places == pytest.approx(np.sqrt(12) * right * sign, abs=1e-8)
    weight = np.sqrt(fuzzy.sum(axis=1) / fuzzy.sum())
    assert genes == pytest.approx(((table @ right) / weight[:, None])[:30] * sign, abs=1e-8)


def test_cellid_evidence_is_a_hypergeometric_test():
    """p-values are Fisher's one-sided ones, adjusted for the number of types."""
    shared, sizes, genes, drawn = np.array([[8, 3], [1, 6]]), np.array([10, 20]), 60, 12
    found = cellid.overlap_evidence(shared, genes, drawn, sizes)
    for row, said in zip(shared, found, strict=True):
        tables = [
            [[k, s - k], [drawn - k, genes - s - drawn + k]] for k, s in zip(row.tolist(), sizes.tolist(), strict=True)
        ]
        p = [stats.fisher_exact(t, alternative="greater").pvalue for t in tables]
        assert said == pytest.approx(-np.log10(stats.false_discovery_control(p)))


def test_cellid_finds_the_nearest_genes(monkeypatch):
    """The signature is the genes at the least Euclidean distance."""
    places, genes = RNG.normal(size=(5, 3)), RNG.normal(size=(20, 3))
    expected = [np.argsort(np.linalg.norm(genes - p, axis=1))[:7].tolist() for p in places]
    monkeypatch.setattr(cellid, "SIGNATURE_SIZE", 7)
    assert cellid.nearest_genes(places, genes).tolist() == expected
