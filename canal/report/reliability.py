"""The reliability picture: how often answers were right against how sure they were."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from canal.detect.reliability import Reliability
from canal.report.compare_figures import as_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 4  # panels in a row
SIDE = 2.5  # inches of a panel


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
    across = min(len(stages), ACROSS)
    down = -(-len(stages) // across)
    figure = Figure(figsize=(SIDE * across + 0.4, (SIDE + 0.25) * down + 0.3), layout="constrained")
    panels = np.ravel(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False))
    for axes, (title, found) in zip(panels, stages, strict=False):
        draw_reliability(axes, title, found)
    for axes in panels[len(stages) :]:
        axes.set_axis_off()
    figure.supxlabel("confidence", fontsize=9)
    figure.supylabel("share of right answers", fontsize=9)
    return as_svg(figure)


def draw_reliability(axes: "Axes", title: str, found: Reliability) -> None:
    """Draw one stage into given axes."""
    edges, cells = np.array(found.bins.edges), np.array(found.bins.cells)
    filled = cells > 0
    share = np.array(found.bins.accuracy)
    bars = axes.bar(edges[:-1], share, np.diff(edges), align="edge", color="#4c78a8", edgecolor="w", lw=0.6)
    for bar, n in zip(bars, cells, strict=True):
        bar.set_alpha(0.35 + 0.65 * float(np.sqrt(n / max(cells.max(), 1))))
    axes.plot([0, 1], [0, 1], color="#5b6472", lw=1, ls="--")
    axes.plot(np.array(found.bins.confidence)[filled], share[filled], "o", ms=3, color="#d1495b")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    axes.set_title(title, fontsize=9, parse_math=False)
    axes.text(0.04, 0.95, f"ECE {found.error:.3f}\n{found.cells} cells", transform=axes.transAxes, va="top", fontsize=8)
