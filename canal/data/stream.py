"""Checked cells: in blocks, in the order of the file and in constant memory, or all of them in memory."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import scipy.sparse as sp

from canal.data.cells import Cells, CellsDigest, FileReport
from canal.data.genes import ENSEMBL, GeneNames, expression_rows, name_genes
from canal.data.labels import DONOR_COLUMNS, LabelOptions, TakenLabels, donors_by_type, take_labels
from canal.data.panel import GenePanel
from canal.data.reading_rules import NEWEST, ReadingRules
from canal.data.source import CellSource, StoredTable, from_adata
from canal.data.values import find_values, normalise, scale_warning, unit_rows
from canal.errors import DataError

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


SHOWN = 5
CHUNK = 2048  # rows whose arrays the allocator keeps and gives out again: larger ones cost page faults


class CellStream:
    """The cells of an open file, checked and brought to one scale as they pass.

    Use it in a ``with`` statement: it closes its file.

    Parameters
    ----------
    source
        The open file.
    gene_key
        Column of ``var`` with the gene names; found without help where ``None``.
    taken
        Labels of all cells of the file, or ``None``.
    keep_unlabelled
        Whether cells without a label pass too.
    chunk
        Most cells in a block.
    wanted
        Genes that count where a file has several matrices, such as those of a model; all of the file's by default.
    rules
        Older ones for digests of older records. By the first, every row of ``var`` is a gene, and counts are preferred
        however few genes they have.

    Attributes
    ----------
    genes
        As in `Cells`.
    names
        Names of the cells that pass, of shape (cells,).
    labels
        Their types, ``""`` where unlabelled; ``None`` where labels were not asked for.
    """

    def __init__(
        self,
        source: CellSource,
        *,
        gene_key: str | None = None,
        taken: TakenLabels | None = None,
        keep_unlabelled: bool = True,
        chunk: int = CHUNK,
        wanted: GenePanel | None = None,
        rules: ReadingRules = NEWEST,
    ) -> None:
        names = _checked_names(source)
        self._source, self._chunk = source, chunk
        coverage = _coverage(source, gene_key, wanted, rules)
        self._verdict = find_values(source, coverage, whole=rules > ReadingRules.FIRST)
        self._matrix = source.places[self._verdict.where]
        weights = np.asarray(self._matrix.sampled.sum(axis=0)).ravel()
        self._named = _named_genes(source, self._verdict.where, gene_key, weights, rules=rules)
        self.genes = self._named.genes
        self._passes = np.ones(len(names), dtype=bool)
        if taken is not None and not keep_unlabelled:
            self._passes = taken.labels != ""
        self._taken = taken
        self.names = names[self._passes]
        self.labels = None if taken is None else taken.labels[self._passes]
        self._digest, self._empty = "", 0
        self._rows: tuple[int, int] | None = None

    def only(self, first: int, end: int) -> None:
        """Let pass rows ``first`` to ``end`` alone; scale and genes are still found from the whole file."""
        assert self._taken is None, "a part of a file is read without labels"
        self._rows = first, end
        self._passes[:first], self._passes[end:] = False, False
        self.names = self.names[first:end]

    @property
    def file_rows(self) -> np.ndarray:
        """Rows of the file that pass, ascending, of shape (cells,)."""
        return np.flatnonzero(self._passes)

    def __len__(self) -> int:
        return len(self.names)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._source.close()

    @property
    def obs(self) -> "pd.DataFrame":
        """Annotations of the cells that pass, in their order; read whole when they are asked for."""
        obs = self._source.obs
        return obs.rows(self._passes) if isinstance(obs, StoredTable) else obs[self._passes]

    def column(self, name: str) -> np.ndarray:
        """Return one column of the annotations as text, object (cells,).

        Raises
        ------
        KeyError
            If there is none of that name.
        """
        return np.asarray(self._source.obs[name].astype(str), dtype=object)[self._passes]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the annotations."""
        return tuple(map(str, self._source.obs.columns))

    @cached_property
    def _donors(self) -> dict[str, int]:
        """Return of how many donors the cells of each type are; nothing where the file names no types or donors."""
        named = [name for name in DONOR_COLUMNS if name in self.columns]
        if self.labels is None or not named:
            return {}
        return donors_by_type(self.labels, self.column(named[0]))

    @property
    def report(self) -> FileReport:
        """What was found; ``digest`` is ``""`` until `chunks` has been read to its end."""
        taken, verdict = self._taken, self._verdict
        warnings = [
            verdict.note,
            scale_warning(verdict),
            *self._named.warnings,
            *(taken.warnings if taken else ()),
        ]
        if self._empty:
            warnings.append(f"{self._empty} cells of {self._source.source} have no counts at all; they stay as zeros.")
        return FileReport(
            path=self._source.source,
            digest=self._digest,
            cells=len(self),
            genes=len(self.genes),
            where=verdict.where,
            scale=str(verdict.scale),
            scale_evidence=f"Taken as {verdict.scale}: {verdict.evidence}.",
            gene_ids=self._named.kind,
            gene_key=self._named.key,
            donors=dict(self._donors),
            unlabelled=taken.unlabelled if taken else 0,
            dropped_types=dict(taken.dropped_types) if taken else {},
            warnings=tuple(w for w in warnings if w),
            dropped_labels=dict(taken.dropped_labels) if taken else {},
            translated_genes=self._named.translated,
            species=self._named.species,
            orthologues=self._named.orthologues,
        )

    def chunks(
        self, columns: np.ndarray | None = None, stored_values: list[np.ndarray] | None = None
    ) -> Iterator[sp.csr_matrix]:
        """Yield the cells in blocks, as `Cells.expression`: CSR float32 of shape (cells, genes).

        Parameters
        ----------
        columns
            The genes to yield, ascending positions among ``genes``; all by default. Every value of the file is checked
            and goes into the digest, and cells are scaled over all genes, whatever is asked for.
        stored_values
            Takes the values of each block as the file holds them.

        Raises
        ------
        DataError
            If a value cannot be expression, or no cell has any.
        """
        digest, done, empty = CellsDigest(), 0, 0
        scale, source = self._verdict.scale, self._source.source
        assert scale is not None
        for start, stored in self._matrix.blocks(self._chunk, *(self._rows or ())):
            passes = self._passes[start : start + stored.shape[0]]
            block = self._cut(stored, passes)
            stop = done + block.shape[0]
            digest.update(
                block,
                self.names[done:stop],
                None if self.labels is None else self.labels[done:stop],
            )
            done = stop
            empty += int((np.diff(block.indptr) == 0).sum())
            if stored_values is not None:
                stored_values.append(block.data)
            if block.shape[0]:
                yield normalise(block, scale, self._verdict.where, source, columns)
        if empty == len(self) and self._rows is None:
            message = f"{source}: none of the {empty} cells has any counts. Check the matrix in {self._verdict.where}."
            raise DataError(message)
        self._digest, self._empty = digest.finish(scale, self.genes), empty

    def rows(self, start: int, stop: int) -> sp.csr_matrix:
        """Return some cells out of turn, as `chunks` would; only where all cells of the file pass."""
        assert self._passes.all()
        scale = self._verdict.scale
        assert scale is not None
        block = self._cut(self._matrix.rows(start, stop), np.ones(1, dtype=bool))
        return normalise(block, scale, self._verdict.where, self._source.source)

    def sampled_cells(self) -> sp.csr_matrix:
        """Return some cells spread over the whole file, as `chunks` would, (some, genes)."""
        sample = self._matrix.sampled
        scale = self._verdict.scale
        assert scale is not None
        block = self._cut(sample, np.ones(sample.shape[0], dtype=bool))
        return normalise(block, scale, self._verdict.where, self._source.source)

    def sampled_totals(self) -> np.ndarray:
        """Return the sum of what is stored for each of the `sampled_cells`, (some,)."""
        return np.asarray(self._matrix.sampled.sum(axis=1), dtype=np.float64).ravel()

    def sampled_levels(self) -> np.ndarray:
        """Return the mean unit profile of some cells spread over the whole file, (genes,)."""
        return np.asarray(unit_rows(self.sampled_cells()).mean(axis=0), dtype=np.float64).ravel()

    def _cut(self, stored: sp.csr_matrix, passes: np.ndarray) -> sp.csr_matrix:
        block = stored if passes.all() else stored[passes]
        columns, genes = self._named.columns, block.shape[1]
        if len(columns) == genes:
            return block
        place = np.full(genes, -1, dtype=block.indices.dtype)  # a few columns fall out: faster than choosing the others
        place[columns] = np.arange(len(columns))
        indices = place[block.indices]
        kept = indices >= 0
        before = np.concatenate(([0], np.cumsum(kept)))
        return sp.csr_matrix(
            (block.data[kept], indices[kept], before[block.indptr]), shape=(block.shape[0], len(columns))
        )


