"""Expression for a page: one gene of all cells at once, and some cells of all genes.

Files keep expression by cells: to read one gene of them is to read all of them. So it is stored once more by genes, in
blocks of cells, beside what is reviewed; a gene is then a few short reads.
"""

import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from canal.data.stream import CellStream
from canal.errors import DataError
from canal.files import sync_tree
from canal.progress import Progress

VALUES_A_BLOCK = 16_000_000  # values that are turned at a time: 0.4 GB of memory
BYTES_A_VALUE = 8  # float32 and the number of the cell
FREE_FACTOR = 1.5  # times the estimated bytes that the disk must have free
DATA, ROWS, STARTS, FACTS = "values.f32", "cells.u32", "starts.npy", "facts.json"


class GeneColumns:
    """Expression by genes, in a folder; `write_gene_columns` makes it.

    Parameters
    ----------
    folder
        Where it stands.
    """

    def __init__(self, folder: Path) -> None:
        self.cells = int(json.loads((folder / FACTS).read_text(encoding="utf-8"))["cells"])
        # Where the values of each gene begin in each block of cells, (blocks, genes + 1).
        self._starts = np.load(folder / STARTS)
        empty = self._starts.size == 0 or self._starts[-1, -1] == 0  # an empty file cannot be mapped
        self._values = np.zeros(0, np.float32) if empty else np.memmap(folder / DATA, dtype=np.float32, mode="r")
        self._rows = np.zeros(0, np.uint32) if empty else np.memmap(folder / ROWS, dtype=np.uint32, mode="r")

    def column(self, gene: int) -> np.ndarray:
        """Return the log-normalised expression of a gene, by its position, float32 (cells,)."""
        column = np.zeros(self.cells, dtype=np.float32)
        for starts in self._starts:
            part = slice(int(starts[gene]), int(starts[gene + 1]))
            column[self._rows[part]] = self._values[part]
        return column


def write_gene_columns(stream: CellStream, folder: Path, progress: Progress) -> None:
    """Store the expression of all cells of a stream by genes; the folder is there whole or not at all.

    Parameters
    ----------
    stream
        The cells.
    folder
        New folder.
    progress
        Told about every block of cells.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    fresh = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    starts, written = [], 0
    progress.start(len(stream), "storing expression by genes")
    with (fresh / DATA).open("wb") as values, (fresh / ROWS).open("wb") as rows:
        for first, block in _large_blocks(stream, progress):
            # Within a gene the cells stay in their order.
            by_gene = block.tocsc()
            values.write(by_gene.data.astype(np.float32).tobytes())
            rows.write((by_gene.indices.astype(np.int64) + first).astype(np.uint32).tobytes())
            starts.append(by_gene.indptr.astype(np.int64) + written)
            written += by_gene.nnz
    np.save(fresh / STARTS, np.array(starts, dtype=np.int64).reshape(len(starts), len(stream.genes) + 1))
    (fresh / FACTS).write_text(json.dumps({"cells": len(stream)}), encoding="utf-8")
    progress.close()
    sync_tree(fresh)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _large_blocks(stream: CellStream, progress: Progress) -> Iterator[tuple[int, sp.csr_matrix]]:
    """Yield position of the first cell and cells of blocks of about `VALUES_A_BLOCK` values."""
    parts: list[sp.csr_matrix] = []
    first = done = values = 0
    for block in stream.chunks():
        parts.append(block)
        values += block.nnz
        done += block.shape[0]
        progress.advance(block.shape[0])
        if values >= VALUES_A_BLOCK:
            yield first, sp.vstack(parts, format="csr")
            parts, first, values = [], done, 0
    if parts:
        yield first, sp.vstack(parts, format="csr")


def estimated_bytes(stream: CellStream) -> int:
    """Return about how many bytes the expression of a stream takes by genes."""
    sample = stream.sampled_cells()
    return int(sample.nnz / max(sample.shape[0], 1) * len(stream) * BYTES_A_VALUE)


class Expression:
    """The expression of an open file, for several threads.

    Parameters
    ----------
    stream
        The open cells; closed by `close`.
    columns
        Them by genes, ``None`` where there is no room: a gene is then read from the whole file.
    """

    def __init__(self, stream: CellStream, columns: GeneColumns | None) -> None:
        self._stream, self._columns = stream, columns
        self.genes: tuple[str, ...] = tuple(map(str, stream.genes.names))
        self._place = {name: place for place, name in enumerate(self.genes)}
        # A gene is found by its other name, too: the mouse's own, where the file's genes are named as human ones.
        others = stream.genes.other or ("",) * len(self.genes)
        self._lower = [(name.casefold(), other.casefold()) for name, other in zip(self.genes, others, strict=True)]
        self._lock = threading.Lock()

    def find(self, text: str, most: int) -> list[str]:
        """Return genes that begin with a text, then those that contain it; the shortest first."""
        wanted = text.strip().casefold()
        beginning, containing = [], []
        for name, (lower, other) in zip(self.genes, self._lower, strict=True):
            if lower.startswith(wanted) or (other and other.startswith(wanted)):
                beginning.append(name)
            elif wanted in lower or wanted in other:
                containing.append(name)
        ranked = [*sorted(beginning, key=lambda name: (len(name), name)), *sorted(containing)]
        return ranked[:most]

    def gene(self, name: str) -> np.ndarray:
        """Return the log-normalised expression of a gene, float32 (cells,).

        Raises
        ------
        DataError
            If the file has no such gene.
        """
        place = self._place.get(name)
        if place is None:
            alike = ", ".join(self.find(name[:3], 5)) if name.strip() else ""
            message = f"The file has no gene {name!r}. {f'It has {alike}.' if alike else 'Search for one by its name.'}"
            raise DataError(message)
        if self._columns is not None:
            return self._columns.column(place)
        with self._lock:
            parts = [block[:, 0] for block in self._stream.chunks(np.array([place]))]
        return np.asarray(sp.vstack(parts).toarray(), dtype=np.float32).ravel()

    def rows(self, rows: Sequence[int] | np.ndarray) -> sp.csr_matrix:
        """Return some cells, log-normalised, CSR float32 (cells, genes), in the given ascending order of positions."""
        wanted = np.asarray(rows, dtype=np.int64)
        blocks = []
        with self._lock:
            # Cells that stand one after the other are read at once.
            for run in np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1):
                if len(run):
                    blocks.append(self._stream.rows(int(run[0]), int(run[-1]) + 1))
        if not blocks:
            return sp.csr_matrix((0, len(self.genes)), dtype=np.float32)
        return sp.vstack(blocks, format="csr")

    def blocks(self) -> list[sp.csr_matrix]:
        """Return the expression of all cells in their order, as blocks, CSR float32 (cells, genes)."""
        with self._lock:
            return list(self._stream.chunks())

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._stream.__exit__(None, None, None)
