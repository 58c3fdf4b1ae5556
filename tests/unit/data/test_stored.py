"""Rows of matrices on disk are the same whatever their layout, without reading all of it."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from anndata.io import write_elem
from hypothesis import given, settings
from hypothesis import strategies as st

from canal.data.stored import StoredColumns, StoredRows, rows_of


def matrix(n: int = 57, genes: int = 23, seed: int = 0) -> sp.csr_matrix:
    """Return a random matrix with empty rows and columns."""
    made = sp.random(n, genes, density=0.3, format="lil", rng=np.random.default_rng(seed), dtype=np.float32)
    made[3], made[:, 5] = 0, 0
    return made.tocsr()


@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 56), size=st.integers(0, 57), at_a_time=st.integers(1, 60))
def test_columns_give_their_rows(start: int, size: int, at_a_time: int) -> None:
    """Dealt into buckets of any size, a matrix by columns has the rows it has in memory."""
    expected = matrix()
    with h5py.File("unused", "w", driver="core", backing_store=False) as file:
        write_elem(file, "X", expected.tocsc())
        stored = StoredColumns(file["X"], in_memory=0, at_a_time=at_a_time)
        found = stored[start : start + size]
        again = stored[start : start + size]

    assert (found != expected[start : start + size]).nnz == 0
    assert (again != found).nnz == 0
    assert found.has_sorted_indices


@pytest.mark.filterwarnings("ignore:zarr v3 autosharding")
@pytest.mark.parametrize("layout", ["csr", "csc"])
@pytest.mark.parametrize("container", ["h5ad", "zarr"])
def test_containers_and_layouts(layout: str, container: str, tmp_path: Path) -> None:
    """HDF5 and zarr, by rows and by columns, give the same rows."""
    expected = matrix()
    group = h5py.File(tmp_path / "x.h5", "w") if container == "h5ad" else zarr.open_group(str(tmp_path / "x"), mode="w")
    write_elem(group, "X", expected.asformat(layout))

    stored = rows_of(group["X"])

    assert isinstance(stored, StoredRows if layout == "csr" else StoredColumns)
    assert stored.shape == expected.shape
    assert (stored[10:31] != expected[10:31]).nnz == 0
    if container == "h5ad":
        group.close()


def test_an_index_outside_is_damage() -> None:
    """A column that the matrix does not have is refused, not read past the end of a row."""
    with h5py.File("unused", "w", driver="core", backing_store=False) as file:
        write_elem(file, "X", matrix())
        file["X/indices"][4] = 1000
        with pytest.raises(ValueError, match="outside of the 23 columns"):
            rows_of(file["X"])[0:57]
