"""An opened file of cells or AnnData: tables in memory, matrices read by blocks of rows.

The few elements of an h5ad file that nearly every one has, read and written without importing anndata.

Importing anndata takes as long as annotating ten thousand cells. What is handled here follows its specification of the
format (encodings ``array``, ``string-array``, ``categorical``, ``dict`` and scalars, version 0.2.0); anything else,
and every zarr store, goes to anndata.

A table of a file of which only the index is read at once, and a column when it is asked for.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy.sparse as sp

from canal.data.sparse_checks import check_matrix
from canal.data.stored import rows_of
from canal.errors import DataError

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


VERSION = "0.2.0"


def read_element(element: Any) -> Any:
    """Return a column, an array or whatever else is stored in an HDF5 or zarr element."""
    kind = str(element.attrs.get("encoding-type", ""))
    if hasattr(element, "asstr") and kind == "string-array":
        return element.asstr()[...]
    if hasattr(element, "asstr") and kind == "array" and element.dtype.kind in "biuf":
        return element[...]
    if kind == "categorical" and hasattr(element.get("categories"), "asstr"):
        import pandas as pd

        names = read_element(element["categories"])
        return pd.Categorical.from_codes(element["codes"][...], names, ordered=bool(element.attrs["ordered"]))
    from anndata.io import read_elem

    return read_elem(element)


def write_element(group: Any, name: str, value: Any) -> None:
    """Write a column of numbers or text, a categorical, or a table of plain values; replace what was there.

    Parameters
    ----------
    group
        HDF5 group to write to.
    name
        Name of the element.
    value
        ``pandas.Categorical`` of text, NumPy array of numbers or text, text, number or truth value, or a mapping of
        these.
    """
    if name in group:
        del group[name]
    if isinstance(value, Mapping):
        made = _marked(group.create_group(name), "dict", "0.1.0")
        for key, part in value.items():
            write_element(made, key, part)
    elif hasattr(value, "categories"):
        made = _marked(group.create_group(name), "categorical")
        made.attrs["ordered"] = bool(value.ordered)
        write_element(made, "codes", np.asarray(value.codes))
        write_element(made, "categories", np.asarray(value.categories, dtype=object))
    elif isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
        _marked(_texts(group, name, value.astype(object)), "string-array")
    elif isinstance(value, np.ndarray):
        _marked(group.create_dataset(name, data=value), "array")
    elif isinstance(value, str):
        _marked(_texts(group, name, value), "string")
    else:
        assert isinstance(value, bool | int | float | np.generic), type(value)
        _marked(group.create_dataset(name, data=value), "numeric-scalar")


def holds(group: Any, name: str, value: Any) -> bool:
    """Tell whether a group holds what `write_element` writes.

    Parameters
    ----------
    group, name, value
        As for `write_element`.
    """
    element = group.get(name)
    if element is None:
        return False
    if isinstance(value, Mapping):
        return set(element) == set(value) and all(holds(element, key, part) for key, part in value.items())
    if hasattr(value, "categories"):
        names = np.asarray(value.categories, dtype=object)
        return holds(element, "codes", np.asarray(value.codes)) and holds(element, "categories", names)
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
        return bool(element.shape == value.shape and element.asstr()[...].tolist() == value.astype(object).tolist())
    if isinstance(value, np.ndarray):
        return np.array_equal(element[...], value, equal_nan=value.dtype.kind == "f")
    return bool((element.asstr()[()] if isinstance(value, str) else element[()]) == value)


def _texts(group: Any, name: str, value: Any) -> Any:
    import h5py

    return group.create_dataset(name, data=value, dtype=h5py.string_dtype())


def _marked(element: Any, kind: str, version: str = VERSION) -> Any:
    element.attrs["encoding-type"], element.attrs["encoding-version"] = kind, version
    return element


class StoredTable:
    """The table of the cells in an HDF5 or zarr group; as much of a `pandas.DataFrame` as reading cells needs.

    Parameters
    ----------
    group
        Group of AnnData's encoding ``dataframe``, open as long as columns are asked for.
    source
        Name of the file, for messages.

    Attributes
    ----------
    index
        Names of the rows.
    columns
        Names of the columns, in their order.
    """

    def __init__(self, group: Any, source: str) -> None:
        import pandas as pd

        self._group, self._source = group, source
        self.index = pd.Index(read_element(group[_text(group.attrs["_index"])]))
        self.columns = pd.Index([_text(name) for name in group.attrs["column-order"]], dtype=object)
        missing = [name for name in self.columns if name not in group]
        if missing:
            message = f"the table names the columns {', '.join(missing)} but does not have them"
            raise KeyError(message)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.index), len(self.columns)

    def __contains__(self, column: object) -> bool:
        return column in self.columns

    def __getitem__(self, column: str) -> "pd.Series":
        import pandas as pd

        if column not in self.columns:
            raise KeyError(column)
        values = self._read(column)
        if np.shape(values) != (len(self.index),):
            message = (
                f"{self._source}: the column {column!r} has the shape {np.shape(values)}; expected one value for "
                f"each of the {len(self.index)} rows. The file is damaged: write it anew."
            )
            raise DataError(message)
        return pd.Series(values, index=self.index, name=column)

    def frame(self) -> "pd.DataFrame":
        """Return the whole table."""
        import pandas as pd

        return pd.DataFrame({name: self[name] for name in self.columns}, index=self.index, columns=self.columns)

    def rows(self, wanted: np.ndarray) -> "pd.DataFrame":
        """Return all columns of the rows that are wanted, bool (rows,)."""
        return self.frame()[wanted]

    def _read(self, column: str) -> Any:
        try:
            return read_element(self._group[column])
        except ModuleNotFoundError:
            raise
        except Exception as error:  # a damaged file makes h5py, zarr and anndata raise anything
            message = (
                f"{self._source}: the column {column!r} cannot be read ({error}). The file is damaged or was cut off: "
                "copy it again or write it anew."
            )
            raise DataError(message) from error


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


SAMPLED_RUNS = 16
RUN_LENGTH = 32


class Matrix:
    """Rows of a stored matrix of shape (cells, genes), whatever holds it.

    Matrices on disk are read a block of rows at a time, whatever their layout; see `canal.data.stored`.

    Parameters
    ----------
    stored
        NumPy or SciPy matrix, HDF5 or zarr array, a sparse matrix of `canal.data.stored`, or AnnData's own.
    source, where
        Name of the file and place in it, for messages.
    """

    def __init__(self, stored: Any, source: str, where: str) -> None:
        self._stored = stored
        self._source, self._where = source, where
        self._checked = False
        self.shape: tuple[int, int] = (int(stored.shape[0]), int(stored.shape[1]))

    def rows(self, start: int, stop: int) -> sp.csr_matrix:
        """Return the rows from ``start`` to ``stop`` as CSR, sorted and without stored zeros.

        Raises
        ------
        DataError
            If the file is damaged there.
        """
        self._check_kind()
        try:
            self._convert_columns()
            block = self._stored[start:stop]
            if hasattr(block, "compute"):
                block = block.compute()
            rows = sp.csr_matrix(block) if sp.issparse(block) else sp.csr_matrix(np.asarray(block))
        except ModuleNotFoundError:
            raise
        except Exception as error:  # a damaged file makes h5py, zarr and codecs raise anything
            message = (
                f"{self._source}: rows {start} to {stop} of {self._where} cannot be read "
                f"({error}). The file is damaged or was cut off: copy it again or write it anew."
            )
            raise DataError(message) from error
        return _tidied(rows, shared=rows is self._stored or np.shares_memory(rows.data, _data(self._stored)))

    def blocks(self, size: int, first: int = 0, end: int | None = None) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Yield the position of the first row and the rows of every block, in order; of rows ``first`` to ``end``."""
        end = self.shape[0] if end is None else end
        for start in range(first, end, size):
            yield start, self.rows(start, min(start + size, end))

    @cached_property
    def sampled(self) -> sp.csr_matrix:
        """Up to 512 rows, in runs spread evenly over the matrix; the same each time."""
        n = self.shape[0]
        if n <= SAMPLED_RUNS * RUN_LENGTH:
            return self.rows(0, n)
        starts = np.linspace(0, n - RUN_LENGTH, SAMPLED_RUNS).astype(int)
        return sp.vstack([self.rows(s, s + RUN_LENGTH) for s in starts.tolist()], format="csr")

    def _check_kind(self) -> None:
        kind = np.dtype(self._stored.dtype)
        if kind.kind not in "fiub":
            message = (
                f"{self._source}: {self._where} holds values of type {kind}; expected numbers. "
                "Write raw counts there as numbers."
            )
            raise DataError(message)

    def _convert_columns(self) -> None:
        stored = self._stored
        if sp.issparse(stored):
            if not self._checked:  # once; those on disk check what they read
                check_matrix(stored)
                self._checked = True
            if stored.format != "csr":
                self._stored = stored.tocsr()
        elif hasattr(stored, "group"):  # AnnData's backed matrices
            self._stored = rows_of(stored.group)