def _named_genes(
    source: CellSource,
    where: str,
    gene_key: str | None,
    weights: np.ndarray | None = None,
    *,
    rules: ReadingRules = NEWEST,
) -> GeneNames:
    """Return the names of the genes whose values stand at a place; what is not gene expression is left out."""
    var = source.genes_at(where)
    if rules == ReadingRules.FIRST:
        return name_genes(var, source=source.source, gene_key=gene_key, weights=weights, rules=rules)
    keep, note = expression_rows(var, source.var, source.source)
    if note is None:
        return name_genes(var, source=source.source, gene_key=gene_key, weights=weights, rules=rules)
    # The genes are named among themselves: an antibody may have the name of its gene.
    of_genes = None if weights is None else weights[keep]
    named = name_genes(var[keep], source=source.source, gene_key=gene_key, weights=of_genes, rules=rules)
    return replace(named, columns=np.flatnonzero(keep)[named.columns], warnings=(note, *named.warnings))


def _coverage(
    source: CellSource, gene_key: str | None, wanted: GenePanel | None, rules: ReadingRules
) -> Callable[[str], int]:
    """Return a function that counts the genes at a place that are wanted; by default, that are named as in ``var``."""

    def count(where: str) -> int:
        try:
            genes = _named_genes(source, where, gene_key, rules=rules).genes
            if wanted is not None:
                return int(wanted.match(genes).measured.sum())
            own = set(_named_genes(source, "X", gene_key, rules=rules).genes)
        except DataError:  # raw.var has other columns, or names that cannot be used: then it is not taken
            return 0
        return len(genes) if len(own & set(genes)) >= LEAST_SHARED * len(own) else 0

    return count


