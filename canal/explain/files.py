"""An explanation as files: a table of genes, a table of gene sets, a picture of the top genes.

Are the top genes of a type those of known gene sets? Over-representation, offline, by gseapy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.stats import false_discovery_control

from canal.errors import ConfigError, DataError
from canal.explain.explain import Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Sets = Mapping[str, tuple[str, ...]]


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
    sets: dict[str, tuple[str, ...]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        message = f"{path} is no text ({error}). Expected gene sets, .gmt."
        raise DataError(message) from error
    for number, line in enumerate(lines, 1):
        name, *rest = (part.strip() for part in line.split("\t"))
        genes = tuple(gene.split(",")[0].upper() for gene in rest[1:] if gene)
        if line.strip() and (not name or not genes):
            message = (
                f"{path}, line {number} is no gene set; expected its name, a description and its genes, separated by "
                "tabs (GMT)."
            )
            raise DataError(message)
        if line.strip():
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


def enriched(top: Sequence[str], background: Sequence[str], sets: Sets) -> tuple[EnrichedSet, ...]:
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

    known = set(background)
    within = {name: sorted(set(genes) & known) for name, genes in sets.items() if set(genes) & known}
    hit = {name: genes for name, genes in within.items() if set(genes) & set(top)}
    if not hit:
        return ()
    table = gseapy.enrich(
        gene_list=list(top), gene_sets=hit, background=list(background), outdir=None, no_plot=True, cutoff=1.0
    ).results
    p_values = table["P-value"].to_numpy(dtype=float)
    adjusted = false_discovery_control(np.concatenate([p_values, np.ones(len(within) - len(hit))]))
    rows = [
        EnrichedSet(
            name=str(row["Term"]), overlap=len(str(row["Genes"]).split(";")), size=len(within[str(row["Term"])]),
            genes=tuple(sorted(str(row["Genes"]).split(";"))), p_value=float(row["P-value"]), adjusted=float(q),
        )
        for row, q in zip(table.to_dict("records"), adjusted, strict=False)
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda r: (r.p_value, r.name)))


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
