"""A table of a file of which only the index is read at once, and a column when it is asked for."""

from typing import TYPE_CHECKING, Any

import numpy as np

from canal.data.elements import read_element
from canal.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


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