# Share of the genes of var that raw must name in the same way, to be taken for the whole of the same file.
LEAST_SHARED = 0.5


BARCODE = re.compile(r"^(.*[_:-])?[ACGT]{12,}([_.-].*)?$")  # of 10x and its like


def _refuse_transposed(source: CellSource, names: np.ndarray) -> None:
    """Refuse a matrix of genes x cells: its cells have Ensembl ids for names, or its genes barcodes.

    Raises
    ------
    DataError
        If so.
    """
    # A few hundred names of each tell.
    cells, genes = names[:SAMPLED_NAMES].tolist(), [str(name) for name in source.var.index[:SAMPLED_NAMES]]
    ids = sum(ENSEMBL.match(name) is not None for name in cells)
    barcodes = sum(BARCODE.match(name) is not None for name in genes)
    if 2 * ids <= len(cells) and 2 * barcodes <= len(genes):
        return
    message = (
        f"{source.source} is transposed: its cells are named like genes ({', '.join(cells[:3])}) and its genes "
        f"{', '.join(genes[:3])}. Expected cells as rows and genes as columns: write adata.T."
    )
    raise DataError(message)


SAMPLED_NAMES = 500


def _checked_names(source: CellSource) -> np.ndarray:
    if source.var.shape[0] == 0:
        message = f"{source.source} has no genes (0 columns). Expected a matrix of cells x genes; check its filters."
        raise DataError(message)
    names = np.asarray(source.obs.index.astype(str), dtype=object)
    if len(names) == 0:
        message = f"{source.source} has no cells (0 rows). Expected a matrix of cells x genes; check its filters."
        raise DataError(message)
    _refuse_transposed(source, names)
    seen: set[str] = set(names)
    if len(seen) < len(names):
        twice = sorted(name for name, n in Counter(names.tolist()).items() if n > 1)
        message = (
            f"{source.source}: {len(twice)} cell names occur more than once in obs_names: "
            f"{', '.join(twice[:SHOWN])}. Cell names must be unique: call "
            "adata.obs_names_make_unique(), or add the sample to the barcode."
        )
        raise DataError(message)
    return names


