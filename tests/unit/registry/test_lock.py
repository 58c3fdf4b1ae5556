"""One writer at a time, and none after a kill."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from canal.errors import RegistryError
from canal.registry.location import WriterLock

_HOLD = """
import sys, time
from pathlib import Path
from canal.registry.location import WriterLock
WriterLock(Path(sys.argv[1])).acquire(5, print)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """File of the lock."""
    return tmp_path / "lock"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = _hold(path, 60)
    yield process
    process.kill()
    process.communicate()


def _hold(path: Path, seconds: float) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_refused_and_told_who_writes(path: Path, holder: "subprocess.Popen[str]") -> None:
    """After the time it would wait, it says which process it waited for."""
    told: list[str] = []
    with pytest.raises(RegistryError, match=f"in use by process {holder.pid} .*again"):
        WriterLock(path).acquire(0.3, told.append)

    assert len(told) == 1
    assert str(holder.pid) in told[0]


def test_the_second_waits(path: Path) -> None:
    """It goes on when the first has ended."""
    process = _hold(path, 0.5)
    lock = WriterLock(path)
    lock.acquire(10, lambda _message: None)

    assert lock.held
    lock.release()
    process.communicate()


def test_a_killed_holder_holds_nothing(path: Path, holder: "subprocess.Popen[str]") -> None:
    """The kernel gives the lock back."""
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    begin = time.monotonic()
    lock = WriterLock(path)
    lock.acquire(0, pytest.fail)

    assert time.monotonic() - begin < 1
    lock.release()


def test_it_may_be_taken_again_by_its_holder(path: Path) -> None:
    """It is free when it was given back as often."""
    lock, other = WriterLock(path), WriterLock(path)
    lock.acquire(0, pytest.fail)
    lock.acquire(0, pytest.fail)
    lock.release()
    with pytest.raises(RegistryError, match="in use"):
        other.acquire(0, lambda _message: None)
    lock.release()

    other.acquire(0, pytest.fail)
    other.release()


def test_a_holder_that_cannot_be_read_is_another_process(path: Path) -> None:
    """Who holds it is for the message only."""
    lock = WriterLock(path)
    lock.acquire(0, pytest.fail)
    path.write_text("gibberish")
    with pytest.raises(RegistryError, match="in use by another process"):
        WriterLock(path).acquire(0, lambda _message: None)

    lock.release()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """One message with the path and the reason."""
    with pytest.raises(RegistryError, match="cannot be written"):
        WriterLock(tmp_path / "nowhere" / "lock").acquire(0, pytest.fail)
