"""Work beside reading keeps its order, its errors and its bound; what is large goes to disk."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from canal.data.threads import RowSpool, in_order, row_blocks


@pytest.mark.parametrize("workers", [1, 3])
def test_the_order_is_that_of_the_items(workers: int) -> None:
    """A slow item does not let later ones pass."""
    first = threading.Event()

    def work(item: int) -> int:
        if item == 0 and workers > 1:
            first.wait(5)
        first.set()
        return item * item

    assert list(in_order(work, range(20), workers)) == [k * k for k in range(20)]


def test_no_more_items_are_taken_than_are_worked_on() -> None:
    """However many items there are, few are held."""
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for k in range(50):
            taken += 1
            yield k

    for done in in_order(lambda k: k, items(), 2):
        assert taken - done <= 5


@pytest.mark.parametrize("where", ["items", "work"])
def test_errors_come_through(where: str) -> None:
    """An error of reading or of working is raised to the caller, and the threads end."""

    def items() -> Iterator[int]:
        yield 1
        if where == "items":
            message = "the file ends"
            raise OSError(message)
        yield 0

    with pytest.raises((OSError, ZeroDivisionError)):
        list(in_order(lambda k: 1 / k, items(), 2))
    assert not [t for t in threading.enumerate() if t.name.startswith("canal")]


@pytest.mark.parametrize("in_memory", [0, 10**6])
def test_spooled_rows(in_memory: int, tmp_path: Path) -> None:
    """Rows come back as they went in, from memory and from disk, and leave no file behind."""
    rows = np.random.default_rng(0).standard_normal((100, 7)).astype(np.float32)
    spool = RowSpool(100, 7, tmp_path, in_memory)
    for start in (0, 30, 31):
        spool.append(rows[start : {0: 30, 30: 31, 31: 100}[start]])

    found = spool.finish()

    assert isinstance(found, np.memmap) == (in_memory == 0)
    assert np.array_equal(np.concatenate([block.copy() for _, block in row_blocks(found, 9)]), rows)
    assert np.array_equal(found[[3, 50]], rows[[3, 50]])
    assert not list(tmp_path.iterdir())