def read_cells(
    data: "str | Path | ad.AnnData",
    *,
    labels: LabelOptions | str | None,
    gene_key: str | None = None,
    keep_stored: bool = False,
    rules: ReadingRules = NEWEST,
) -> Cells:
    """Read and check cells.

    Parameters
    ----------
    data
        A file, see `canal.data.formats.open_file`; or an AnnData, which is not changed.
    labels
        Column of ``obs`` with the cell types, or how they are taken, or ``None`` for none; cells without a label are
        left out.
    gene_key
        Column of ``var`` with the gene names; found without help where ``None``.
    keep_stored
        Keep the values as the file holds them too, for digests of some of the cells.
    rules
        By which genes and matrix are chosen; see `CellStream`.

    Raises
    ------
    DataError
        If the cells cannot be used; the message says what was found, what was expected and how to
        mend it.
    """
    with opened(data) as source:
        taken = None if labels is None else take_labels(source.obs, _options(labels), source.source)
        stream = CellStream(source, gene_key=gene_key, taken=taken, keep_unlabelled=False, rules=rules)
        return collect(stream, keep_stored=keep_stored)


def _options(labels: LabelOptions | str) -> LabelOptions:
    return LabelOptions(column=labels) if isinstance(labels, str) else labels


def opened(data: "str | Path | ad.AnnData") -> CellSource:
    """Return the open source of a file's or an AnnData's cells; close it after use."""
    if not isinstance(data, str | Path):
        # AnnData is told by what it has: importing anndata takes long.
        if not all(hasattr(data, part) for part in ("obs", "var", "X", "layers", "n_obs")):
            message = (
                f"The cells are {type(data).__name__}; expected the name of a file, or an AnnData of cells x genes, "
                "such as anndata.AnnData(frame)."
            )
            raise DataError(message)
        return from_adata(data)
    from canal.data.formats import open_file

    return open_file(data)


def open_stream(
    file: "str | Path | ad.AnnData",
    *,
    gene_key: str | None = None,
    labels: LabelOptions | str | None = None,
    chunk: int = CHUNK,
    wanted: GenePanel | None = None,
) -> CellStream:
    """Open cells for reading in blocks and in constant memory; use it in a ``with`` statement.

    All cells pass, also those without a label, and a type may have a single cell. A matrix that is stored by columns
    (CSC) is turned into rows first; see `canal.data.stored.StoredColumns`.

    Parameters
    ----------
    file
        See `canal.data.formats.open_file`; or an AnnData, in memory or backed.
    gene_key
        Column of ``var`` with the gene names; found without help where ``None``.
    labels
        Column of ``obs`` with the cell types, or how they are taken, where they are to be compared.
    chunk
        Most cells in a block.
    wanted
        Genes that count where a file has several matrices; all of the file's by default.

    Raises
    ------
    DataError
        As `read_cells`.
    """
    source = opened(file)
    try:
        taken = None
        if labels is not None:
            taken = take_labels(source.obs, replace(_options(labels), keep_rare=True), source.source)
        return CellStream(source, gene_key=gene_key, taken=taken, chunk=chunk, wanted=wanted)
    except BaseException:
        source.close()
        raise


def collect(stream: CellStream, *, keep_stored: bool = False) -> Cells:
    """Return all cells of a stream that pass, in memory.

    Raises
    ------
    DataError
        If a value cannot be expression, or no cell has any.
    """
    stored: list[np.ndarray] = []
    expression = sp.vstack(list(stream.chunks(stored_values=stored if keep_stored else None)), format="csr")
    return Cells(
        expression=expression,
        genes=stream.genes,
        names=stream.names,
        labels=stream.labels,
        report=stream.report,
        rows=stream.file_rows,
        stored=np.concatenate(stored) if keep_stored else None,
    )
