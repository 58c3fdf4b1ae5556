"""Pictures for notebooks, drawn from plain columns and from annotated cells.

>>> canal.pl.dotplot(adata.obs["cell_type"], adata.obs["canal_cell_type"])  # doctest: +SKIP
>>> canal.pl.confusion(adata.obs["cell_type"], adata.obs["canal_cell_type"])  # doctest: +SKIP
>>> canal.pl.umap(adata)  # types, and which cells are novel  # doctest: +SKIP
>>> canal.pl.markers(model.markers("NK"))  # doctest: +SKIP
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.errors import ConfigError
from canal.report.plots import name_room
from canal.text import picture_text

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd
    from matplotlib.axes import Axes

LARGEST_DOT = 180.0  # points squared, for all cells of a row
INCHES_PER_TYPE = 0.42
LEAST_SHOWN = 0.005  # share of a row below which a cell of the confusion table stays empty
# Okabe and Ito's colours, which can be told apart by nearly everybody, then matplotlib's; grey is for novel cells.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
NOVEL_COLOUR, UNSURE_COLOUR = "#000000", "#BBBBBB"
MOST_DOT, LEAST_DOT = 20.0, 1.0  # points squared of a cell in a map, by how many there are


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
    row_names, column_names, cells, total = _table(rows, columns, sure)
    share = cells / cells.sum(axis=1, keepdims=True)
    colour = share if sure is None else np.divide(total, cells, out=np.zeros_like(cells), where=cells > 0)
    return _draw(share, colour, row_names, column_names, axes, by_share=sure is None)


def confusion(
    given: "Sequence[Any] | np.ndarray | pd.Series",
    predicted: "Sequence[Any] | np.ndarray | pd.Series",
    *,
    axes: "Axes | None" = None,
) -> "Axes":
    """Draw given against predicted types as a table of percentages: what is taken for what.

    Parameters
    ----------
    given, predicted
        Type of each cell by hand and by canal, each (cells,).
    axes
        Where to draw; a new figure by default.

    Returns
    -------
    The axes. Each row sums to 100; its number of cells stands beside its name.

    Raises
    ------
    ConfigError
        If the columns are not of the same cells, or there are none.
    """
    from matplotlib import pyplot

    rows, columns = _texts(given), _texts(predicted)
    if not len(rows) or len(rows) != len(columns):
        message = (
            f"given holds {len(rows)} cells, predicted {len(columns)}; expected one value for each of the same cells."
        )
        raise ConfigError(message)
    row_names, column_names, cells, _ = _table(rows, columns, None)
    share = cells / cells.sum(axis=1, keepdims=True)
    if axes is None:
        height = 1.5 + name_room(column_names.tolist()) + INCHES_PER_TYPE * len(row_names)
        size = (3.0 + INCHES_PER_TYPE * len(column_names), height)
        _, axes = pyplot.subplots(figsize=size, layout="constrained")
    image = axes.imshow(share, cmap="YlGnBu", vmin=0, vmax=1, aspect="auto")
    for y, x in zip(*np.nonzero(share >= LEAST_SHOWN), strict=True):
        # White on the dark half of the colours.
        axes.text(
            x, y, f"{100 * share[y, x]:.0f}", ha="center", va="center", size=8, color="w" if share[y, x] > 0.5 else "k"
        )
    axes.set_xticks(range(len(column_names)), [picture_text(name) for name in column_names], rotation=40, ha="right")
    names = [f"{picture_text(name)} ({int(n):,})" for name, n in zip(row_names, cells.sum(axis=1), strict=True)]
    axes.set_yticks(range(len(row_names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("given (cells)")
    axes.figure.colorbar(image, ax=axes, label="share of the row", shrink=0.6)
    return axes


def umap(
    adata: "ad.AnnData",
    *,
    color: str | None = None,
    key: str = "canal",
    basis: str = "X_umap",
    axes: "Axes | None" = None,
) -> "Axes":
    """Draw annotated cells on their map: types in colours, novel cells black, uncertain ones grey.

    Parameters
    ----------
    adata
        Cells with the annotation in ``obs``, and a map in ``obsm``; a map of the model's representation is computed
        with scanpy, and kept in ``obsm["X_canal_umap"]``, where there is none.
    color
        Column of ``obs`` to colour by; ``<key>_cell_type`` by default.
    key
        Prefix of the annotation.
    basis
        Of the map in ``obsm``.
    axes
        Where to draw; a new figure by default.

    Raises
    ------
    ConfigError
        If there is no such column, or neither a map nor the representation to make one from.
    """
    from matplotlib import pyplot

    column = color or f"{key}_cell_type"
    if column not in adata.obs:
        message = f"There is no obs[{column!r}]. Annotate the cells first: canal.annotate(adata)."
        raise ConfigError(message)
    points = _map_of(adata, key, basis)
    values = _texts(adata.obs[column])
    names = sorted(set(values.tolist()) - {"novel", "uncertain", ""})
    palette = [*COLOURS, *(pyplot.get_cmap("tab20")(k) for k in range(20))]
    # What needs a look is drawn above the rest.
    layers = [(name, palette[k % len(palette)]) for k, name in enumerate(names)]
    layers += [("", UNSURE_COLOUR), ("uncertain", UNSURE_COLOUR), ("novel", NOVEL_COLOUR)]
    if axes is None:
        _, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    size = float(np.clip(60_000 / max(len(values), 1), LEAST_DOT, MOST_DOT))
    for name, colour in layers:
        rows = np.flatnonzero(values == name)
        if len(rows):
            label = f"{picture_text(name or 'not given')} ({len(rows):,})"
            axes.scatter(
                points[rows, 0], points[rows, 1], s=size, color=[colour], label=label, linewidths=0, rasterized=True
            )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(picture_text(column))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small", markerscale=3)
    return axes


def _map_of(adata: "ad.AnnData", key: str, basis: str) -> np.ndarray:
    """Return the coordinates of the cells, (cells, 2); made from the model's representation where there are none."""
    if basis in adata.obsm:
        return np.asarray(adata.obsm[basis])[:, :2]
    own, representation = f"X_{key}_umap", f"X_{key}"
    if own not in adata.obsm:
        if representation not in adata.obsm:
            message = (
                f"There is neither a map in obsm[{basis!r}] nor a representation in obsm[{representation!r}] to make "
                "one from. Run scanpy.tl.umap, or annotate the cells first: canal.annotate(adata)."
            )
            raise ConfigError(message)
        import scanpy as sc

        # On a bare copy: neighbours and parameters of the user's own maps stay as they are.
        bare = sc.AnnData(obs=adata.obs[[]], obsm={representation: adata.obsm[representation]})
        sc.pp.neighbors(bare, use_rep=representation)
        sc.tl.umap(bare)
        adata.obsm[own] = bare.obsm["X_umap"]
    return np.asarray(adata.obsm[own])


