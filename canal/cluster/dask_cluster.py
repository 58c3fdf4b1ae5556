"""Work on the workers of a Dask cluster; the only module that knows Dask."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from canal.errors import ConfigError, StageError
from canal.progress import Progress

RETRIES = 3  # of a part that fails on a worker; one whose worker is lost goes to another, as often as Dask allows
LOCAL = "local:"  # begins the address of workers on this machine
ANSWERS_WITHIN = 20  # seconds that a scheduler has to answer

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """Connect to a scheduler, or start ``local:N`` workers of one thread each for as long as the block lasts.

    Raises
    ------
    ConfigError
        If Dask is not installed, the address is none, or nobody answers there.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        message = "--dask needs Dask. Install it with pip install 'canal[cluster]'."
        raise ConfigError(message) from error
    # Workers of our own end with the block.
    if address.startswith(LOCAL):
        workers = _local_workers(address)
        with (
            LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    # The workers of a scheduler stay when we leave.
    try:
        client = Client(address, timeout=ANSWERS_WITHIN)
    except (OSError, ValueError) as error:
        message = f"No Dask scheduler answers at {address!r}. Give tcp://host:port, or local:N for N workers here."
        raise ConfigError(message) from error
    with client:
        yield client


def _local_workers(address: str) -> int:
    """Return N of ``local:N``."""
    number = address.removeprefix(LOCAL)
    if not number.isdecimal() or int(number) < 1:
        message = f"--dask {address!r} is neither tcp://host:port nor local:N with a number of workers, e.g. local:2."
        raise ConfigError(message)
    return int(number)


def worker_count(client: Any) -> int:
    """Return how many workers there are now, at least 1."""
    return max(1, len(client.scheduler_info(n_workers=-1)["workers"]))


def map_on_workers(
    client: Any, work: Callable[[Item], Result], items: Sequence[Item], sizes: Sequence[int], progress: Progress
) -> list[Result]:
    """Return the results of a function of every item, in order.

    Parameters
    ----------
    client
        Client of `connect`.
    work
        The function; it runs on a worker, one item at a time on each of its threads.
    items, sizes
        The items, and how many steps of the progress each is.
    progress
        Told about every item that is done.

    Raises
    ------
    StageError
        If an item failed again and again.
    """
    from distributed import as_completed

    futures = client.map(_work_on_worker, items, work=work, retries=RETRIES, pure=False)
    position = {future.key: number for number, future in enumerate(futures)}
    results: dict[int, Result] = {}
    # Results come in any order; each is fetched and let go at once, so that no worker holds all of them.
    for future in as_completed(futures):
        number = position[future.key]
        error = future.exception()
        if error is not None:
            client.cancel(futures)
            message = f"A part failed {RETRIES + 1} times on the workers: {type(error).__name__}: {error}"
            raise StageError(message) from error
        results[number] = future.result()
        future.release()
        progress.advance(sizes[number])
    return [results[number] for number in range(len(items))]


def _work_on_worker(item: Any, *, work: Callable[[Any], Any]) -> Any:
    """Work on an item with as many threads as one of the worker's threads may use."""
    import torch
    from distributed import get_worker

    # A worker of n threads runs n parts at once: one core each. One with a single thread has what its job gave it.
    if get_worker().state.nthreads > 1 or "SLURM_CPUS_PER_TASK" not in os.environ:
        torch.set_num_threads(1)
    return work(item)
