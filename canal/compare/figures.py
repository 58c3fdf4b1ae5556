"""The figures of a comparison; each is drawn alone and returned as SVG.

The maps and the false alarms of a comparison.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from canal.compare.report import CompareReport, Number, StageMap
from canal.report.plots import as_svg, draw_heat_map, type_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WIDE = 8.6  # inches of the page's column
ROW = 0.27
LEGEND = 24  # names in a legend at most
FEW = 12  # lines that can be told apart


def accuracy_heat_map(report: CompareReport) -> str:
    """Draw accuracy after each stage (rows) on the cells of each stage (columns)."""
    rows, columns = _stage_names(report), _set_names(report)
    table = as_array(report.accuracy)
    figure, axes = _canvas(height=1.5 + ROW * 1.1 * len(rows))
    known = table[~np.isnan(table)]
    low = min(float(known.min()), 0.9) if known.size else 0.0
    draw_heat_map(axes, table, rows, columns, low=np.floor(low * 10) / 10, high=1.0, form="{:.3f}")
    axes.set_xlabel("held-out cells of")
    axes.set_ylabel("model after")
    return as_svg(figure)


def forgetting_curves(report: CompareReport) -> str:
    """Draw accuracy on the cells of each stage against the stages that followed."""
    figure, axes = _canvas(height=3.4)
    table = as_array(report.accuracy)
    at = range(len(report.stages))
    colours = type_colours([s.name for s in report.sets])
    for j, name in enumerate(_set_names(report)):
        axes.plot(at, table[:, j], marker="o", ms=4, lw=1.4, label=name, color=colours[report.sets[j].name])
    means = np.array([np.nan if s.average is None else s.average for s in report.stages])
    axes.plot(at, means, color="k", ls="--", lw=1.6, label="mean")
    axes.set_xticks(list(at), _stage_names(report), rotation=30, ha="right", rotation_mode="anchor", fontsize=7.5)
    axes.set_ylabel("accuracy")
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    _legend(axes, len(report.sets) + 1)
    return as_svg(figure)


def confusion_table(report: CompareReport) -> str:
    """Draw what each given type was taken for, as shares of the given type, with the number of cells."""
    rows = sorted(report.confusion)
    others = {answer for answers in report.confusion.values() for answer in answers} - set(rows)
    columns = rows + sorted(others)
    counts = np.array([[report.confusion[r].get(c, 0) for c in columns] for r in rows], dtype=float)
    counts = counts.reshape(len(rows), len(columns))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _canvas(height=1.7 + ROW * len(rows))
    draw_heat_map(axes, shares, rows, columns, written=counts, form="{:.0f}", size=7.0)
    axes.set_xlabel("annotated as")
    axes.set_ylabel("given")
    return as_svg(figure)


def type_f1_table(report: CompareReport) -> str:
    """Draw F1 of each type (rows) after each stage (columns), over the cells of all stages so far."""
    types = sorted({name for stage in report.stages for name in stage.f1})
    table = np.array([[s.f1.get(name, np.nan) for s in report.stages] for name in types])
    figure, axes = _canvas(height=1.5 + ROW * len(types))
    draw_heat_map(axes, table.reshape(len(types), len(report.stages)), types, _stage_names(report), form="{:.2f}")
    return as_svg(figure)


def bank_bars(report: CompareReport) -> str:
    """Draw the cells of each type in the example bank after each stage."""
    types = sorted({name for stage in report.stages for name in stage.bank})
    colours = type_colours(types)
    figure, axes = _canvas(height=1.4 + ROW * len(report.stages) + 0.11 * len(types) / 3)
    left = np.zeros(len(report.stages))
    for name in types:
        cells = np.array([stage.bank.get(name, 0) for stage in report.stages], dtype=float)
        axes.barh(range(len(left)), cells, left=left, color=colours[name], label=name, edgecolor="w", lw=0.3)
        left += cells
    axes.set_yticks(range(len(left)), _stage_names(report), fontsize=7.5)
    axes.invert_yaxis()
    axes.set_xlabel("cells in the bank")
    _legend(axes, len(types))
    return as_svg(figure)


def training_curves(report: CompareReport) -> str:
    """Draw loss and validation accuracy of the network by epoch, one line a stage."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDE, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    shades = colormaps["viridis"](np.linspace(0, 0.9, max(len(report.stages), 1)))
    for stage, colour in zip(report.stages, shades, strict=True):
        steps = range(1, len(stage.history) + 1)
        for axes, key in ((left, "training_loss"), (right, "validation_accuracy")):
            values = [epoch.get(key, np.nan) for epoch in stage.history]
            axes.plot(steps, values, color=colour, lw=1.3, label=f"{stage.number} {stage.name}")
    for axes, title in ((left, "training loss"), (right, "accuracy on validation cells")):
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("epoch")
        axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    if len(report.stages) <= FEW:
        _legend(right, len(report.stages))
    return as_svg(figure)


