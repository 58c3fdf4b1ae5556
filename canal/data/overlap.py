"""Work on blocks beside the reading of the next ones."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

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
