"""The few elements of an h5ad file that nearly every one has, read and written without importing anndata.

Importing anndata takes as long as annotating ten thousand cells. What is handled here follows its specification of the
format (encodings ``array``, ``string-array``, ``categorical``, ``dict`` and scalars, version 0.2.0); anything else,
and every zarr store, goes to anndata.

A table of a file of which only the index is read at once, and a column when it is asked for.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.errors import DataError

if TYPE_CHECKING:
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
        return pd.Series(self._read(column), index=self.index, name=column)

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
        except Exception as error:  # a damaged file makes h5py, zarr and anndata raise anything
            message = (
                f"{self._source}: the column {column!r} cannot be read ({error}). The file is damaged or was cut off: "
                "copy it again or write it anew."
            )
            raise DataError(message) from error


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