def reference_bars(report: CompareReport) -> str:
    """Draw accuracy of the focus and of the references on each set."""
    ours = report.accuracy[report.focus_row]
    methods = [(f"canal, stage {report.focus}", ours), *((r.name, r.accuracy) for r in report.references)]
    figure, axes = _canvas(height=3.0)
    width = 0.8 / len(methods)
    for k, (name, values) in enumerate(methods):
        heights = [np.nan if v is None else v for v in values]
        axes.bar(np.arange(len(values)) + (k - (len(methods) - 1) / 2) * width, heights, width * 0.92, label=name)
    axes.set_xticks(range(len(ours)), _set_names(report), rotation=30, ha="right", rotation_mode="anchor", fontsize=7.5)
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy")
    _legend(axes, len(methods))
    return as_svg(figure)


def as_array(rows: Sequence[Sequence[Number]]) -> np.ndarray:
    """Return a table of numbers with NaN where nothing was measured."""
    width = len(rows[0]) if rows else 0
    return np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=float).reshape(len(rows), width)


def _canvas(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDE, height), layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _legend(axes: "Axes", names: int) -> None:
    if 0 < names <= LEGEND:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=7.5, borderaxespad=0.0)


def _stage_names(report: CompareReport) -> list[str]:
    return [f"{s.number} {s.name}{' *' if s.in_use else ''}" for s in report.stages]


def _set_names(report: CompareReport) -> list[str]:
    return [f"{s.stage} {s.name}" for s in report.sets]


ACROSS = 3  # maps in a row
SIDE = 2.75  # inches of a map
MANY_NAMES = 40  # names in the legend at most


def turned_alike(maps: Sequence[StageMap]) -> list[StageMap]:
    """Turn and mirror each map so that the types it shares with the one before stand as they did there.

    A UMAP has no direction. Distances within a map are not changed.
    """
    done: list[StageMap] = []
    for one in maps:
        places = one.places - one.places.mean(axis=0) if len(one.places) else one.places
        if done:
            places = places @ _turn(one.types, places, done[-1])
        done.append(StageMap(stage=one.stage, name=one.name, types=one.types, places=places))
    return done


def map_pictures(maps: Sequence[StageMap]) -> bytes:
    """Draw the maps side by side, each type in one colour throughout, and return a PNG.

    Points are too many for SVG.
    """
    from matplotlib.figure import Figure

    assert maps, "nothing to draw"
    names = sorted({name for one in maps for name in one.types})
    colours = type_colours(names)
    across = min(len(maps), ACROSS)
    down = -(-len(maps) // across)
    rows = -(-min(len(names), MANY_NAMES) // 4)
    figure = Figure(figsize=(SIDE * across, (SIDE + 0.1) * down + 0.17 * rows), layout="constrained")
    panels = np.ravel(figure.subplots(down, across, squeeze=False))
    for axes, one in zip(panels, turned_alike(maps), strict=False):
        shades = [colours[name] for name in one.types]
        axes.scatter(one.places[:, 0], one.places[:, 1], s=5, c=shades, linewidths=0)
        axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        axes.set_title(f"{one.stage} {one.name}", fontsize=9, parse_math=False)
    for axes in panels[len(maps) :]:
        axes.set_axis_off()
    if len(names) <= MANY_NAMES:
        marks = [panels[0].scatter([], [], s=26, color=colours[name]) for name in names]
        figure.legend(marks, names, loc="outside lower center", ncols=4, frameon=False, fontsize=7.5)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160, metadata={"Software": None})
    return out.getvalue()


def alarm_curves(report: CompareReport) -> str:
    """Draw the share of known cells that would be called novel against the share that may be."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDE, 3.4), layout="constrained")
    axes = figure.subplots()
    # An imported stage may have several curves: the number alone does not tell them apart.
    names = [f"{curve.stage} {curve.name}".strip() for curve in report.alarms]
    colours = type_colours(names)
    for name, curve in zip(names, report.alarms, strict=True):
        label = f"{name}, {curve.cells} cells"
        axes.plot(curve.alpha, curve.share, marker="o", ms=3, lw=1.3, color=colours[name], label=label)
    top = max((curve.alpha[-1] for curve in report.alarms), default=1.0)
    axes.plot([0, top], [0, top], color="#5b6472", lw=1, ls="--", label="as asked for")
    axes.set_xlabel("alpha: share of known cells that may be called novel")
    axes.set_ylabel("share that would be")
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set(xlim=(0, None), ylim=(0, None))
    if len(report.alarms) <= FEW:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=7.5)
    return as_svg(figure)


def _turn(types: Sequence[str], places: np.ndarray, before: StageMap) -> np.ndarray:
    """Return the rotation (2, 2) that brings centres of shared types nearest to their centres before (Procrustes)."""
    here, there = np.array(types, dtype=object), np.array(before.types, dtype=object)
    shared = sorted(set(types) & set(before.types))
    if len(shared) < 2:
        return np.eye(2)
    ours = np.array([places[here == name].mean(axis=0) for name in shared])
    theirs = np.array([before.places[there == name].mean(axis=0) for name in shared])
    left, _, right = np.linalg.svd((ours - ours.mean(axis=0)).T @ (theirs - theirs.mean(axis=0)))
    return np.asarray(left @ right)
