"""`canal explain` as files: a table of genes, a picture of the top genes, and a table of the gene sets they belong to.

Gene sets are tested for over-representation among the top genes of a type, offline, by gseapy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import false_discovery_control

from canal.errors import ConfigError, DataError
from canal.explain.explain import Explanation, TypeGenes
from canal.report.annotation import spreadsheet_frame
from canal.text import picture_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


GENES, SETS, PICTURE = "genes.csv", "gene_sets.csv", "top-genes.png"


def explain_to(
    make_explanation: Callable[[], Explanation], out: Path | None, top: int, gene_sets: str | Path | None
) -> dict[str, Any]:
    """Explain, test the top genes against gene sets, and write both to files.

    Parameters
    ----------
    make_explanation
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
    explanation = make_explanation()
    answer = explanation.to_dict(top)
    # The gene sets of each type, as plain values.
    sets_of_types: dict[str, list[dict[str, Any]]] | None = None
    if sets is not None:
        sets_of_types = {}
        for explained in explanation.types:
            genes = explained.genes.tolist()
            enriched_sets = [one.to_dict() for one in enriched(genes[:top], genes, sets)]
            sets_of_types[explained.name] = answer["types"][explained.name]["gene_sets"] = enriched_sets
    if folder is not None:
        answer["files"] = write_explanation(folder, explanation, top, sets_of_types)
        answer["out"] = str(folder)
    return answer


def check_folder(out: Path) -> Path:
    """Return the folder if an explanation may be written there: new, empty, or with an earlier one.

    Raises
    ------
    DataError
        If it is a file, its parent is missing, or it holds something else.
    """
    if out.exists() and not out.is_dir():
        message = f"{out} is a file; expected a folder. Name another with --out."
        raise DataError(message)
    if not out.parent.is_dir():
        message = f"There is no folder {out.parent} to make {out.name} in. Make it first, or name another with --out."
        raise DataError(message)
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    strange = sorted(names - {GENES, SETS, PICTURE})
    if strange:
        message = f"{out} holds {', '.join(strange[:3])}; expected a new or empty folder. Name another with --out."
        raise DataError(message)
    return out


# Gene sets.


@dataclass(frozen=True, kw_only=True)
class EnrichedSet:
    """A gene set beside the top genes of a type.

    Attributes
    ----------
    name
        Of the set.
    overlap, size
        Its genes among the top genes, and among all that were explained.
    genes
        Those among the top genes.
    p_value, adjusted
        Of the hypergeometric test, and corrected after Benjamini and Hochberg over all sets that have a gene among
        those explained, also over those without a top gene, which gseapy alone leaves out.
    """

    name: str
    overlap: int
    size: int
    genes: tuple[str, ...]
    p_value: float
    adjusted: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def read_gene_sets(path: Path) -> dict[str, tuple[str, ...]]:
    """Read gene sets of a GMT file: a line a set, its name, a description and its genes, separated by tabs.

    Raises
    ------
    DataError
        If there is no such file, or a line is no gene set.
    """
    if not path.is_file():
        message = f"There is no file {path}. Expected gene sets, .gmt; check the spelling."
        raise DataError(message)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        message = f"{path} is no text ({error}). Expected gene sets, .gmt."
        raise DataError(message) from error
    sets: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, *rest = (part.strip() for part in line.split("\t"))
        # After the description; a gene may carry a weight behind a comma.
        genes = tuple(gene.split(",")[0].upper() for gene in rest[1:] if gene)
        if not name or not genes:
            message = (
                f"{path}, line {number} is no gene set; expected its name, a description and its genes, separated by "
                "tabs (GMT)."
            )
            raise DataError(message)
        sets[name] = genes
    if not sets:
        message = f"{path} holds no gene set. Expected a line a set (GMT)."
        raise DataError(message)
    return sets


def require_gseapy() -> None:
    """Refuse where gseapy is not installed, before any work is done.

    Raises
    ------
    ConfigError
        If so.
    """
    try:
        import gseapy  # noqa: F401
    except ImportError as error:
        message = "--enrich needs gseapy, which is not installed: pip install 'canal[explain]'."
        raise ConfigError(message) from error


