"""An explanation as files: a table of genes, a table of gene sets, a picture of the top genes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from canal.errors import DataError
from canal.explain.enrichment import enriched, read_gene_sets, require_gseapy
from canal.explain.explain import Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes


GENES, SETS, PICTURE = "genes.csv", "gene_sets.csv", "top-genes.png"
TITLES = {"attention": "share of attention", "memory": "part of the memory's score"}
HERE, ELSEWHERE = "#31688e", "#c8c8c8"


class ScoredGenes(Protocol):
    """What is written of a type; see `canal.explain.explain.TypeGenes`."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def cells(self) -> int: ...  # noqa: D102
    @property
    def genes(self) -> np.ndarray: ...  # noqa: D102
    @property
    def score(self) -> np.ndarray: ...  # noqa: D102
    @property
    def others(self) -> np.ndarray: ...  # noqa: D102


def check_folder(out: Path) -> Path:
    """Return the folder if an explanation may be written there: new, empty, or with an earlier one.

    Raises
    ------
    DataError
        If it is a file, its parent is missing, or it holds something else.
    """
    if out.exists() and not out.is_dir():
        message = f"{out} is a file; expected a folder. Name another with --out."
    elif not out.parent.is_dir():
        message = f"There is no folder {out.parent} to make {out.name} in. Make it first, or name another with --out."
    elif out.is_dir() and (other := {p.name for p in out.iterdir()} - {GENES, SETS, PICTURE}):
        message = (
            f"{out} holds {', '.join(sorted(other)[:3])}; expected a new or empty folder. Name another with --out."
        )
    else:
        return out
    raise DataError(message)


def write_explanation(
    out: Path,
    method: str,
    types: Sequence[ScoredGenes],
    top: int,
    sets: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> list[str]:
    """Write the tables and the picture; return the names of the files.

    Parameters
    ----------
    out
        Folder, see `check_folder`.
    method
        What the scores are.
    types
        Genes of each type in the order of their rank.
    top
        Genes of each type in the picture; the table has all.
    sets
        Gene sets of each type, where they were asked for.
    """
    import pandas as pd

    out.mkdir(exist_ok=True)
    tables = [
        pd.DataFrame({
            "cell_type": t.name, "rank": np.arange(1, len(t.genes) + 1), "gene": t.genes, "score": t.score,
            "others": t.others, "cells": t.cells, "method": method,
        })
        for t in types
    ]  # fmt: skip
    pd.concat(tables).to_csv(out / GENES, index=False)
    written = [GENES, PICTURE]
    if sets is not None:
        columns = ["cell_type", "name", "overlap", "size", "p_value", "adjusted", "genes"]
        rows = [{"cell_type": t, **s, "genes": ";".join(s["genes"])} for t, found in sets.items() for s in found]
        pd.DataFrame(rows, columns=columns).to_csv(out / SETS, index=False)
        written.insert(1, SETS)
    draw_top_genes(out / PICTURE, method, types, top)
    return written


def draw_top_genes(path: Path, method: str, types: Sequence[ScoredGenes], top: int) -> None:
    """Draw the top genes of each type as bars, and beside each its mean in the cells of other types."""
    from matplotlib.figure import Figure

    across = min(len(types), 4)
    down = -(-len(types) // across)
    figure = Figure(figsize=(3.2 * across + 0.6, (0.19 * top + 0.9) * down + 0.4), layout="constrained")
    fields = np.atleast_1d(figure.subplots(down, across)).ravel()
    for axes, found in zip(fields, types, strict=False):
        _bars(axes, found, top)
    for axes in fields[len(types) :]:
        axes.set_axis_off()
    figure.supxlabel(f"{TITLES.get(method, method)}: dark in cells of the type, grey in all others", fontsize=9)
    figure.savefig(path, dpi=120)


def _bars(axes: "Axes", found: ScoredGenes, top: int) -> None:
    names = found.genes[:top].tolist()
    places = np.arange(len(names))
    axes.barh(places - 0.2, found.score[:top], height=0.4, color=HERE)
    axes.barh(places + 0.2, found.others[:top], height=0.4, color=ELSEWHERE)
    axes.set_yticks(places, names, fontsize=7)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=7)
    axes.locator_params(axis="x", nbins=4)
    axes.set_title(f"{found.name}, {found.cells} cells", fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def explain_to(
    explained: Callable[[], Explanation], out: Path | None, top: int, gene_sets: str | Path | None
) -> dict[str, Any]:
    """Explain, test the top genes against gene sets, and write what was found.

    Parameters
    ----------
    explained
        Makes the explanation; it is called once everything else was checked.
    out
        Folder to write, or ``None``.
    top
        Genes of a type that are shown and tested.
    gene_sets
        Gene sets (.gmt), or ``None``.

    Raises
    ------
    DataError, StageError
        If the folder or the gene sets cannot be used, or nothing can be explained; nothing is written then.
    """
    # What can be refused before the cells are read.
    folder = None if out is None else check_folder(out)
    sets = None
    if gene_sets is not None:
        require_gseapy()
        sets = read_gene_sets(Path(gene_sets))
    explanation = explained()
    answer = explanation.to_dict(top)
    of_types: dict[str, Any] | None = None
    if sets is not None:
        of_types = {}
        for t in explanation.types:
            rows = enriched(t.genes[:top].tolist(), t.genes.tolist(), sets)
            of_types[t.name] = answer["types"][t.name]["gene_sets"] = [row.to_dict() for row in rows]
    if folder is not None:
        answer["files"] = write_explanation(folder, explanation.method, explanation.types, top, of_types)
        answer["out"] = str(folder)
    return answer
