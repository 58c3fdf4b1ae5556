"""The figures of a comparison; each is drawn alone from the report and returned as SVG, the maps as PNG."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from canal.compare.report import CompareReport, Number, StageMap
from canal.report.plots import as_svg, draw_heat_map, name_room, type_colours
from canal.text import picture_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WIDTH = 8.6  # inches of the page's column
ROW_HEIGHT = 0.27  # inches
GRID, DIAGONAL = "#e6e6e6", "#5b6472"
MOST_IN_LEGEND = 24  # names; a longer legend would be higher than its figure
MOST_LINES = 12  # lines that can be told apart by their colours


def accuracy_heat_map(report: CompareReport) -> str:
    """Draw accuracy after each stage (rows) on the cells of each stage (columns)."""
    rows, columns = _stage_names(report), _set_names(report)
    table = as_array(report.accuracy)
    figure, axes = _canvas(height=1.5 + name_room(columns) + ROW_HEIGHT * 1.1 * len(rows))
    # The lightest colour is the lowest accuracy, rounded down to a tenth: small differences are seen, too.
    measured = table[~np.isnan(table)]
    low = min(float(measured.min()), 0.9) if measured.size else 0.0
    draw_heat_map(axes, table, rows, columns, limits=(np.floor(low * 10) / 10, 1.0), form="{:.3f}")
    axes.set_xlabel("held-out cells of")
    axes.set_ylabel("model after")
    return as_svg(figure)


def forgetting_curves(report: CompareReport) -> str:
    """Draw accuracy on the cells of each stage against the stages that followed."""
    figure, axes = _canvas(height=3.4 + name_room(_stage_names(report)))
    # One line for each set of held-out cells.
    table = as_array(report.accuracy)
    positions = range(len(report.stages))
    colours = type_colours([held_out.name for held_out in report.sets])
    for column, label in enumerate(_set_names(report)):
        colour = colours[report.sets[column].name]
        axes.plot(positions, table[:, column], marker="o", ms=4, lw=1.4, label=picture_text(label), color=colour)
    # The mean over the sets.
    means = [_or_nan(stage.average) for stage in report.stages]
    axes.plot(positions, np.array(means), color="k", ls="--", lw=1.6, label="mean")
    axes.set_xticks(
        list(positions), _as_drawn(_stage_names(report)), rotation=30, ha="right", rotation_mode="anchor", fontsize=7.5
    )
    axes.set_ylabel("accuracy")
    axes.grid(axis="y", color=GRID, lw=0.8)
    _legend(axes, len(report.sets) + 1)
    return as_svg(figure)


def confusion_table(report: CompareReport) -> str:
    """Draw what each given type was taken for, as shares of the given type, with the number of cells."""
    # Types that were answered but never given stand in the last columns.
    rows = sorted(report.confusion)
    answered: set[str] = set()
    for answers in report.confusion.values():
        answered.update(answers)
    columns = rows + sorted(answered - set(rows))
    # Counts, and their shares of each row.
    counts = np.zeros((len(rows), len(columns)))
    for i, given in enumerate(rows):
        for j, answer in enumerate(columns):
            counts[i, j] = report.confusion[given].get(answer, 0)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _canvas(height=1.7 + name_room(columns) + ROW_HEIGHT * len(rows))
    draw_heat_map(axes, shares, rows, columns, written=counts, form="{:.0f}")
    axes.set_xlabel("annotated as")
    axes.set_ylabel("given")
    return as_svg(figure)


def type_f1_table(report: CompareReport) -> str:
    """Draw F1 of each type (rows) after each stage (columns), over the cells of all stages so far."""
    names: set[str] = set()
    for stage in report.stages:
        names.update(stage.f1)
    types = sorted(names)
    # A type that a stage was not tested on stays NaN.
    table = np.full((len(types), len(report.stages)), np.nan)
    for i, name in enumerate(types):
        for j, stage in enumerate(report.stages):
            table[i, j] = stage.f1.get(name, np.nan)
    figure, axes = _canvas(height=1.5 + name_room(_stage_names(report)) + ROW_HEIGHT * len(types))
    draw_heat_map(axes, table, types, _stage_names(report), form="{:.2f}")
    return as_svg(figure)


def bank_bars(report: CompareReport) -> str:
    """Draw the cells of each type in the example bank after each stage."""
    names: set[str] = set()
    for stage in report.stages:
        names.update(stage.bank)
    types = sorted(names)
    colours = type_colours(types)
    figure, axes = _canvas(height=1.4 + ROW_HEIGHT * len(report.stages) + 0.11 * len(types) / 3)
    # One bar a stage; the part of each type begins where the one before ends.
    left = np.zeros(len(report.stages))
    for name in types:
        cells = np.array([stage.bank.get(name, 0) for stage in report.stages], dtype=float)
        axes.barh(
            range(len(left)), cells, left=left, color=colours[name], label=picture_text(name), edgecolor="w", lw=0.3
        )
        left += cells
    axes.set_yticks(range(len(left)), _as_drawn(_stage_names(report)), fontsize=7.5)
    axes.invert_yaxis()
    axes.set_xlabel("cells in the bank")
    _legend(axes, len(types))
    return as_svg(figure)


def training_curves(report: CompareReport) -> str:
    """Draw loss and validation accuracy of the network by epoch, one line a stage."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    # Shades from dark to light in the order of the stages.
    shades = colormaps["viridis"](np.linspace(0, 0.9, max(len(report.stages), 1)))
    for stage, colour in zip(report.stages, shades, strict=True):
        epochs = range(1, len(stage.history) + 1)
        for axes, key in ((left, "training_loss"), (right, "validation_accuracy")):
            values = [epoch.get(key, np.nan) for epoch in stage.history]
            axes.plot(epochs, values, color=colour, lw=1.3, label=f"{stage.number} {picture_text(stage.name)}")
    for axes, title in ((left, "training loss"), (right, "accuracy on validation cells")):
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color=GRID, lw=0.8)
    if len(report.stages) <= MOST_LINES:
        _legend(right, len(report.stages))
    return as_svg(figure)


