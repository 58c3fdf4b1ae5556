"""The maps and the false alarms of a comparison."""

import io
from collections.abc import Sequence

import numpy as np

from canal.report.compare_art import StageMap
from canal.report.compare_figures import FEW, WIDE, as_svg
from canal.report.compare_report import CompareReport
from canal.report.plots import type_colours

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
    colours = type_colours([str(c.stage) for c in report.alarms])
    for curve in report.alarms:
        label = f"{curve.stage} {curve.name}".strip() + f", {curve.cells} cells"
        axes.plot(curve.alpha, curve.share, marker="o", ms=3, lw=1.3, color=colours[str(curve.stage)], label=label)
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
