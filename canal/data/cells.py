"""Checked cells: what every later step may rely on."""

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

ArrayStr = np.ndarray  # of dtype object or str, (cells,)


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What was found in a file of cells; goes into the record of the stage as it is.

    Attributes
    ----------
    path
        The file as it was named.
    digest
        ``"sha256:..."`` over the content that is used: expression, genes, cell names and labels.
        The same cells in another container or under another path have the same digest.
    where
        Where the values were found: ``"layers['counts']"``, ``"X"`` or ``"raw.X"``.
    scale
        ``"counts"``, ``"ln"`` (natural logarithm of normalised values), ``"log2"`` or ``"linear"``
        (normalised values that are not logged).
    scale_evidence
        One sentence that says why the scale was taken.
    gene_ids
        ``"symbol"`` or ``"ensembl"``, and in ``gene_key`` the column they stand in (``"var_names"``
        by default).
    unlabelled, dropped_types
        Cells left out because they have no label; types left out with ``--drop-rare`` and their
        number of cells.
    warnings
        Sentences for the person who added the file.
    """

    path: str
    digest: str
    cells: int
    genes: int
    where: str
    scale: str
    scale_evidence: str
    gene_ids: str
    gene_key: str
    unlabelled: int = 0
    dropped_types: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Cells that passed every check.

    Attributes
    ----------
    expression
        CSR float32 of shape (cells, genes): natural ``log1p`` of values scaled to 10,000 a cell
        over the genes of the file. Its zeros are measured zeros; a gene that is not in ``genes``
        was not measured.
    genes
        Canonical gene names, unique, in the order of the columns: upper-case symbols, or Ensembl
        ids without version where the file has no symbols.
    ensembl
        Ensembl id of each gene, ``""`` where unknown; same length as ``genes``.
    names
        Names of the cells, unique, of shape (cells,).
    labels
        Cell type of each cell, of shape (cells,), or ``None`` where labels were not asked for.
    report
        What was found.
    """

    expression: sp.csr_matrix
    genes: tuple[str, ...]
    ensembl: tuple[str, ...]
    names: np.ndarray
    labels: np.ndarray | None
    report: FileReport

    def __post_init__(self) -> None:
        n, g = self.expression.shape
        assert len(self.genes) == len(self.ensembl) == g, (len(self.genes), len(self.ensembl), g)
        assert self.names.shape == (n,), (self.names.shape, n)
        assert self.labels is None or self.labels.shape == (n,), n

    def __len__(self) -> int:
        return int(self.expression.shape[0])

    def take(self, rows: np.ndarray) -> "Cells":
        """Return the cells at these positions, in this order."""
        return Cells(
            expression=self.expression[rows],
            genes=self.genes,
            ensembl=self.ensembl,
            names=self.names[rows],
            labels=None if self.labels is None else self.labels[rows],
            report=self.report,
        )