def reference_bars(report: CompareReport) -> str:
    """Draw accuracy of the focus and of the references on each set."""
    methods = [(f"canal, stage {report.focus}", report.accuracy[report.focus_row])]
    methods += [(method.name, method.accuracy) for method in report.references]
    figure, axes = _canvas(height=3.0 + name_room(_set_names(report)))
    # The bars of a set stand around its tick, one beside the other; they fill 0.8 of its room.
    width = 0.8 / len(methods)
    for k, (name, accuracy) in enumerate(methods):
        heights = [_or_nan(value) for value in accuracy]
        shift = (k - (len(methods) - 1) / 2) * width
        axes.bar(np.arange(len(heights)) + shift, heights, width * 0.92, label=name)
    ticks = range(len(report.sets))
    axes.set_xticks(ticks, _as_drawn(_set_names(report)), rotation=30, ha="right", rotation_mode="anchor", fontsize=7.5)
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy")
    _legend(axes, len(methods))
    return as_svg(figure)


def as_array(rows: Sequence[Sequence[Number]]) -> np.ndarray:
    """Return a table of numbers with NaN where nothing was measured."""
    width = len(rows[0]) if rows else 0
    table = np.full((len(rows), width), np.nan)
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            table[i, j] = _or_nan(value)
    return table


def _or_nan(value: Number) -> float:
    return np.nan if value is None else value


def _canvas(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _legend(axes: "Axes", names: int) -> None:
    if 0 < names <= MOST_IN_LEGEND:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=7.5, borderaxespad=0.0)


def _as_drawn(names: list[str]) -> list[str]:
    """Return names as the pictures show them; `draw_heat_map` does so itself."""
    return [picture_text(name) for name in names]


def _stage_names(report: CompareReport) -> list[str]:
    return [f"{stage.number} {stage.name}{' *' if stage.in_use else ''}" for stage in report.stages]


