"""Expression by genes, and the map: arrays as a page takes them."""

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from canal.data.stream import open_stream
from canal.errors import DataError
from canal.progress import Silent
from canal.review import expression as module
from canal.review import maps
from canal.review.expression import Expression, GeneColumns, write_gene_columns
from tests.make import make_adata, make_counts, to_scale


def opened(folder: Path, layout: str, *, stored: bool = True) -> Expression:
    """Return the expression of toy cells in a file."""
    file = folder / "cells.h5ad"
    make_adata(90, 40, layout=layout, seed=3).write_h5ad(file)
    stream = open_stream(file, chunk=16)
    if not stored:
        return Expression(stream, None)
    write_gene_columns(stream, folder / "genes", Silent())
    return Expression(stream, GeneColumns(folder / "genes"))


def reference() -> np.ndarray:
    """Return what the file should hold, by the formula."""
    return to_scale(make_counts(np.arange(90) % 3, np.zeros(90, dtype=int), 40, 3), "ln")


@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
@pytest.mark.parametrize("stored", [True, False])
def test_a_gene_is_what_the_file_holds(
    tmp_path: Path, layout: str, *, stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the layout, and however many blocks: log-normalised values of all cells, within float32."""
    monkeypatch.setattr(module, "VALUES_A_BLOCK", 300)  # several blocks
    expected = reference()
    cells = opened(tmp_path, layout, stored=stored)
    for gene in (0, 7, 39):
        column = cells.gene(f"GENE{gene}")
        assert column.dtype == np.float32
        np.testing.assert_allclose(column, expected[:, gene], rtol=1e-5, atol=1e-6)
    rows = np.array([0, 1, 2, 30, 89])
    np.testing.assert_allclose(cells.rows(rows).toarray(), expected[rows], rtol=1e-5, atol=1e-6)
    assert cells.rows(np.zeros(0, dtype=int)).shape == (0, 40)
    cells.close()


def test_genes_are_found_by_their_beginning_first(tmp_path: Path) -> None:
    """Case does not count; a name that is not there is refused with others like it."""
    cells = opened(tmp_path, "csr")
    assert cells.find("gene1", 3) == ["GENE1", "GENE10", "GENE11"]
    assert cells.find("3", 2) == ["GENE13", "GENE23"]
    with pytest.raises(DataError, match=r"no gene 'GENE99'. It has GENE0"):
        cells.gene("GENE99")


def test_genes_of_the_mouse_are_found_by_their_own_names(tmp_path: Path) -> None:
    """They are named as their human orthologues, and people type what the file says."""
    names = ["Cd8b1", "Fcgr4", "Ins2", "Trp53", "Car4", "Cd3d"]
    make_adata(20, 6, genes=names).write_h5ad(tmp_path / "mouse.h5ad")
    cells = Expression(open_stream(tmp_path / "mouse.h5ad"), None)
    assert (cells.find("ins", 3), cells.find("trp", 3), cells.find("cd8", 3)) == (["INS"], ["TP53"], ["CD8B"])
    assert cells.gene("INS").shape == (20,)
    cells.close()


def test_coordinates_fill_the_square_in_proportion() -> None:
    """Float32 within -1 and 1, one axis from end to end; a single cell is in the middle."""
    points = maps.scaled(np.array([[0.0, 10.0], [8.0, 10.0], [4.0, 12.0]]))
    assert points.dtype == np.float32
    assert points.flags.c_contiguous
    np.testing.assert_allclose(points, [[-1, -0.25], [1, -0.25], [0, 0.25]])
    np.testing.assert_allclose(maps.scaled(np.array([[3.0, 4.0]])), [[0, 0]])


def test_too_many_cells_for_a_umap_get_components_and_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two directions of largest spread, the same each time, with a sentence that says so."""
    monkeypatch.setattr(maps, "MOST_UMAP", 10)
    spread = np.random.default_rng(0).normal(size=(200, 5)) * [1, 9, 1, 4, 1]
    cells = opened(tmp_path, "csr")
    told = maps.computed_points(cells, spread.astype(np.float32), 0, tmp_path, Silent())
    assert told.basis == "pca"
    assert "more than 10" in told.note
    assert abs(np.corrcoef(told.coordinates[:, 0], spread[:, 1])[0, 1]) > 0.99
    assert abs(np.corrcoef(told.coordinates[:, 1], spread[:, 3])[0, 1]) > 0.99
    again = maps.computed_points(cells, np.zeros_like(spread), 0, tmp_path, Silent())  # kept
    np.testing.assert_array_equal(told.coordinates, again.coordinates)
    cells.close()


def test_coordinates_of_a_file_have_to_be_numbers_of_its_cells(tmp_path: Path) -> None:
    """What is missing, too narrow or no number is refused by name."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        obsm = file.create_group("obsm")
        obsm["X_umap"] = np.array([[0.0, 1.0, 5.0], [1.0, 2.0, 5.0]])
        obsm["X_bad"] = np.array([[0.0, np.nan], [1.0, 2.0]])
        obsm["X_line"] = np.zeros((2, 1))
        assert maps.stored_bases(obsm) == ["X_bad", "X_umap"]
        assert maps.stored_points(obsm, "X_umap", 2, "cells").coordinates.tolist() == [[-1, -1], [1, 1]]
        for name, cells, message in (
            ("X_tsne", 2, "has no obsm.'X_tsne'. with two numbers a cell. It has X_bad, X_umap"),
            ("X_line", 2, "has no obsm"),
            ("X_bad", 2, "1 of them without a finite number"),
            ("X_umap", 3, "expected one position for each of the 3 cells"),
        ):
            with pytest.raises(DataError, match=message):
                maps.stored_points(obsm, name, cells, "cells")


def test_categories_are_positions_in_their_names() -> None:
    """In the order that was asked for, else by size; cells without one come last."""
    values = np.array(["b", "", "a", "b", "<i>"], dtype=object)
    told = maps.category_colour(values, "x")
    assert told.names == ("b", "<i>", "a", "")
    assert told.values.dtype == np.uint16
    assert [told.names[code] for code in told.values] == values.tolist()
    assert maps.category_colour(values, "x", ("a", "b")).names == ("a", "b", "<i>", "")
    assert maps.category_colour(np.array([], dtype=object), "x").names == ()


def test_numbers_keep_their_range_without_what_is_none() -> None:
    """Infinite and missing values are NaN, and the caller's array stays as it was."""
    values = np.array([1.0, np.inf, np.nan, -2.0], dtype=np.float32)
    told = maps.number_colour(values, "x")
    assert (told.low, told.high) == (-2.0, 1.0)
    assert np.isnan(told.values[1:3]).all()
    assert np.isinf(values[1])


def test_more_cells_than_a_page_can_draw_are_refused() -> None:
    """The limit is said, and what to do."""
    maps.check_size(1_000_000, "cells.h5ad")
    with pytest.raises(DataError, match="1000001 cells; a review shows 1000000 at most"):
        maps.check_size(1_000_001, "cells.h5ad")


def test_a_million_cells_are_coloured_within_little_memory() -> None:
    """Names of a million cells become two megabytes; what is needed meanwhile stays below 150."""
    values = np.array(["B", "NK", "DC", "HSC"], dtype=object)[np.arange(1_000_000) % 4]
    tracemalloc.start()
    told = maps.category_colour(values, "x")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told.values.nbytes == 2_000_000
    assert most < 150e6
