"""What features share to show their results: tables drawn as heat maps, the demo's and the reliability picture, pages.

Pictures are drawn with matplotlib from plain arrays. Pages are rendered from Jinja2 templates; each lies in the folder
of the feature that shows it.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.model.reliability import Reliability
from canal.text import picture_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Heat maps.
NOT_MEASURED = "#f0f0f0"  # colour of a field without a figure
FONT_SIZE = 7.5  # points
MOST_WRITTEN = 30  # rows or columns above which the fields are too small for figures


LETTER_RISE = 0.045  # inches: how much further down a slanted name reaches with every letter
LETTERS_WITH_ROOM = 24  # of a name that every picture has room for


def name_room(names: Sequence[str]) -> float:
    """Return the inches that slanted names need below a picture beyond what every picture has for them."""
    longest = max((len(picture_text(name)) for name in names), default=0)
    return LETTER_RISE * max(longest - LETTERS_WITH_ROOM, 0)


def draw_heat_map(
    axes: "Axes",
    table: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    limits: tuple[float, float] = (0.0, 1.0),
    form: str = "{:.2f}",
    written: np.ndarray | None = None,
) -> None:
    """Draw a table (rows, columns); what is NaN stays grey and without a figure.

    Parameters
    ----------
    axes
        Where to draw.
    table
        Decides the colours.
    rows, columns
        Their names.
    limits
        Values of the lightest and of the darkest colour.
    form
        How a figure is written.
    written
        The figures that are written, if they are others than those of ``table``.
    """
    from matplotlib import colormaps

    # The fields.
    low, high = limits
    colours = colormaps["YlGnBu"].with_extremes(bad=NOT_MEASURED)
    measured: Any = np.ma.masked_invalid(table)
    axes.imshow(measured, vmin=low, vmax=max(high, low + 1e-9), cmap=colours, aspect="auto")
    # Names of rows and columns; a little smaller where the fields hold counts, which are longer.
    size = FONT_SIZE if written is None else FONT_SIZE - 0.5
    below, beside = [picture_text(name) for name in columns], [picture_text(name) for name in rows]
    axes.set_xticks(range(len(columns)), below, rotation=40, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(rows)), beside, fontsize=size)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    # A figure in each field, if it fits there.
    if max(table.shape, default=0) <= MOST_WRITTEN:
        _write_figures(axes, table, table if written is None else written, form, (low + high) / 2, size)


def _write_figures(axes: "Axes", table: np.ndarray, written: np.ndarray, form: str, middle: float, size: float) -> None:
    for i, j in zip(*np.nonzero(~np.isnan(table)), strict=True):
        if written[i, j] == 0 and form == "{:.0f}":
            continue  # empty fields of a table of counts
        colour = "w" if table[i, j] > middle else "k"
        axes.text(j, i, form.format(written[i, j]), ha="center", va="center", color=colour, fontsize=size - 0.5)


def type_colours(types: Sequence[str]) -> dict[str, Any]:
    """Return a colour for each type, the same whatever the order they come in."""
    from matplotlib import colormaps

    names = sorted(set(types))
    palette = colormaps["tab10" if len(names) <= 10 else "tab20"]
    return {name: palette(k % palette.N) for k, name in enumerate(names)}


def as_svg(figure: "Figure") -> str:
    """Return a figure as SVG; the same figure gives the same text."""
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context({"svg.hashsalt": "canal"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


# The picture of the demo.
GREY = "#dcdcdc"  # cells that stand in the background


def demo_picture(
    out: Path,
    *,
    coordinates: np.ndarray,
    held_out: np.ndarray,
    given: np.ndarray,
    annotated: np.ndarray,
    stages: Sequence[str],
    accuracy: Mapping[str, list[list[float]]],
) -> None:
    """Draw given labels beside the annotation, and a table of accuracy for each method.

    Parameters
    ----------
    out
        PNG to write.
    coordinates
        UMAP coordinates of all cells, of shape (cells, 2).
    held_out
        Rows of the cells that were annotated; the others are grey.
    given, annotated
        Cell types of these, of shape (held-out cells,).
    stages
        Names of the stages.
    accuracy
        By method: row k holds the accuracy after stage k + 1 on each stage so far.
    """
    from matplotlib.figure import Figure

    colours = type_colours([*given.tolist(), *annotated.tolist()])
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(2.4, 1))
    wide, narrow = halves
    # The cells, coloured by their labels and by the annotation.
    left, right = wide.subplots(1, 2)
    for axes, title, types in ((left, "given labels", given), (right, "canal", annotated)):
        axes.scatter(coordinates[:, 0], coordinates[:, 1], s=6, c=GREY, linewidths=0)
        _scatter_types(axes, coordinates[held_out], types, colours)
        axes.set_title(f"{title}, {len(held_out)} held-out cells")
    # One legend for both: empty scatters give it its dots.
    dots = [left.scatter([], [], s=30, color=colour) for colour in colours.values()]
    wide.legend(
        dots, [picture_text(name) for name in colours], loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    # A table of accuracies for each method.
    for axes, (method, rows) in zip(np.ravel(narrow.subplots(len(accuracy), 1)), accuracy.items(), strict=True):
        draw_accuracy(axes, rows, stages, method)
    figure.savefig(out, dpi=120)


def _scatter_types(axes: "Axes", coordinates: np.ndarray, types: np.ndarray, colours: Mapping[str, Any]) -> None:
    shades = [colours[name] for name in types.tolist()]
    axes.scatter(coordinates[:, 0], coordinates[:, 1], s=18, c=shades, linewidths=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("UMAP 1")
    axes.set_ylabel("UMAP 2")


def draw_accuracy(axes: "Axes", rows: list[list[float]], stages: Sequence[str], title: str) -> None:
    """Draw a lower triangle of accuracies: after which stage, on which stage's held-out cells."""
    # The rows have different lengths; what stands above the diagonal stays empty.
    n = len(stages)
    table = np.full((n, n), np.nan)
    for k, row in enumerate(rows):
        table[k, : len(row)] = row
    axes.imshow(table, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for k, row in enumerate(rows):
        for i, value in enumerate(row):
            dark = value < 0.6
            axes.text(i, k, f"{value:.2f}", ha="center", va="center", color="w" if dark else "k")
    axes.set_xticks(range(n), [picture_text(stage) for stage in stages], fontsize=8)
    axes.set_yticks(range(n), [f"after {k + 1}" for k in range(n)], fontsize=8)
    axes.set_title(f"accuracy, {title}", fontsize=10)


# The reliability picture: how often answers were right against how sure they were.
PANELS_IN_A_ROW = 4
PANEL_SIDE = 2.5  # inches


def reliability_figure(stages: Sequence[tuple[str, Reliability]]) -> str:
    """Draw a panel for each stage and return them as one SVG; the same figures give the same text.

    Bars are the share of right answers in each tenth of confidence, dots their mean confidence. Where confidence is
    right, bars end on the diagonal. Pale bars stand for few cells.

    Parameters
    ----------
    stages
        Title and reliability of each stage, one at least.
    """
    from matplotlib.figure import Figure

    assert stages, "nothing to draw"
    # A grid of panels, with some room below and beside it for the names of the axes.
    across = min(len(stages), PANELS_IN_A_ROW)
    down = -(-len(stages) // across)
    figure = Figure(figsize=(PANEL_SIDE * across + 0.4, (PANEL_SIDE + 0.25) * down + 0.3), layout="constrained")
    panels = np.ravel(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False))
    for axes, (title, reliability) in zip(panels, stages, strict=False):
        _draw_reliability(axes, title, reliability)
    # The last row may have panels left over.
    for axes in panels[len(stages) :]:
        axes.set_axis_off()
    figure.supxlabel("confidence", fontsize=9)
    figure.supylabel("share of right answers", fontsize=9)
    return as_svg(figure)


def _draw_reliability(axes: "Axes", title: str, reliability: Reliability) -> None:
    bins = reliability.bins
    edges, cells, accuracy = np.array(bins.edges), np.array(bins.cells), np.array(bins.accuracy)
    bars = axes.bar(edges[:-1], accuracy, np.diff(edges), align="edge", color="#4c78a8", edgecolor="w", lw=0.6)
    for bar, n in zip(bars, cells, strict=True):
        bar.set_alpha(0.35 + 0.65 * float(np.sqrt(n / max(cells.max(), 1))))
    # The diagonal, and a dot at the mean confidence of each bin that has cells.
    axes.plot([0, 1], [0, 1], color="#5b6472", lw=1, ls="--")
    filled = cells > 0
    axes.plot(np.array(bins.confidence)[filled], accuracy[filled], "o", ms=3, color="#d1495b")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    axes.set_title(title, fontsize=9, parse_math=False)
    summary = f"ECE {reliability.error:.3f}\n{reliability.cells} cells"
    axes.text(0.04, 0.95, summary, transform=axes.transAxes, va="top", fontsize=8)


# Pages.


def render_page(template: str, **values: Any) -> str:
    """Return a page as HTML: one file that holds all its pictures and fetches nothing.

    Whatever the template shows of the values is escaped: records, labels, genes and names of files come from others,
    and markup in them is shown as text.

    Parameters
    ----------
    template
        Path of the template below the package, such as ``"compare/page.html.jinja"``.
    values
        What the template shows, by name. A name that it uses and does not get is an error.
    """
    page: str = _templates().get_template(template).render(values)
    return page


@cache
def _templates() -> Any:
    """Return where templates come from; each is read once, also by a server that renders many pages."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("canal", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters["decimals"] = _decimals
    templates.filters["percent"] = _percent
    templates.filters["svg_address"] = _svg_address
    templates.filters["png_address"] = _png_address
    return templates


def _decimals(value: float | None, digits: int) -> str:
    """Return a figure for a table; what was not measured is left empty."""
    return "" if value is None else f"{value:.{digits}f}"


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _svg_address(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _png_address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