def _set_names(report: CompareReport) -> list[str]:
    return [f"{held_out.stage} {held_out.name}" for held_out in report.sets]


# The maps.
MAPS_IN_A_ROW = 3
MAP_SIDE = 2.75  # inches
NAMES_IN_A_ROW = 4  # of the legend
MOST_MAP_NAMES = 40  # in the legend; maps of more types go without one


def map_pictures(maps: Sequence[StageMap]) -> bytes:
    """Draw the maps side by side, each type in one colour throughout, and return a PNG.

    Points are too many for SVG.
    """
    from matplotlib.figure import Figure

    assert maps, "nothing to draw"
    types: set[str] = set()
    for stage_map in maps:
        types.update(stage_map.types)
    names = sorted(types)
    colours = type_colours(names)
    # A grid of panels with room for the legend below.
    across = min(len(maps), MAPS_IN_A_ROW)
    down = -(-len(maps) // across)
    legend_rows = -(-min(len(names), MOST_MAP_NAMES) // NAMES_IN_A_ROW)
    height = (MAP_SIDE + 0.1) * down + 0.17 * legend_rows
    figure = Figure(figsize=(MAP_SIDE * across, height), layout="constrained")
    panels = np.ravel(figure.subplots(down, across, squeeze=False))
    for axes, stage_map in zip(panels, aligned_maps(maps), strict=False):
        shades = [colours[name] for name in stage_map.types]
        axes.scatter(stage_map.coordinates[:, 0], stage_map.coordinates[:, 1], s=5, c=shades, linewidths=0)
        axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        axes.set_title(f"{stage_map.stage} {stage_map.name}", fontsize=9, parse_math=False)
    # The last row may have panels left over.
    for axes in panels[len(maps) :]:
        axes.set_axis_off()
    # One legend for all; empty scatters give it its dots.
    if len(names) <= MOST_MAP_NAMES:
        dots = [panels[0].scatter([], [], s=26, color=colours[name]) for name in names]
        figure.legend(
            dots,
            [picture_text(name) for name in names],
            loc="outside lower center",
            ncols=NAMES_IN_A_ROW,
            frameon=False,
            fontsize=7.5,
        )
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160, metadata={"Software": None})
    return out.getvalue()


def aligned_maps(maps: Sequence[StageMap]) -> list[StageMap]:
    """Turn and mirror each map so that the types it shares with the one before stand as they did there.

    A UMAP has no direction. Distances within a map are not changed.
    """
    aligned: list[StageMap] = []
    for stage_map in maps:
        coordinates = stage_map.coordinates
        if len(coordinates):
            coordinates = coordinates - coordinates.mean(axis=0)
        if aligned:
            coordinates = coordinates @ _rotation(stage_map.types, coordinates, aligned[-1])
        aligned.append(
            StageMap(stage=stage_map.stage, name=stage_map.name, types=stage_map.types, coordinates=coordinates)
        )
    return aligned


def _rotation(types: Sequence[str], coordinates: np.ndarray, before: StageMap) -> np.ndarray:
    """Return the rotation (2, 2) that brings centres of shared types nearest to their centres before (Procrustes)."""
    shared = sorted(set(types) & set(before.types))
    if len(shared) < 2:
        return np.eye(2)  # one centre has no direction
    # The centres of the shared types in both maps, (types, 2).
    centres = _centres(types, coordinates, shared)
    centres_before = _centres(before.types, before.coordinates, shared)
    # Orthogonal Procrustes: the rotation follows from the singular vectors of their covariance.
    covariance = (centres - centres.mean(axis=0)).T @ (centres_before - centres_before.mean(axis=0))
    left, _, right = np.linalg.svd(covariance)
    return np.asarray(left @ right)


def _centres(types: Sequence[str], coordinates: np.ndarray, names: Sequence[str]) -> np.ndarray:
    of_cells = np.array(types, dtype=object)
    return np.array([coordinates[of_cells == name].mean(axis=0) for name in names])