def markers(table: "pd.DataFrame", *, top: int = 10, axes: "Axes | None" = None) -> "Axes":
    """Draw the genes by which the model tells one type, for it to the right and against it to the left.

    Parameters
    ----------
    table
        Of `Workspace.markers`, one type's rows.
    top
        Most genes of each side.
    axes
        Where to draw; a new figure by default.

    Raises
    ------
    ConfigError
        If the table holds no type, or several.
    """
    from matplotlib import pyplot

    types = [] if "cell_type" not in table else list(dict.fromkeys(table["cell_type"].tolist()))
    if len(types) != 1:
        message = f"The table holds {len(types)} types; expected one: canal.pl.markers(model.markers('NK'))."
        raise ConfigError(message)
    chosen = table.groupby("evidence", sort=False).head(top)
    if axes is None:
        _, axes = pyplot.subplots(figsize=(5, 1.0 + 0.25 * len(chosen)), layout="constrained")
    is_for = (chosen["evidence"] == "for").to_numpy()
    place = np.arange(len(chosen))
    size = chosen["score"].abs().to_numpy()
    axes.barh(place, np.where(is_for, size, -size), color=np.where(is_for, COLOURS[0], COLOURS[1]))
    axes.set_yticks(place, [picture_text(gene) for gene in chosen["gene"]])
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_xlabel("part in the score: against | for")
    axes.set_title(picture_text(types[0]))
    return axes


def _table(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Count pairs of names.

    Parameters
    ----------
    rows, columns
        Names of each cell, (cells,).
    values
        Of each cell, to be summed, (cells,).

    Returns
    -------
    Names of rows and columns, the latter in the order of the rows that they are commonest in, so that what agrees
    stands on a diagonal; cells and sums of values of each pair, (rows, columns).
    """
    row_names, row_of = np.unique(rows, return_inverse=True)
    column_names, column_of = np.unique(columns, return_inverse=True)
    cells = np.zeros((len(row_names), len(column_names)))
    total = np.zeros_like(cells)
    np.add.at(cells, (row_of, column_of), 1.0)
    if values is not None:
        np.add.at(total, (row_of, column_of), values)
    share = cells / cells.sum(axis=1, keepdims=True)
    order = np.lexsort((np.arange(len(column_names)), share.argmax(axis=0)))
    return row_names, column_names[order], cells[:, order], total[:, order]


def _draw(
    share: np.ndarray, colour: np.ndarray, rows: np.ndarray, columns: np.ndarray, axes: "Axes | None", *, by_share: bool
) -> "Axes":
    from matplotlib import pyplot

    if axes is None:
        size = (2.5 + INCHES_PER_TYPE * len(columns), 1.5 + name_room(columns.tolist()) + INCHES_PER_TYPE * len(rows))
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
    axes.set_xticks(range(len(columns)), [picture_text(name) for name in columns], rotation=40, ha="right")
    axes.set_yticks(range(len(rows)), [picture_text(name) for name in rows])
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
