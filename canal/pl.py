"""Pictures for notebooks, drawn from plain columns.

>>> canal.pl.dotplot(adata.obs["cell_type"], adata.obs["canal_cell_type"])  # doctest: +SKIP
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LARGEST_DOT = 180.0  # points squared, for all cells of a row
INCHES_PER_TYPE = 0.42


def dotplot(
    given: "Sequence[Any] | np.ndarray | pd.Series",
    predicted: "Sequence[Any] | np.ndarray | pd.Series",
    *,
    confidence: "Sequence[float] | np.ndarray | pd.Series | None" = None,
    axes: "Axes | None" = None,
) -> "Axes":
    """Draw given against predicted types: how the cells of each given type were annotated.

    Parameters
    ----------
    given, predicted
        Type of each cell by hand and by canal, or clusters and types, each (cells,).
    confidence
        Of each cell, (cells,): then the colour is the mean confidence; the share of the row by default.
    axes
        Where to draw; a new figure by default.

    Returns
    -------
    The axes. The area of a dot is the share of the row's cells.

    Raises
    ------
    ConfigError
        If the columns are not of the same cells, or there are none.
    """
    rows, columns = _texts(given), _texts(predicted)
    sure = None if confidence is None else np.asarray(confidence, dtype=float)
    if not len(rows) or len(rows) != len(columns) or (sure is not None and len(sure) != len(rows)):
        message = (
            f"given holds {len(rows)} cells, predicted {len(columns)}"
            f"{'' if sure is None else f', confidence {len(sure)}'}; expected one value for each of the same cells."
        )
        raise ConfigError(message)
    # The share of each row that has each predicted type, and what the colour shows, (rows, columns).
    row_names, row_of = np.unique(rows, return_inverse=True)
    column_names, column_of = np.unique(columns, return_inverse=True)
    shape = (len(row_names), len(column_names))
    cells, total = np.zeros(shape), np.zeros(shape)
    np.add.at(cells, (row_of, column_of), 1.0)
    share = cells / cells.sum(axis=1, keepdims=True)
    colour = share
    if sure is not None:
        np.add.at(total, (row_of, column_of), sure)
        colour = np.divide(total, cells, out=np.zeros(shape), where=cells > 0)
    # Columns in the order of the rows that they are commonest in, so that what agrees stands on a diagonal.
    order = np.lexsort((np.arange(shape[1]), share.argmax(axis=0)))
    return _draw(share[:, order], colour[:, order], row_names, column_names[order], axes, by_share=sure is None)


def _draw(
    share: np.ndarray, colour: np.ndarray, rows: np.ndarray, columns: np.ndarray, axes: "Axes | None", *, by_share: bool
) -> "Axes":
    from matplotlib import pyplot

    if axes is None:
        size = (2.5 + INCHES_PER_TYPE * len(columns), 1.5 + INCHES_PER_TYPE * len(rows))
        _, axes = pyplot.subplots(figsize=size, layout="constrained")
    y, x = np.nonzero(share)
    dots = axes.scatter(
        x,
        y,
        s=LARGEST_DOT * share[y, x],
        c=colour[y, x],
        cmap="YlGnBu",
        vmin=0,
        vmax=1,
        edgecolors="0.5",
        linewidths=0.5,
    )
    axes.set_xticks(range(len(columns)), [str(name) for name in columns], rotation=40, ha="right")
    axes.set_yticks(range(len(rows)), [str(name) for name in rows])
    axes.invert_yaxis()
    axes.set_xlabel("predicted")
    axes.set_ylabel("given")
    axes.figure.colorbar(dots, ax=axes, label="share of the row" if by_share else "mean confidence", shrink=0.6)
    return axes


def _texts(values: Any) -> np.ndarray:
    """Return names as text, "" for what is missing, (cells,)."""
    import pandas as pd

    series = pd.Series(np.asarray(values, dtype=object))
    return np.asarray(series.where(series.notna(), "").astype(str), dtype=str)
