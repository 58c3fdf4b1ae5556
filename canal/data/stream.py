"""Checked cells in blocks, in the order of the file and in constant memory."""

from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import scipy.sparse as sp

from canal.data.cells import FileReport
from canal.data.digest import CellsDigest
from canal.data.expression import find_values, normalise, scale_warning
from canal.data.genes import name_genes
from canal.data.labels import TakenLabels
from canal.data.source import CellSource
from canal.data.table import StoredTable
from canal.errors import DataError

if TYPE_CHECKING:
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

    Attributes
    ----------
    genes, ensembl
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
    ) -> None:
        names = _checked_names(source)
        self._source, self._chunk = source, chunk
        self._verdict = find_values(source)
        self._matrix = source.places[self._verdict.where]
        weights = np.asarray(self._matrix.sampled.sum(axis=0)).ravel()
        var = source.genes_at(self._verdict.where)
        self._named = name_genes(var, source=source.source, gene_key=gene_key, weights=weights)
        self.genes, self.ensembl = self._named.genes, self._named.ensembl
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

    @property
    def report(self) -> FileReport:
        """What was found; ``digest`` is ``""`` until `chunks` has been read to its end."""
        taken, verdict = self._taken, self._verdict
        warnings = [
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
            unlabelled=taken.unlabelled if taken else 0,
            dropped_types=dict(taken.dropped_types) if taken else {},
            warnings=tuple(w for w in warnings if w),
        )

    def chunks(self, columns: np.ndarray | None = None) -> Iterator[sp.csr_matrix]:
        """Yield the cells in blocks, as `Cells.expression`: CSR float32 of shape (cells, genes).

        Parameters
        ----------
        columns
            The genes to yield, ascending positions among ``genes``; all by default. Every value of the file is checked
            and goes into the digest, and cells are scaled over all genes, whatever is asked for.

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
            if block.shape[0]:
                yield normalise(block, scale, self._verdict.where, source, columns)
        if empty == len(self) and self._rows is None:
            message = f"{source}: none of the {empty} cells has any counts. Check the matrix in {self._verdict.where}."
            raise DataError(message)
        self._digest, self._empty = digest.finish(scale, self.genes, self.ensembl), empty

    def rows(self, start: int, stop: int) -> sp.csr_matrix:
        """Return some cells out of turn, as `chunks` would; only where all cells of the file pass."""
        assert self._passes.all()
        scale = self._verdict.scale
        assert scale is not None
        block = self._cut(self._matrix.rows(start, stop), np.ones(1, dtype=bool))
        return normalise(block, scale, self._verdict.where, self._source.source)

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


def _checked_names(source: CellSource) -> np.ndarray:
    if source.var.shape[0] == 0:
        message = f"{source.source} has no genes (0 columns). Expected a matrix of cells x genes; check its filters."
        raise DataError(message)
    names = np.asarray(source.obs.index.astype(str), dtype=object)
    if len(names) == 0:
        message = f"{source.source} has no cells (0 rows). Expected a matrix of cells x genes; check its filters."
        raise DataError(message)
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