@dataclass(frozen=True, kw_only=True)
class CellSource:
    """What a file of cells holds.

    Attributes
    ----------
    source
        The file as it was named.
    obs, var
        Tables of the cells and of the genes; ``raw_var`` that of the genes of ``raw``, or ``None``. The table of the
        cells may be one that stays in its file.
    places
        The matrices by place: ``"X"``, ``"raw.X"``, ``"layers['counts']"``; all of shape (cells,
        genes of the place).
    log_base
        Base of the logarithm that ``uns["log1p"]`` states, or ``None`` where nothing is stated.
    """

    source: str
    obs: "pd.DataFrame | StoredTable"
    var: "pd.DataFrame"
    raw_var: "pd.DataFrame | None" = None
    places: Mapping[str, Matrix]
    log_base: float | None = None
    handles: tuple[Any, ...] = field(default=(), repr=False)

    def genes_at(self, where: str) -> "pd.DataFrame":
        """Return the table of the genes whose values stand at a place."""
        import pandas as pd

        if where != "raw.X" or self.raw_var is None:
            return self.var
        if not self.raw_var.index.equals(self.var.index):
            return self.raw_var
        more = [column for column in self.var.columns if column not in self.raw_var.columns]
        return pd.concat([self.raw_var, self.var[more]], axis=1)  # raw.var often lacks the columns of var

    def close(self) -> None:
        """Close the file; blocks cannot be read any more."""
        for handle in self.handles:
            with suppress(AttributeError):  # zarr groups need no closing
                handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def layers_of(adata: "ad.AnnData") -> dict[str, Any]:
    """Return the layers by name, without X: since anndata 0.13 it stands among them under the name None."""
    return {name: layer for name, layer in adata.layers.items() if name is not None}


