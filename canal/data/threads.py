"""Work on blocks beside the reading of the next ones.

Rows that come in blocks and may be more than memory should hold.
"""

import mmap
import os
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np

from canal.errors import DataError

T = TypeVar("T")
R = TypeVar("R")
MOST_WORKERS = 4  # reading does not keep up with more


def usable_cores() -> int:
    """Return the number of cores that this process may use, `MOST_WORKERS` at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def single_threaded() -> AbstractContextManager[Any]:
    """Return a context in which matrix libraries start no threads: on small matrices these mostly wait."""
    from threadpoolctl import threadpool_limits

    return cast(AbstractContextManager[Any], threadpool_limits(1))


def same_threads_after() -> AbstractContextManager[Any]:
    """Return a context after which matrix libraries have as many threads as before.

    Numba, in scanpy's neighbours and UMAP, sets the threads of OpenMP for the whole process, and with them the
    rounding of everything that is trained later.
    """
    from threadpoolctl import threadpool_limits

    return cast(AbstractContextManager[Any], threadpool_limits())


def in_order(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Yield ``work(item)`` of every item, in the order of the items.

    The items are taken in the calling thread, the work is done in others: NumPy, SciPy and FAISS let go of Python's
    lock while they compute. At most ``workers + 2`` items are held at a time, whatever their number. With more than
    one worker, matrix libraries start no threads of their own: these would wait for each other.

    Parameters
    ----------
    work
        What is done with an item; what it raises is raised here.
    items
        Taken one by one.
    workers
        Threads.
    """
    waiting: deque[Future[R]] = deque()
    with (
        single_threaded() if workers > 1 else nullcontext(),
        # OpenMP counts the threads that each thread may start by itself.
        ThreadPoolExecutor(workers, "canal", initializer=single_threaded if workers > 1 else None) as pool,
    ):
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


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
        self._shape, self._done, self._folder = (rows, columns), 0, folder or Path(tempfile.gettempdir())
        self._file: IO[bytes] | None = None
        self._rows = np.empty((0, columns), dtype=np.float32)
        if rows * columns * 4 > in_memory:
            with _told_of(self._folder):
                self._file = tempfile.TemporaryFile(dir=folder, prefix=".canal-")  # noqa: SIM115
            weakref.finalize(self, _closed, self._file)
        else:
            self._rows = np.empty(self._shape, dtype=np.float32)

    def append(self, block: np.ndarray) -> None:
        """Add rows (n, columns) behind the others.

        Raises
        ------
        DataError
            If the disk does not take them.
        """
        if self._file is None:
            self._rows[self._done : self._done + len(block)] = block
        else:
            with _told_of(self._folder):
                self._file.write(np.ascontiguousarray(block, dtype=np.float32).data)
        self._done += len(block)

    def finish(self) -> np.ndarray:
        """Return the matrix; one on disk is mapped, and its pages come when they are looked at."""
        assert self._done == self._shape[0], (self._done, self._shape)
        if self._file is None:
            return self._rows
        with _told_of(self._folder):
            self._file.flush()
        mapped = np.memmap(self._file, dtype=np.float32, mode="r", shape=self._shape)
        self._file.close()  # the mapping keeps the content
        return mapped


def _closed(file: IO[bytes]) -> None:
    with suppress(OSError):  # what could not be written was told before
        file.close()


@contextmanager
def _told_of(folder: Path) -> Iterator[None]:
    """Say where the disk did not take what is needed meanwhile."""
    try:
        yield
    except OSError as error:
        message = (
            f"{folder} cannot hold what is needed meanwhile: {error}. Check the free space and your rights there, or "
            "name another folder for the output or with TMPDIR."
        )
        raise DataError(message) from error


def row_blocks(matrix: np.ndarray, size: int = BLOCK) -> Iterator[tuple[int, np.ndarray]]:
    """Yield position and rows of every block; of a mapped matrix no more than a block stays in memory."""
    for start in range(0, len(matrix), size):
        yield start, np.asarray(matrix[start : start + size])
        mapped = getattr(matrix, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
