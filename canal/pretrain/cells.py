"""Expression as tokens: one of a few log2 bins a gene (scBERT, CANAL section 2).

Cells of several files as tokens on one gene panel, in blocks that are read when they are needed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import scipy.sparse as sp

from canal.data.genes import Genes
from canal.data.panel import GenePanel
from canal.data.stream import CellStream, open_stream
from canal.data.values import unit_rows


def log2_tokens(expression: sp.csr_matrix, bins: int = 5) -> np.ndarray:
    """Return the bin of every gene: ``min(floor(log2(1 + 1e4 * count / total)), bins)``.

    Parameters
    ----------
    expression
        CSR of shape (cells, genes), natural ``log1p`` of values scaled to 10,000 a cell. The result
        is dense: give it a block of cells on the genes of the panel.
    bins
        Highest bin; bin 0 also holds what is below one count in 10,000.

    Returns
    -------
    uint8 of shape (cells, genes).
    """
    # float32 may fall just below the integer that ln(2^k) / ln 2 is.
    bin_of = np.floor(expression.data / np.log(2.0) + 1e-6)
    tokens = sp.csr_matrix(
        (np.minimum(bin_of, bins).astype(np.uint8), expression.indices, expression.indptr),
        shape=expression.shape,
    )
    return np.asarray(tokens.toarray())


BLOCK = 512  # cells that are read at a time
MIXED = 8  # blocks whose cells are shuffled together


@dataclass(frozen=True, kw_only=True)
class FileSurvey:
    """What one pass over a file finds.

    Attributes
    ----------
    path, digest
        The file, and the digest of its cells.
    cells
        Number of its cells.
    genes
        Its genes.
    ranked
        Columns by the variance of unit profiles, highest first; genes that no cell expresses are left out.
    warnings
        Sentences for the person who named the file.
    """

    path: str
    digest: str
    cells: int
    genes: Genes
    ranked: np.ndarray
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TokenBlock:
    """Cells of one file as tokens: uint8 (cells, panel), and the genes that the file measures, bool (panel,)."""

    tokens: np.ndarray
    measured: np.ndarray


class CellFiles:
    """Files of cells that are open together; use it in a ``with`` statement.

    Parameters
    ----------
    paths
        Files of cells, see `canal.data.formats.open_file`.
    gene_key
        Column of ``var`` with the gene names.
    """

    def __init__(self, paths: Sequence[Path], gene_key: str | None = None) -> None:
        self._stack = ExitStack()
        try:
            streams = [open_stream(path, gene_key=gene_key, chunk=BLOCK) for path in paths]
            self.streams = [self._stack.enter_context(stream) for stream in streams]
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def survey(self, tell: Callable[[int], None]) -> list[FileSurvey]:
        """Read every file once; ``tell`` is told the number of cells of each block."""
        return [_survey(stream, tell) for stream in self.streams]


def panel_of(surveys: Sequence[FileSurvey], per_file: int) -> GenePanel:
    """Return the most variable genes of every file; all expressed ones for 0."""
    panel = GenePanel.empty()
    for number, found in enumerate(surveys, 1):
        columns = found.ranked[: per_file or None].tolist()
        panel = panel.extended(found.genes.take(columns), number)
    return panel


class TokenBlocks:
    """The cells of open files as tokens on a panel, in groups of blocks that hold cells of all files.

    Parameters
    ----------
    files
        The open files.
    panel
        Gene panel.
    bins
        Highest bin.
    """

    def __init__(self, files: CellFiles, panel: GenePanel, bins: int) -> None:
        self._files, self._bins = files, bins
        self._matches = [panel.match(s.genes) for s in files.streams]
        self._places = [
            (number, start, min(start + BLOCK, len(stream)))
            for number, stream in enumerate(files.streams)
            for start in range(0, len(stream), BLOCK)
        ]

    @property
    def groups(self) -> int:
        """Number of groups of an epoch."""
        return -(-len(self._places) // MIXED)

    def group(self, number: int, order: np.random.Generator, taken: Sequence[np.ndarray]) -> TokenBlock:
        """Return the cells of a group, those of its blocks in turn.

        Parameters
        ----------
        number
            Number of the group, from 0.
        order
            Draws the order of the blocks; a fresh one of the epoch's seed each time.
        taken
            Which cells of each file are wanted, bool (cells,).

        Returns
        -------
        Tokens, and for each cell the genes its file measures, bool (cells, panel).
        """
        permuted = order.permutation(len(self._places))[number * MIXED : (number + 1) * MIXED]
        parts = [self._block(self._places[i], taken) for i in sorted(permuted.tolist())]
        tokens = np.concatenate([p.tokens for p in parts])
        measured = np.concatenate([np.broadcast_to(p.measured, p.tokens.shape) for p in parts])
        return TokenBlock(tokens=tokens, measured=measured)

    def all(self, taken: Sequence[np.ndarray]) -> Iterator[TokenBlock]:
        """Yield the wanted cells block by block, in the order of the files."""
        for place in self._places:
            if taken[place[0]][place[1] : place[2]].any():
                yield self._block(place, taken)

    def _block(self, place: tuple[int, int, int], taken: Sequence[np.ndarray]) -> TokenBlock:
        number, start, stop = place
        match = self._matches[number]
        rows = self._files.streams[number].rows(start, stop)[np.flatnonzero(taken[number][start:stop])]
        return TokenBlock(tokens=log2_tokens(match.project(rows), self._bins), measured=match.measured)


def _survey(stream: CellStream, tell: Callable[[int], None]) -> FileSurvey:
    n, total, square = 0, np.zeros(len(stream.genes)), np.zeros(len(stream.genes))
    for block in stream.chunks():
        unit: sp.csr_matrix = unit_rows(block)
        total += np.asarray(unit.sum(axis=0), dtype=np.float64).ravel()
        square += np.asarray(unit.multiply(unit).sum(axis=0), dtype=np.float64).ravel()
        n += block.shape[0]
        tell(block.shape[0])
    variance = square / n - (total / n) ** 2
    ranked = np.argsort(-variance, kind="stable")
    report = stream.report
    return FileSurvey(
        path=report.path, digest=report.digest, cells=n, genes=stream.genes,
        ranked=ranked[total[ranked] > 0], warnings=report.warnings,
    )  # fmt: skip
