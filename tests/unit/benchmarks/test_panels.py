"""Panels at fewer counts: molecules are drawn from those that were counted."""

from pathlib import Path

import numpy as np
import pytest

from canal.seeds import numpy_generator
from tests.make import make_adata


def test_cells_are_thinned_to_a_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No gene gets more than was counted, every cell that had enough has the depth, and one that had less keeps all."""
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "benchmarks")
    from benchmarks import panels

    adata = make_adata(40, 60)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    file = panels.TestFile.read(tmp_path / "cells.h5ad", "cell_type")
    assert file.counts is not None
    assert (file.counts.toarray() == adata.X.toarray()).all()

    names = [f"GENE{g}" for g in range(30)]
    counted = adata[:, names].X.toarray()
    depth = int(np.median(counted.sum(axis=1)))
    cells = panels.thinned(file, names, depth, numpy_generator(0, "test"))

    # Values are log1p of 10,000 a cell: the shares of the molecules that were drawn.
    shares = np.expm1(cells.expression.toarray().astype(np.float64)) / 1e4
    drawn = shares * np.minimum(counted.sum(axis=1), depth)[:, None]
    assert np.abs(drawn - np.rint(drawn)).max() < 1e-3
    assert (np.rint(drawn) <= counted).all()
    assert np.allclose(drawn.sum(axis=1), np.minimum(counted.sum(axis=1), depth), atol=1e-3)


def test_a_file_without_counts_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be drawn from normalised values."""
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "benchmarks")
    from benchmarks import panels

    make_adata(40, 60, scale="ln").write_h5ad(tmp_path / "cells.h5ad")
    assert panels.TestFile.read(tmp_path / "cells.h5ad", "cell_type").counts is None
