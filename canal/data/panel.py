"""The genes that the stages so far look at, and how a file's genes fit them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from canal.data.genes import Genes
from canal.data.symbols.translation import columns_by_symbol, table_for
from canal.errors import DataError

SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class GeneMatch:
    """Where a file measures the genes of a panel.

    Attributes
    ----------
    measured
        Whether each panel gene is in the file, bool of shape (panel,).
    columns
        Its column in the file, -1 where it is not measured, of shape (panel,).
    panel_genes, file_genes
        Names on both sides.
    translated
        Genes that the panel names by Ensembl id and the file by symbol.
    ambiguous
        Genes of the panel that were not looked for by symbol, because other ids have their symbol, too.
    """

    measured: np.ndarray
    columns: np.ndarray
    panel_genes: tuple[str, ...]
    file_genes: tuple[str, ...]
    translated: int = 0
    ambiguous: int = 0

    @property
    def share(self) -> float:
        """Share of the panel that the file measures; 1 for an empty panel."""
        return float(self.measured.mean()) if len(self.measured) else 1.0

    def project(self, expression: sp.csr_matrix) -> sp.csr_matrix:
        """Put a file's columns in the order of the panel; genes not measured are zero.

        Parameters
        ----------
        expression
            CSR of shape (cells, genes of the file).

        Returns
        -------
        CSR of shape (cells, panel) with sorted indices and the same dtype.
        """
        cells, genes = expression.shape
        assert genes == len(self.file_genes), (genes, len(self.file_genes))
        columns, shape = self.columns[self.measured], (cells, len(self.measured))
        if len(columns) == genes and (np.diff(columns) > 0).all():  # every gene stays, in its order: nothing to copy
            if genes == shape[1]:
                return expression
            indices = np.flatnonzero(self.measured).astype(expression.indices.dtype)[expression.indices]
            return sp.csr_matrix((expression.data, indices, expression.indptr), shape=shape)
        chosen = expression[:, columns]
        indices = np.flatnonzero(self.measured).astype(chosen.indices.dtype)[chosen.indices]
        projected = sp.csr_matrix((chosen.data, indices, chosen.indptr), shape=shape)
        projected.sort_indices()
        return projected


@dataclass(frozen=True, kw_only=True)
class GenePanel:
    """The genes of the model in the order of its inputs; added at the end, never removed.

    Attributes
    ----------
    genes
        Each name once.
    entered
        Number of the stage at which each gene entered.
    """

    genes: Genes
    entered: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.genes) == len(self.entered), "genes and entered differ in length"
        assert len(set(self.genes)) == len(self.genes), "gene names occur twice"

    def __len__(self) -> int:
        return len(self.genes)

    @classmethod
    def empty(cls) -> Self:
        """Return the panel before the first stage."""
        return cls(genes=Genes(), entered=())

    def extended(self, genes: Genes, stage: int) -> "GenePanel":
        """Return the panel with those genes added that it does not hold yet, in the order given.

        A gene that the panel holds without Ensembl id takes the id that is given.

        Parameters
        ----------
        genes
            The genes to add.
        stage
            Number of the stage at which they enter.
        """
        columns = self.match(genes).columns.tolist()
        known = set(columns)
        fresh = [column for column in range(len(genes)) if column not in known]
        ids = [own or (genes.ensembl[c] if c >= 0 else "") for own, c in zip(self.genes.ensembl, columns, strict=True)]
        added = genes.take(fresh)
        return GenePanel(
            genes=Genes((*self.genes.names, *added.names), (*ids, *added.ensembl)),
            entered=self.entered + (stage,) * len(fresh),
        )

    def subset(self, positions: np.ndarray) -> "GenePanel":
        """Return the panel of the genes at these positions, in this order."""
        return GenePanel(
            genes=self.genes.take(positions),
            entered=tuple(self.entered[p] for p in positions.tolist()),
        )

    def match(self, genes: Genes) -> GeneMatch:
        """Find the panel genes among a file's: by name first, then by other names, by Ensembl id, by the ids' symbols.

        Other names are former symbols, and those of the mouse for panels from before its genes were named as human
        ones. Symbols of ids are for panels most of whose genes are ids: of models from before ids were read as symbols.

        Parameters
        ----------
        genes
            Of the file; a column of the file is used for one panel gene only.
        """
        by_name = {name: column for column, name in enumerate(genes)}
        by_id = {name: column for column, name in reversed(list(enumerate(genes.ensembl))) if name}
        columns = np.array([by_name.get(name, -1) for name in self.genes], dtype=np.int64)
        used = set(columns.tolist())
        by_other = {name: column for column, name in reversed(list(enumerate(genes.other))) if name}
        for position in np.flatnonzero(columns < 0).tolist():
            column = by_other.get(self.genes[position], -1)
            if column not in used:
                columns[position] = column
                used.add(column)
        for position in np.flatnonzero(columns < 0).tolist():
            # A panel that grew from a file without symbols has Ensembl ids as genes.
            column = by_id.get(self.genes.ensembl[position] or self.genes[position], -1)
            if column not in used:
                columns[position] = column
                used.add(column)
        translated, ambiguous = 0, 0
        if table_for(self.genes.names) is not None and (columns < 0).any():
            missing = np.flatnonzero(columns < 0).tolist()
            by_symbol, ambiguous = columns_by_symbol([self.genes[p] for p in missing], genes.names)
            for place, column in by_symbol.items():
                if column not in used:
                    columns[missing[place]] = column
                    used.add(column)
                    translated += 1
        return GeneMatch(
            measured=columns >= 0,
            columns=columns,
            panel_genes=self.genes.names,
            file_genes=genes.names,
            translated=translated,
            ambiguous=ambiguous,
        )

    def to_dict(self) -> dict[str, list[Any]]:
        """Return the panel as plain values for JSON."""
        return {
            "genes": list(self.genes.names),
            "ensembl": list(self.genes.ensembl),
            "entered": list(self.entered),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the panel of `to_dict`'s plain values."""
        return cls(
            genes=Genes.of(values["genes"], values["ensembl"]),
            entered=tuple(map(int, values["entered"])),
        )


