"""Rows of sparse matrices that lie in HDF5 or zarr, by rows (CSR) or by columns (CSC)."""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp

from canal.data.sparse_checks import check_indices, check_parts, check_pointers, check_shape

ENCODINGS = {"csr_matrix": "csr", "csc_matrix": "csc"}
IN_MEMORY = 16_000_000  # values of a matrix by columns that is turned in memory
AT_A_TIME = 4_000_000  # values read at a time, and values of a bucket


class Rows(Protocol):
    """A matrix that gives its rows."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def __getitem__(self, rows: slice) -> sp.csr_matrix: ...


def is_sparse(element: Any) -> bool:
    """Tell whether a group is a sparse matrix of AnnData's encoding."""
    return str(element.attrs.get("encoding-type", "")) in ENCODINGS


def rows_of(group: Any) -> Rows:
    """Return a sparse matrix on disk as one that gives its rows; nothing but its row pointers is read yet.

    Parameters
    ----------
    group
        HDF5 or zarr group with ``data``, ``indices`` and ``indptr``.

    Raises
    ------
    BadSparseError
        If they are no sparse matrix. Its indices are checked with every block of rows that is asked for.
    """
    by_rows = ENCODINGS[str(group.attrs["encoding-type"])] == "csr"
    return StoredRows(group) if by_rows else StoredColumns(group)


class StoredRows:
    """A matrix by rows on disk.

    Parameters
    ----------
    group
        As for `rows_of`.
    """

    def __init__(self, group: Any) -> None:
        self.shape = check_shape(group.attrs["shape"])
        self._data, self._indices, self._indptr = _parts(group, self.shape[0])
        self.dtype = np.dtype(self._data.dtype)

    def __getitem__(self, rows: slice) -> sp.csr_matrix:
        start, stop, _ = rows.indices(self.shape[0])
        indptr = self._indptr[start : stop + 1]
        part = slice(int(indptr[0]), int(indptr[-1]))
        data, indices = np.asarray(self._data[part]), np.asarray(self._indices[part])
        check_indices(indices, self.shape[1], "column")
        return sp.csr_matrix((data, indices, indptr - indptr[0]), shape=(stop - start, self.shape[1]))


class StoredColumns:
    """A matrix by columns on disk, turned into rows once, in memory that does not grow with it.

    Rows of such a matrix stand all over the file. One of up to `IN_MEMORY` values is turned in memory. A larger one is
    dealt into buckets of consecutive rows (distribution sort, Knuth, TAOCP 3, 5.4.9): the columns are read once, a few
    at a time, and what belongs to a bucket is written behind what is there. Each bucket, `AT_A_TIME` values on
    average, is then sorted when its rows are asked for. That takes as much room in the folder for temporary files as
    the matrix has uncompressed, twice its time of reading, and memory for a few buckets.

    Parameters
    ----------
    group
        As for `rows_of`.
    in_memory, at_a_time
        In values.
    """

    def __init__(self, group: Any, in_memory: int = IN_MEMORY, at_a_time: int = AT_A_TIME) -> None:
        self._group, self._at_a_time = group, at_a_time
        self.shape = check_shape(group.attrs["shape"])
        self._data, self._indices, self._indptr = _parts(group, self.shape[1])
        self.dtype = np.dtype(self._data.dtype)
        values = int(self._indptr[-1])
        buckets = 1 if values <= in_memory else -(-values // at_a_time)
        self._height = max(1, -(-self.shape[0] // buckets))
        self._folder: Path | None = None
        self._held: tuple[int, sp.csr_matrix] | None = None

    def __getitem__(self, rows: slice) -> sp.csr_matrix:
        start, stop, _ = rows.indices(self.shape[0])
        first, last = start // self._height, max(start, stop - 1) // self._height
        parts = []
        for bucket in range(first, last + 1):
            base = bucket * self._height
            parts.append(self._bucket(bucket)[max(start - base, 0) : stop - base])
        return parts[0] if len(parts) == 1 else sp.vstack(parts, format="csr")

    def _bucket(self, bucket: int) -> sp.csr_matrix:
        """Return the rows of a bucket; the one that was asked for last is kept."""
        if self._held is None or self._held[0] != bucket:
            self._held = None
            self._held = (bucket, self._whole() if self._height >= self.shape[0] else self._sorted(bucket))
        return self._held[1]

    def _whole(self) -> sp.csr_matrix:
        parts = (np.asarray(self._data[...]), np.asarray(self._indices[...]), self._indptr)
        check_indices(parts[1], self.shape[0], "row")
        return sp.csc_matrix(parts, shape=self.shape).tocsr()

    def _sorted(self, bucket: int) -> sp.csr_matrix:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="canal-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            self._deal(self._folder)
        entries = np.fromfile(self._folder / str(bucket), dtype=self._entry)
        height = min(self._height, self.shape[0] - bucket * self._height)
        rows = entries["row"] - bucket * self._height
        return sp.csr_matrix((entries["value"], (rows, entries["column"])), shape=(height, self.shape[1]))

    @property
    def _entry(self) -> np.dtype[Any]:
        return np.dtype([("row", np.int32), ("column", np.int32), ("value", self.dtype)])

    def _deal(self, folder: Path) -> None:
        buckets = -(-self.shape[0] // self._height)
        for bucket in range(buckets):
            (folder / str(bucket)).touch()
        column = 0
        while column < self.shape[1]:
            most = int(np.searchsorted(self._indptr, self._indptr[column] + self._at_a_time, side="right")) - 1
            stop = min(max(most, column + 1), self.shape[1])
            self._deal_columns(folder, column, stop)
            column = stop

    def _deal_columns(self, folder: Path, start: int, stop: int) -> None:
        part = slice(int(self._indptr[start]), int(self._indptr[stop]))
        entries = np.empty(part.stop - part.start, dtype=self._entry)
        indices = np.asarray(self._indices[part])
        check_indices(indices, self.shape[0], "row")  # before they are kept as 32-bit integers
        entries["row"], entries["value"] = indices, self._data[part]
        entries["column"] = np.repeat(np.arange(start, stop), np.diff(self._indptr[start : stop + 1]))
        of = entries["row"] // self._height
        order = np.argsort(of, kind="stable")
        ends = np.searchsorted(of[order], np.arange(-(-self.shape[0] // self._height) + 1))
        for bucket in np.flatnonzero(np.diff(ends)).tolist():
            with (folder / str(bucket)).open("ab") as file:
                entries[order[ends[bucket] : ends[bucket + 1]]].tofile(file)


def _parts(group: Any, majors: int) -> tuple[Any, Any, np.ndarray]:
    """Return values and indices of a group as they are stored, and its pointers, which are read and checked."""
    data, indices, indptr = group["data"], group["indices"], group["indptr"]
    check_parts(data, indices, indptr, majors)
    return data, indices, check_pointers(np.asarray(indptr[...]), int(data.shape[0]))
