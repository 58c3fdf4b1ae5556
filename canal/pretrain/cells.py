"""Cells of several files as tokens on one gene panel, in blocks that are read when they are needed.

The token of a gene is one of a few log2 bins of its expression (scBERT; CANAL, section 2).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import scipy.sparse as sp

from canal.data.genes import Genes
from canal.data.panel import GenePanel
from canal.data.stream import CellStream, open_stream
from canal.data.values import unit_rows

BLOCK = 512  # cells that are read at a time
BLOCKS_PER_GROUP = 8  # blocks whose cells are shuffled together
ROUNDING = 1e-6  # float32 may fall just below the integer that ln(2^k) / ln 2 is


@dataclass(frozen=True, kw_only=True)
class FileSurvey:
    """What one pass over a file tells.

    Attributes
    ----------
    path, digest
        Path of the file, and the digest of its cells.
    cells
        Number of cells.
    genes
        Genes of the file.
    ranked
        Columns of the genes by the variance of unit profiles, highest first; genes that no cell expresses are left out.
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
    """Cells as tokens.

    Attributes
    ----------
    tokens
        Bins of the genes, uint8 (cells, panel).
    measured
        Genes that the cells' file measures: bool (panel,) for cells of one file, (cells, panel) for those of several.
    """

    tokens: np.ndarray
    measured: np.ndarray


class BlockRows(NamedTuple):
    """The rows of one block: number of the file, first row, and the row after the last."""

    file: int
    start: int
    stop: int


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
            self.streams = []
            for path in paths:
                self.streams.append(self._stack.enter_context(open_stream(path, gene_key=gene_key, chunk=BLOCK)))
        except BaseException:  # where one cannot be opened, none stays open
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def cells(self) -> int:
        """Number of cells of all files."""
        return sum(len(stream) for stream in self.streams)

    def survey(self, advance: Callable[[int], None]) -> list[FileSurvey]:
        """Read every file once; ``advance`` is called with the number of cells of each block."""
        return [_survey(stream, advance) for stream in self.streams]


def _survey(stream: CellStream, advance: Callable[[int], None]) -> FileSurvey:
    """Read a file once and rank its genes by variance."""
    # Sums and sums of squares of unit profiles, block by block.
    cells, total, squares = 0, np.zeros(len(stream.genes)), np.zeros(len(stream.genes))
    for block in stream.chunks():
        unit: sp.csr_matrix = unit_rows(block)
        total += np.asarray(unit.sum(axis=0), dtype=np.float64).ravel()
        squares += np.asarray(unit.multiply(unit).sum(axis=0), dtype=np.float64).ravel()
        cells += block.shape[0]
        advance(block.shape[0])
    # Genes that no cell expresses have no place in a panel.
    variance = squares / cells - (total / cells) ** 2
    ranked = np.argsort(-variance, kind="stable")
    return FileSurvey(
        path=stream.report.path,
        digest=stream.report.digest,
        cells=cells,
        genes=stream.genes,
        ranked=ranked[total[ranked] > 0],
        warnings=stream.report.warnings,
    )


def variable_panel(surveys: Sequence[FileSurvey], per_file: int) -> GenePanel:
    """Return the panel of the most variable genes of every file; of all expressed ones for 0."""
    panel = GenePanel.empty()
    for number, survey in enumerate(surveys, 1):
        columns = survey.ranked[: per_file or None].tolist()
        panel = panel.extended(survey.genes.take(columns), number)
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
        self._matches = [panel.match(stream.genes) for stream in files.streams]
        self._blocks: list[BlockRows] = []
        for number, stream in enumerate(files.streams):
            for start in range(0, len(stream), BLOCK):
                self._blocks.append(BlockRows(number, start, min(start + BLOCK, len(stream))))

    @property
    def groups(self) -> int:
        """Number of groups of an epoch."""
        return -(-len(self._blocks) // BLOCKS_PER_GROUP)

    def group(self, number: int, generator: np.random.Generator, wanted: Sequence[np.ndarray]) -> TokenBlock:
        """Return the wanted cells of a group, those of its blocks in turn.

        Parameters
        ----------
        number
            Number of the group, from 0.
        generator
            Draws the order of the blocks; a fresh one of the epoch's seed each time.
        wanted
            Which cells of each file are wanted, bool (cells,).

        Returns
        -------
        Tokens, and for each cell the genes its file measures, bool (cells, panel).
        """
        order = generator.permutation(len(self._blocks))
        chosen = order[number * BLOCKS_PER_GROUP : (number + 1) * BLOCKS_PER_GROUP]
        return join_blocks([self._read(self._blocks[i], wanted) for i in sorted(chosen.tolist())])

    def all(self, wanted: Sequence[np.ndarray]) -> Iterator[TokenBlock]:
        """Yield the wanted cells block by block, in the order of the files."""
        for block in self._blocks:
            if wanted[block.file][block.start : block.stop].any():
                yield self._read(block, wanted)

    def _read(self, block: BlockRows, wanted: Sequence[np.ndarray]) -> TokenBlock:
        """Read the wanted cells of one block."""
        match = self._matches[block.file]
        rows = np.flatnonzero(wanted[block.file][block.start : block.stop])
        expression = self._files.streams[block.file].rows(block.start, block.stop)[rows]
        return TokenBlock(tokens=log2_tokens(match.project(expression), self._bins), measured=match.measured)


def join_blocks(blocks: Sequence[TokenBlock]) -> TokenBlock:
    """Return the cells of several blocks as one, with the measured genes of each cell, bool (cells, panel)."""
    tokens = np.concatenate([block.tokens for block in blocks])
    measured = np.concatenate([np.broadcast_to(block.measured, block.tokens.shape) for block in blocks])
    return TokenBlock(tokens=tokens, measured=measured)


def log2_tokens(expression: sp.csr_matrix, bins: int) -> np.ndarray:
    """Return the bin of every gene: ``min(floor(log2(1 + 1e4 * count / total)), bins)``.

    Parameters
    ----------
    expression
        CSR of shape (cells, genes), natural ``log1p`` of values scaled to 10,000 in each cell. The result is dense:
        give it a block of cells on the genes of the panel.
    bins
        Highest bin; bin 0 also holds what is below one count in 10,000.

    Returns
    -------
    uint8 of shape (cells, genes).
    """
    bin_of_value = np.floor(expression.data / np.log(2.0) + ROUNDING)
    capped = np.minimum(bin_of_value, bins).astype(np.uint8)
    tokens = sp.csr_matrix((capped, expression.indices, expression.indptr), shape=expression.shape)
    return np.asarray(tokens.toarray())
