"""Tables drawn as coloured fields with their figures in them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EMPTY = "#f0f0f0"
LARGE = 30  # rows or columns above which figures are no longer written into the fields


def draw_heat_map(
    axes: "Axes",
    table: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    low: float = 0.0,
    high: float = 1.0,
    form: str = "{:.2f}",
    written: np.ndarray | None = None,
    size: float = 7.5,
) -> None:
    """Draw a table (rows, columns); what is NaN stays grey and without a figure.

    Parameters
    ----------
    axes
        Where to draw.
    table
        Decides the colours, from ``low`` to ``high``.
    rows, columns
        Their names.
    form
        How a figure is written.
    written
        The figures that are written, if they are others than those of ``table``.
    size
        Of the text, in points.
    """
    from matplotlib import colormaps

    colours = colormaps["YlGnBu"].with_extremes(bad=EMPTY)
    shown: Any = np.ma.masked_invalid(table)
    axes.imshow(shown, vmin=low, vmax=max(high, low + 1e-9), cmap=colours, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(rows)), rows, fontsize=size)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    if max(table.shape, default=0) <= LARGE:
        _write(axes, table, table if written is None else written, form, (low + high) / 2, size)


def _write(axes: "Axes", table: np.ndarray, written: np.ndarray, form: str, middle: float, size: float) -> None:
    for i, j in zip(*np.nonzero(~np.isnan(table)), strict=True):
        if written[i, j] == 0 and form == "{:.0f}":
            continue  # empty fields of a table of counts
        colour = "w" if table[i, j] > middle else "k"
        axes.text(j, i, form.format(written[i, j]), ha="center", va="center", color=colour, fontsize=size - 0.5)
