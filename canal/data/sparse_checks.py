"""Whether three arrays are a sparse matrix: checked before SciPy's compiled code sees them.

SciPy looks at the first and the last pointer alone. An index that is out of bounds, or pointers that go back, make its
compiled loops read and write beside their arrays: the process crashes, or memory is overwritten in silence. Everything
that comes from a file goes through here. Pointers are few and are checked when a matrix is opened; indices are checked
when they are read, a block at a time, so that no file is read twice.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    import anndata as ad

MOST = 2**31 - 1  # rows or columns: positions are kept as 32-bit integers


class BadSparseError(ValueError):
    """Three arrays that are no sparse matrix; says what was found and what was expected."""


def check_shape(shape: Any) -> tuple[int, int]:
    """Return a stored shape as two numbers.

    Raises
    ------
    BadSparseError
        If it is anything but two integers from 0 to `MOST`.
    """
    values = np.asarray(shape)
    if values.shape != (2,) or values.dtype.kind not in "iu" or not all(0 <= int(v) <= MOST for v in values):
        message = f"its shape is {_shown(values)}; expected two integers from 0 to {MOST}"
        raise BadSparseError(message)
    return int(values[0]), int(values[1])


def check_parts(data: Any, indices: Any, indptr: Any, majors: int) -> None:
    """Compare kind and length of three arrays, in memory or on disk; nothing of them is read.

    Parameters
    ----------
    data, indices, indptr
        Values, their positions, and where each row (by rows) or column (by columns) begins among them.
    majors
        Number of rows, or of columns of a matrix by columns.

    Raises
    ------
    BadSparseError
        If they do not fit together.
    """
    for name, part in (("data", data), ("indices", indices), ("indptr", indptr)):
        if len(getattr(part, "shape", ())) != 1:
            message = f"its array {name!r} is no list of numbers: its shape is {getattr(part, 'shape', None)}"
            raise BadSparseError(message)
    for name, part in (("indices", indices), ("indptr", indptr)):
        if np.dtype(part.dtype).kind not in "iu":
            message = f"its array {name!r} is of type {part.dtype}; expected integers"
            raise BadSparseError(message)
    if data.shape != indices.shape:
        message = f"it has {data.shape[0]} values, but {indices.shape[0]} indices"
        raise BadSparseError(message)
    if indptr.shape[0] != majors + 1:
        message = f"it has {indptr.shape[0]} pointers; expected {majors + 1}, one more than its shape says"
        raise BadSparseError(message)


def check_pointers(indptr: np.ndarray, stored: int) -> np.ndarray:
    """Return pointers as int64.

    Parameters
    ----------
    indptr
        Integers, one at least.
    stored
        Number of values.

    Raises
    ------
    BadSparseError
        If they do not begin with 0, go back, or do not end at the number of values.
    """
    # Compared as they are stored: a 64-bit number without sign would turn negative in another type.
    first, last = int(indptr[0]), int(indptr[-1])
    if first != 0 or last != stored:
        message = f"its pointers go from {first} to {last}; expected 0 to {stored}, the number of values"
        raise BadSparseError(message)
    back = np.flatnonzero(indptr[1:] < indptr[:-1])
    if len(back):
        at = int(back[0])
        message = f"its pointers go back, from {int(indptr[at])} to {int(indptr[at + 1])} at position {at + 1}"
        raise BadSparseError(message)
    return np.asarray(indptr, dtype=np.int64)


def check_indices(indices: np.ndarray, minors: int, what: str) -> None:
    """Refuse positions that are out of bounds.

    Parameters
    ----------
    indices
        Integers, any number of them.
    minors
        Number of columns, or of rows of a matrix by columns.
    what
        ``"column"`` or ``"row"``, for the message.

    Raises
    ------
    BadSparseError
        If one is below 0 or not below ``minors``.
    """
    if not len(indices):
        return
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= minors:
        message = f"a {what} index is {low if low < 0 else high}: outside of the {minors} {what}s"
        raise BadSparseError(message)


def csr_of(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    """Return the matrix by rows of three arrays that were read whole.

    Raises
    ------
    BadSparseError
        If they are no such matrix.
    """
    check_parts(data, indices, indptr, shape[0])
    check_pointers(indptr, len(data))
    check_indices(indices, shape[1], "column")
    return sp.csr_matrix((data, indices, indptr), shape=shape)


def check_matrix(matrix: Any) -> None:
    """Refuse a SciPy matrix by rows or by columns whose arrays are none; others hold no such arrays.

    Raises
    ------
    BadSparseError
        If its arrays do not fit together.
    """
    if not sp.issparse(matrix) or matrix.format not in ("csr", "csc"):
        return
    by_rows = matrix.format == "csr"
    majors, minors = matrix.shape if by_rows else matrix.shape[::-1]
    check_parts(matrix.data, matrix.indices, matrix.indptr, majors)
    check_pointers(matrix.indptr, len(matrix.data))
    check_indices(matrix.indices, minors, "column" if by_rows else "row")


def check_all_matrices(adata: "ad.AnnData") -> None:
    """Check every sparse matrix of an AnnData that was read whole, whatever place it stands in.

    Raises
    ------
    BadSparseError
        If one is none; the message names its place.
    """
    for where, matrix in _matrices(adata):
        try:
            check_matrix(matrix)
        except BadSparseError as error:
            message = f"{where}: {error}"
            raise BadSparseError(message) from error


def _matrices(adata: "ad.AnnData") -> Iterable[tuple[str, Any]]:
    yield "X", adata.X
    if adata.raw is not None:
        yield "raw.X", adata.raw.X
    for place in ("layers", "obsm", "varm", "obsp", "varp"):
        for name, matrix in getattr(adata, place).items():
            yield f"{place}[{name!r}]", matrix


def _shown(values: np.ndarray) -> str:
    text = str(values.tolist())
    return text if len(text) <= 60 else text[:60] + "..."
