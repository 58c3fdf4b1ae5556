"""Are the top genes of a type those of known gene sets? Over-representation, offline, by gseapy."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control

from canal.errors import ConfigError, DataError

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
