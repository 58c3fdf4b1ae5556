"""Checked cells: what every later step may rely on.

Cells of several files in one gene space, each with the genes its file measured.

The example bank is a pool, and so are the cells a stage trains on.
"""

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from canal.data.genes import Genes
from canal.data.panel import GenePanel

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
        Genes of the columns, each name once.
    names
        Names of the cells, unique, of shape (cells,).
    labels
        Cell type of each cell, of shape (cells,), or ``None`` where labels were not asked for.
    report
        What was found.
    """

    expression: sp.csr_matrix
    genes: Genes
    names: np.ndarray
    labels: np.ndarray | None
    report: FileReport

    def __post_init__(self) -> None:
        n, g = self.expression.shape
        assert len(self.genes) == g, (len(self.genes), g)
        assert self.names.shape == (n,), (self.names.shape, n)
        assert self.labels is None or self.labels.shape == (n,), n

    def __len__(self) -> int:
        return int(self.expression.shape[0])

    def take(self, rows: np.ndarray) -> "Cells":
        """Return the cells at these positions, in this order."""
        return Cells(
            expression=self.expression[rows],
            genes=self.genes,
            names=self.names[rows],
            labels=None if self.labels is None else self.labels[rows],
            report=self.report,
        )


@dataclass(frozen=True, kw_only=True)
class CellPool:
    """Labelled cells of one or more sources.

    Attributes
    ----------
    panel
        The gene space of the columns.
    expression
        CSR float32 of shape (cells, genes): natural ``log1p`` of values scaled to 10,000 a cell.
    measured
        Genes that each source measured, bool of shape (sources, genes).
    source
        Source of each cell, a row of ``measured``, int of shape (cells,).
    stage
        Number of the stage each cell came with, int of shape (cells,).
    labels, names
        Cell type and name of each cell, str of shape (cells,).
    """

    panel: GenePanel
    expression: sp.csr_matrix
    measured: np.ndarray
    source: np.ndarray
    stage: np.ndarray
    labels: np.ndarray
    names: np.ndarray

    def __post_init__(self) -> None:
        n, g = self.expression.shape
        assert self.measured.shape[1] == g == len(self.panel.genes), (self.measured.shape, g)
        for column in (self.source, self.stage, self.labels, self.names):
            assert column.shape == (n,), (column.shape, n)

    def __len__(self) -> int:
        return int(self.expression.shape[0])

    @classmethod
    def empty(cls) -> "CellPool":
        """Return a pool without cells or genes."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(
            panel=GenePanel.empty(),
            expression=sp.csr_matrix((0, 0), dtype=np.float32),
            measured=np.zeros((0, 0), dtype=bool),
            source=nothing,
            stage=nothing,
            labels=np.zeros(0, dtype=object),
            names=np.zeros(0, dtype=object),
        )

    @classmethod
    def of(cls, cells: Cells, stage: int) -> "CellPool":
        """Return the labelled cells of one file as a pool."""
        assert cells.labels is not None
        n = len(cells)
        return cls(
            panel=GenePanel.empty().extended(cells.genes, stage),
            expression=cells.expression,
            measured=np.ones((1, len(cells.genes)), dtype=bool),
            source=np.zeros(n, dtype=np.int64),
            stage=np.full(n, stage, dtype=np.int64),
            labels=cells.labels.astype(object),
            names=cells.names.astype(object),
        )

    def take(self, rows: np.ndarray) -> "CellPool":
        """Return these cells in this order, without the sources and genes that none of them has."""
        sources, source = np.unique(self.source[rows], return_inverse=True)
        measured = self.measured[sources]
        columns = np.flatnonzero(measured.any(axis=0))
        return CellPool(
            panel=self.panel.subset(columns),
            expression=self.expression[rows][:, columns].tocsr(),
            measured=measured[:, columns],
            source=source.astype(np.int64),
            stage=self.stage[rows],
            labels=self.labels[rows],
            names=self.names[rows],
        )

    def joined(self, other: "CellPool") -> "CellPool":
        """Return both pools in the union of their gene spaces, the cells of ``other`` last."""
        entered = int(other.stage.max()) if len(other) else 0
        panel = self.panel.extended(other.panel.genes, entered)
        values, measured = zip(self.on(panel), other.on(panel), strict=True)
        return CellPool(
            panel=panel,
            expression=sp.vstack(values, format="csr") if len(self) else values[1],
            measured=np.vstack(measured),
            source=np.concatenate([self.source, other.source + len(self.measured)]),
            stage=np.concatenate([self.stage, other.stage]),
            labels=np.concatenate([self.labels, other.labels]),
            names=np.concatenate([self.names, other.names]),
        )

    def on(self, panel: GenePanel) -> tuple[sp.csr_matrix, np.ndarray]:
        """Return expression (cells, panel) as CSR and the measured genes (sources, panel) on another gene space."""
        match = panel.match(self.panel.genes)
        mask = match.project(sp.csr_matrix(self.measured.astype(np.float32)))
        return match.project(self.expression), np.asarray(mask.toarray(), dtype=bool)
