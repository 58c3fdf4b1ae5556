"""Rows that come in blocks and may be more than memory should hold."""

import mmap
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

IN_MEMORY = 32 * 2**20  # bytes; more go to a file without a name, which is gone when nobody reads it any more
BLOCK = 65_536  # rows


class RowSpool:
    """A float32 matrix that is filled row by row, in memory or on disk.

    Parameters
    ----------
    rows, columns
        Its shape.
    folder
        Where there is room for it; the system's folder for temporary files by default.
    in_memory
        Bytes up to which it stays in memory.
    """

    def __init__(self, rows: int, columns: int, folder: Path | None = None, in_memory: int = IN_MEMORY) -> None:
        self._shape, self._done = (rows, columns), 0
        self._file: IO[bytes] | None = None
        self._rows = np.empty((0, columns), dtype=np.float32)
        if rows * columns * 4 > in_memory:
            self._file = tempfile.TemporaryFile(dir=folder, prefix=".canal-")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        else:
            self._rows = np.empty(self._shape, dtype=np.float32)

    def append(self, block: np.ndarray) -> None:
        """Add rows (n, columns) behind the others."""
        if self._file is None:
            self._rows[self._done : self._done + len(block)] = block
        else:
            self._file.write(np.ascontiguousarray(block, dtype=np.float32).data)
        self._done += len(block)

    def finish(self) -> np.ndarray:
        """Return the matrix; one on disk is mapped, and its pages come when they are looked at."""
        assert self._done == self._shape[0], (self._done, self._shape)
        if self._file is None:
            return self._rows
        self._file.flush()
        mapped = np.memmap(self._file, dtype=np.float32, mode="r", shape=self._shape)
        self._file.close()  # the mapping keeps the content
        return mapped


def row_blocks(matrix: np.ndarray, size: int = BLOCK) -> Iterator[tuple[int, np.ndarray]]:
    """Yield position and rows of every block; of a mapped matrix no more than a block stays in memory."""
    for start in range(0, len(matrix), size):
        yield start, np.asarray(matrix[start : start + size])
        mapped = getattr(matrix, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