def from_adata(adata: "ad.AnnData", source: str = "AnnData") -> CellSource:
    """Look at an AnnData as a source of cells; nothing of it is changed or copied."""
    raw = adata.raw
    stored = {f"layers['{name}']": layer for name, layer in layers_of(adata).items()}
    stored["X"] = adata.X
    if raw is not None:
        stored["raw.X"] = raw.X
    return CellSource(
        source=source,
        obs=adata.obs,
        var=adata.var,
        raw_var=None if raw is None else raw.var,
        places={w: Matrix(m, source, w) for w, m in stored.items() if m is not None and len(m.shape) == 2},
        log_base=stated_base(adata.uns.get("log1p")),
    )


def stated_base(log1p: Any) -> float | None:
    """Return the base that scanpy left in ``uns["log1p"]``.

    scanpy writes ``{"base": None}`` for the natural logarithm, and older files drop the ``None``.
    """
    if not isinstance(log1p, Mapping):
        return None
    base = log1p.get("base")
    if base is None:
        return float(np.e)
    try:
        return float(np.asarray(base).item())
    except (TypeError, ValueError):
        return None


def _data(stored: Any) -> np.ndarray:
    data = getattr(stored, "data", None)
    return data if isinstance(data, np.ndarray) else np.empty(0)


def _tidied(rows: sp.csr_matrix, *, shared: bool) -> sp.csr_matrix:
    if rows.has_sorted_indices and rows.has_canonical_format and rows.data.all():
        return rows
    if shared:  # never alter the caller's matrix
        rows = rows.copy()
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return rows