def enriched(
    top: Sequence[str], background: Sequence[str], sets: Mapping[str, tuple[str, ...]]
) -> tuple[EnrichedSet, ...]:
    """Test the top genes against gene sets.

    Parameters
    ----------
    top
        Genes to test.
    background
        All genes that could have been among them.
    sets
        Gene sets; what is not in the background does not count.

    Returns
    -------
    The sets that have a top gene, the smallest p-value first.
    """
    import gseapy

    # The genes of each set that could have been among the top genes, and the sets that have one there.
    possible, top_genes = set(background), set(top)
    within: dict[str, list[str]] = {}
    with_top_gene: dict[str, list[str]] = {}
    for name, genes in sets.items():
        members = set(genes) & possible
        if members:
            within[name] = sorted(members)
        if members & top_genes:
            with_top_gene[name] = sorted(members)
    if not with_top_gene:
        return ()
    table = gseapy.enrich(
        gene_list=list(top), gene_sets=with_top_gene, background=list(background), outdir=None, no_plot=True, cutoff=1.0
    ).results
    # Sets without a top gene count in the correction, with a p-value of 1.
    p_values = table["P-value"].to_numpy(dtype=float)
    without_top_gene = np.ones(len(within) - len(with_top_gene))
    adjusted = false_discovery_control(np.concatenate([p_values, without_top_gene]))
    rows = []
    for row, q_value in zip(table.to_dict("records"), adjusted, strict=False):
        name, genes_on_top = str(row["Term"]), str(row["Genes"]).split(";")
        rows.append(
            EnrichedSet(
                name=name,
                overlap=len(genes_on_top),
                size=len(within[name]),
                genes=tuple(sorted(genes_on_top)),
                p_value=float(row["P-value"]),
                adjusted=float(q_value),
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.p_value, row.name)))


# The tables and the picture.
TITLES = {"attention": "share of attention", "memory": "part of the memory's ridge score"}
OWN_COLOUR, OTHERS_COLOUR = "#31688e", "#c8c8c8"
PANELS_IN_A_ROW = 4


def write_explanation(
    out: Path,
    explanation: Explanation,
    top: int,
    sets_of_types: Mapping[str, Sequence[Mapping[str, Any]]] | None,
) -> list[str]:
    """Write the tables and the picture; return the names of the files.

    Parameters
    ----------
    out
        Folder, see `check_folder`.
    explanation
        Scores of the genes of each type.
    top
        Genes of each type in the picture; the table has all.
    sets_of_types
        Gene sets of each type as plain values, where they were asked for.
    """
    import pandas as pd

    out.mkdir(exist_ok=True)
    # All genes of every type, a row each.
    tables = []
    for explained in explanation.types:
        columns = {
            "cell_type": explained.name,
            "rank": np.arange(1, len(explained.genes) + 1),
            "gene": explained.genes,
            "score": explained.score,
            "others": explained.others,
            "cells": explained.cells,
            "method": explanation.method,
        }
        if explained.speaks_for is not None:
            columns["evidence"] = np.where(explained.speaks_for, "for", "against")
        tables.append(pd.DataFrame(columns))
    spreadsheet_frame(pd.concat(tables)).to_csv(out / GENES, index=False)
    written = [GENES]
    # The gene sets of every type, a row each.
    if sets_of_types is not None:
        rows = []
        for name, sets in sets_of_types.items():
            for gene_set in sets:
                rows.append({"cell_type": name, **gene_set, "genes": ";".join(gene_set["genes"])})
        head = ["cell_type", "name", "overlap", "size", "p_value", "adjusted", "genes"]
        spreadsheet_frame(pd.DataFrame(rows, columns=head)).to_csv(out / SETS, index=False)
        written.append(SETS)
    _draw_top_genes(out / PICTURE, explanation, top)
    return [*written, PICTURE]


def _draw_top_genes(path: Path, explanation: Explanation, top: int) -> None:
    """Draw the top genes of each type as bars, and beside each its mean in the cells of other types."""
    from matplotlib.figure import Figure

    # A grid of panels, one for each type.
    types = explanation.types
    across = min(len(types), PANELS_IN_A_ROW)
    down = -(-len(types) // across)
    figure = Figure(figsize=(3.2 * across + 0.6, (0.19 * top + 0.9) * down + 0.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(down, across)).ravel()
    for axes, explained in zip(panels, types, strict=False):
        _draw_bars(axes, explained, top)
    # The last row may have panels left over.
    for axes in panels[len(types) :]:
        axes.set_axis_off()
    title = TITLES.get(explanation.method, explanation.method)
    figure.supxlabel(f"{title}: dark in cells of the type, grey in all others", fontsize=9)
    figure.savefig(path, dpi=120)


def _draw_bars(axes: "Axes", explained: TypeGenes, top: int) -> None:
    names = explained.genes[:top].tolist()
    positions = np.arange(len(names))
    axes.barh(positions - 0.2, explained.score[:top], height=0.4, color=OWN_COLOUR)
    axes.barh(positions + 0.2, explained.others[:top], height=0.4, color=OTHERS_COLOUR)
    axes.set_yticks(positions, [picture_text(name) for name in names], fontsize=7)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=7)
    axes.locator_params(axis="x", nbins=4)
    axes.set_title(f"{picture_text(explained.name)}, {explained.cells} cells", fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
