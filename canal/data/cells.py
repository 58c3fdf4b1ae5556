"""Checked cells: what every later step may rely on; of one file, or of several in one gene space.

The example bank is a `CellPool`, and so are the cells a stage trains on.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

from canal.data.genes import Genes
from canal.data.panel import GenePanel


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
    dropped_labels
        Labels left out because they name no type or were asked to be left out, and their number of cells; these are
        among ``unlabelled``.
    translated_genes
        Ensembl ids of the file that were read as symbols, for it has no symbols.
    donors
        Where the file names donors: of how many the cells of each type are.
    species
        ``"human"`` or ``"mouse"`` by the names of the genes; ``""`` where these do not tell.
    orthologues
        Mouse genes that were named as human ones which have another symbol.
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
    dropped_labels: dict[str, int] = field(default_factory=dict)
    translated_genes: int = 0
    donors: dict[str, int] = field(default_factory=dict)
    species: str = ""
    orthologues: int = 0


class CellsDigest:
    """SHA-256 over cells that come in blocks; blocks of any size give the same digest."""

    def __init__(self) -> None:
        self._parts = {part: hashlib.sha256() for part in ("lengths", "columns", "values", "names", "labels")}

    def update(self, block: sp.csr_matrix, names: Iterable[str], labels: Iterable[str] | None) -> None:
        """Add cells: their values as stored (CSR, sorted, no zeros), names and labels."""
        self._parts["lengths"].update(np.diff(block.indptr).astype("<i4").data)
        self._parts["columns"].update(np.ascontiguousarray(block.indices, dtype="<i4").data)
        self._parts["values"].update(np.ascontiguousarray(block.data, dtype="<f4").data)
        self._parts["names"].update(_bytes(names))
        if labels is not None:
            self._parts["labels"].update(_bytes(labels))

    def finish(self, scale: str, genes: Genes) -> str:
        """Return ``"sha256:..."`` over the cells so far, their scale and their genes."""
        whole = hashlib.sha256(_bytes((scale, str(len(genes)), *genes.names, *genes.ensembl)))
        for name, part in self._parts.items():
            whole.update(name.encode() + part.digest())
        return f"sha256:{whole.hexdigest()}"


def _bytes(texts: Iterable[str]) -> bytes:
    return b"".join(len(raw).to_bytes(4, "little") + raw for raw in (str(t).encode() for t in texts))


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
    rows
        Row of the file that each cell stands in, of shape (cells,); ``None`` where that is not known.
    stored
        The values as the file holds them, in the order of ``expression.data``, for the digest of some of the cells;
        ``None`` where nobody asked for them.
    """

    expression: sp.csr_matrix
    genes: Genes
    names: np.ndarray
    labels: np.ndarray | None
    report: FileReport
    rows: np.ndarray | None = None
    stored: np.ndarray | None = None

    def __post_init__(self) -> None:
        n, g = self.expression.shape
        assert len(self.genes) == g, (len(self.genes), g)
        assert self.names.shape == (n,), (self.names.shape, n)
        assert self.labels is None or self.labels.shape == (n,), n
        assert self.rows is None or self.rows.shape == (n,), n
        assert self.stored is None or self.stored.shape == self.expression.data.shape, self.stored.shape

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
            rows=None if self.rows is None else self.rows[rows],
            stored=None if self.stored is None else self._stored()[rows].data,
        )

    def renamed(self, names: Mapping[str, str]) -> "Cells":
        """Return the cells with new names of types in place of old ones; the digest stays that of the old names."""
        if self.labels is None or not names:
            return self
        labels = np.array([names.get(name, name) for name in self.labels.tolist()], dtype=object)
        return replace(self, labels=labels)

    def digest(self) -> str:
        """Return the digest of exactly these cells, as that of a file which holds these and no others."""
        digest = CellsDigest()
        digest.update(self._stored(), self.names, self.labels)
        return digest.finish(self.report.scale, self.genes)

    def _stored(self) -> sp.csr_matrix:
        """Return the values as the file holds them: scaling keeps zeros zero, so the places are the same."""
        assert self.stored is not None, "the stored values were not kept"
        expression = self.expression
        return sp.csr_matrix((self.stored, expression.indices, expression.indptr), shape=expression.shape)


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
