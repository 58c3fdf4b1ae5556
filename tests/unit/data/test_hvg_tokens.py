"""Highly variable genes, and tokens."""

import numpy as np
import pytest
import scipy.sparse as sp

from canal.data.stream import read_cells
from canal.data.variable_genes import highly_variable
from canal.pretrain.cells import log2_tokens
from tests.make import make_adata


def test_variable_genes_are_scanpys() -> None:
    """The choice is that of scanpy's flavour "seurat" on the same values."""
    import scanpy as sc

    cells = read_cells(make_adata(300, 200), labels=None)
    adata = sc.AnnData(cells.expression.copy())
    sc.pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=30)

    chosen = highly_variable(cells, 30)

    assert chosen.tolist() == np.flatnonzero(adata.var["highly_variable"]).tolist()


@pytest.mark.parametrize(("n_cells", "n_genes", "n"), [(1, 40, 10), (2, 40, 10), (5, 10, 4), (30, 12, 40), (3, 2, 1)])
def test_few_cells_and_constant_genes(n_cells: int, n_genes: int, n: int) -> None:
    """Any file gives n genes or all of them, the same each time, without a warning."""
    adata = make_adata(n_cells, n_genes, types=1, layout="dense")
    adata.X[:, : n_genes // 2] = 3
    cells = read_cells(adata, labels=None)

    chosen = highly_variable(cells, n)

    assert len(chosen) == min(n, n_genes)
    assert (np.diff(chosen) > 0).all()
    assert chosen.tolist() == highly_variable(cells, n).tolist()


def test_identical_cells() -> None:
    """Where no gene varies, the most expressed are taken."""
    adata = make_adata(4, 10, types=1, layout="dense")
    adata.X[:] = np.arange(10)

    assert highly_variable(read_cells(adata, labels=None), 3).tolist() == [7, 8, 9]


@pytest.mark.parametrize("bins", [5, 7])
def test_tokens_are_the_papers(bins: int) -> None:
    """min(floor(log2(1 + 1e4 * count / total)), bins), computed from the counts."""
    adata = make_adata(80, 300, layout="dense")
    counts = adata.X.astype(float)
    expected = np.minimum(np.floor(np.log2(1 + 1e4 * counts / counts.sum(axis=1, keepdims=True))), bins)

    tokens = log2_tokens(read_cells(adata, labels=None).expression, bins)

    assert tokens.dtype == np.uint8
    assert tokens.shape == adata.shape
    assert (tokens == expected).all()


def test_tokens_at_the_edges() -> None:
    """Powers of two fall into the bin that they open, though float32 may round them down."""
    linear = np.array([[0, 0.999, 1, 3, 7, 15, 31, 1e4]])

    tokens = log2_tokens(sp.csr_matrix(np.log1p(linear).astype(np.float32)), 5)

    assert tokens.tolist() == [[0, 0, 1, 2, 3, 4, 5, 5]]