def symbols_note(match: GeneMatch, source: str) -> str | None:
    """Return a sentence on the genes of a panel of Ensembl ids that a file names by symbol, ``None`` without any."""
    if not match.translated:
        return None
    note = (
        f"The model names its genes by Ensembl ids: {match.translated:,} of them were found in {source} by their "
        "symbols, with the table of GENCODE"
    )
    if match.ambiguous:
        return f"{note}; {match.ambiguous:,} were not looked for, because other ids have their symbol, too."
    return f"{note}."


# A targeted panel holds few of the network's genes, but these are no accident; the memory is solved for what it has.
ENOUGH_GENES = 100


def check_overlap(match: GeneMatch, floor: float, source: str, in_memory: int = 0) -> None:
    """Refuse a file that measures too few genes of the panel.

    Parameters
    ----------
    floor
        Share of the panel that a file must measure.
    in_memory
        Genes that the file measures and the analytic memory knows: `ENOUGH_GENES` of them do as well.

    Raises
    ------
    DataError
        If no gene is in common, or the share is below ``floor`` and there are fewer than that in the memory.
    """
    shared = int(match.measured.sum())
    if not len(match.measured) or (shared and match.share >= floor) or in_memory >= ENOUGH_GENES:
        return
    there, here = ", ".join(match.panel_genes[:SHOWN]), ", ".join(match.file_genes[:SHOWN])
    if shared == 0:
        message = (
            f"{source} has no gene in common with the model's {len(match.measured)} genes. The "
            f"file's are named {here}; the model's {there}. Name the column of var that holds the "
            "same kind of names with --gene-key, or check the species."
        )
        raise DataError(message)
    message = (
        f"{source} measures {shared} of the model's {len(match.measured)} genes "
        f"({match.share:.1%}); expected {floor:.1%} at least. The file's are named {here}; the "
        f"model's {there}. Use the file before its genes were filtered, name another column with "
        f"--gene-key, or teach the model's next stage with a lower floor: --set genes.min_overlap={floor / 5:g}."
    )
    raise DataError(message)
