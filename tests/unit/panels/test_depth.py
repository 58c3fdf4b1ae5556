"""Panels at fewer counts: from the statistics alone, how many molecules were counted, and what fewer leave."""

import numpy as np
import pytest
import scipy.sparse as sp

from canal.data.stream import read_cells
from canal.data.values import unit_rows
from canal.model.memory import AnalyticMemory
from canal.panels.check import _at_depth, _length, counted_molecules
from tests.make import make_adata

GENES = 800


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_molecules_of_a_cell_follow_from_the_statistics(share: float) -> None:
    """Within a third of the mean of the cells, of deep and of shallow ones: no cell is looked at."""
    adata = make_adata(300, GENES, types=("B", "NK", "DC"), seed=4)
    rng = np.random.default_rng(0)
    adata.X = sp.csr_matrix(rng.binomial(adata.X.toarray().astype(int), share).astype(np.float32))
    cells = read_cells(adata, labels="cell_type")
    memory = AnalyticMemory.empty(0.1).with_stage(cells, np.arange(len(cells.genes)), stage=1, rank=20)

    length = _length(unit_rows(cells.expression))
    counted = counted_molecules(memory, 1, length)

    assert counted == pytest.approx(adata.X.sum(axis=1).mean(), rel=0.33)


def test_molecules_are_thinned_and_not_drawn_once_more() -> None:
    """At the depth that was counted, or at more, a cell stays as it is; at less its counts are binomial."""
    rng = np.random.default_rng(1)
    counts = sp.csr_matrix(rng.poisson(3.0, (200, 50)).astype(np.float64))
    total = float(counts.sum(axis=1).mean())
    # What the values of a mean cell of so many molecules come from, as unit profiles of the length 1.
    profiles = counts.copy()
    profiles.data = np.log1p(counts.data / total * 1e4)

    for depth in (10_000, int(counts.sum(axis=1).max())):
        same = _at_depth(profiles, 1.0, total, depth, np.random.default_rng(2))
        shares = np.expm1(same.toarray().astype(np.float64)) / 1e4
        assert np.allclose(shares, counts.toarray() / counts.sum(axis=1), atol=0.01)

    fewer = _at_depth(profiles, 1.0, total, 50, np.random.default_rng(2)).toarray().astype(np.float64)
    shares = np.expm1(fewer) / 1e4
    # Counts of mean 1 a gene: thinned ones have the variance of the molecules and no more.
    spread = (shares * 50).var(axis=0).mean()
    assert spread == pytest.approx(1.0, rel=0.15)
