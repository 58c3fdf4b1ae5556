"""The tree of a stage's types as a picture, drawn with matplotlib: a line a term, what is below it further right."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from canal.errors import DataError
from canal.files import check_file, write_file_whole, write_text_whole
from canal.labels.accepted import LabelTree, TreeNode
from canal.report.plots import FONT_SIZE, as_svg
from canal.text import picture_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (".svg", ".png")
LINE, INDENT, LETTER = 0.22, 0.25, 0.075  # inches: height of a line, its indent a level, mean width of a letter
TERM, TYPE = "#555555", "#08519c"  # colours of terms and of the types that the model knows


def check_picture(out: Path) -> None:
    """Refuse a path that no picture can be written to.

    Raises
    ------
    DataError
        If its name ends in something else than `KINDS`, or there is no such folder.
    """
    if out.suffix not in KINDS:
        message = f"{out} is no name for a picture; expected one that ends in {' or '.join(KINDS)}."
        raise DataError(message)
    check_file(out, out.suffix, "--out")


def write_tree_picture(tree: LabelTree, out: Path) -> None:
    """Write the picture of a tree, whole or not at all; the same tree gives the same SVG."""
    check_picture(out)
    figure = tree_figure(tree)
    if out.suffix == ".svg":
        text = as_svg(figure)
        write_text_whole(out, text)
    else:
        write_file_whole(out, lambda path: figure.savefig(path, format="png", dpi=150))


def tree_figure(tree: LabelTree) -> "Figure":
    """Return the picture of a tree."""
    from matplotlib.figure import Figure

    # 1. A line a node: its level, the line of what it hangs below, the term and its types.
    lines: list[tuple[int, int | None, str, str]] = []
    _add_lines(tree.nodes, 0, None, lines)
    lines += [(0, None, "without a term", picture_text(name)) for name in tree.without]
    # 2. As large as the text needs.
    letters = max(level * INDENT / LETTER + len(f"{term}  {types}") for level, _above, term, types in lines)
    width, height = 0.4 + letters * LETTER, 0.2 + len(lines) * LINE
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    # 3. Connections first, then the text: the term, and beside it the names of the types.
    for number, (level, above, term, types) in enumerate(lines):
        x, y = 0.2 + level * INDENT, 0.1 + (number + 0.5) * LINE
        if above is not None:
            left, top = x - 0.7 * INDENT, 0.1 + (above + 0.9) * LINE
            axes.plot([left, left, x - 0.04], [top, y, y], color="#bbbbbb", linewidth=0.8)
        axes.text(x, y, term, va="center", fontsize=FONT_SIZE, color=TERM)
        start = x + (len(term) + 2) * LETTER if term else x
        axes.text(start, y, types, va="center", fontsize=FONT_SIZE, color=TYPE, fontweight="bold")
    return figure


def _add_lines(
    nodes: Sequence[TreeNode], level: int, above: int | None, lines: list[tuple[int, int | None, str, str]]
) -> None:
    """Add a line for every node and what is below it."""
    for node in nodes:
        number = len(lines)
        term = f"{node.label} ({node.id})" if node.id else ""
        lines.append((level, above, term, ", ".join(picture_text(name) for name in node.types)))
        _add_lines(node.children, level + 1, number, lines)
