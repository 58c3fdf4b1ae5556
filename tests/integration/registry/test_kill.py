"""A stage is committed whole or not at all, whenever its process is killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from canal.registry.record import StageRecord
from canal.registry.registry import Registry
from tests.integration.registry.conftest import MODEL, add

ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("CANAL_KILLS", "15"))
# A commit makes 11 calls to MLflow's client; the writer may die before and after each: 0 to 21.
THE_COMMIT = 12  # before the call that creates the version; one later it is done
DEATHS = (0, 1, 5, 9, THE_COMMIT - 1, THE_COMMIT, *range(THE_COMMIT + 1, 23))


class Writers:
    """Starts writers in other processes and kills them."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.integration.registry.writer"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, root: Path, first: int, calls: int | None = None) -> int:
        """Begin to commit stages; return the process id."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"root": str(root), "first": first, "calls": calls}) + "\n")
        self.process.stdin.flush()
        return int(self._answer())

    def end(self) -> str:
        """Wait for the end; return ``dead`` or ``ended``."""
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    """Writers that can be killed."""
    found = Writers()
    yield found
    found.process.kill()
    found.process.communicate()


def check(root: Path, before: list[StageRecord]) -> list[StageRecord]:
    """Assert that every stage is whole and none is lost; return them."""
    registry = Registry.open(root, MODEL)
    records = registry.records()
    assert records[: len(before)] == before
    assert [r.number for r in records] == list(range(1, len(records) + 1))
    assert registry.champion() == (records[-1].number if records else None)
    for record in records[len(before) :]:
        registry.artifacts(record)
    for record in records:
        assert list(registry.declarations.glob(f"{record.number:03d}-*.toml"))
    registry.close()
    return records


@pytest.mark.parametrize("calls", DEATHS)
def test_killed_at_each_step(writers: Writers, empty_registry: Path, tmp_path: Path, calls: int) -> None:
    """Before and after any call to MLflow: the stage is there whole, or not at all; the next one works."""
    root = tmp_path / "registry"
    shutil.copytree(empty_registry, root)
    registry = Registry.open(root, MODEL)
    first = add(registry, 1)
    writers.start(root, 2, calls)
    state = writers.end()
    records = check(root, [first])

    assert state == ("dead" if calls < 22 else "ended")
    assert len(records) == (1 if calls <= THE_COMMIT else 2)
    add(registry, len(records) + 1)
    registry.collect_garbage()
    assert registry.verify() == []
    assert registry.orphans() == []
    registry.close()


@pytest.mark.slow
def test_killed_at_random_moments(writers: Writers, empty_registry: Path, tmp_path: Path) -> None:
    """Many times in the same workspace; set CANAL_KILLS for more."""
    root = tmp_path / "registry"
    shutil.copytree(empty_registry, root)
    moments = random.Random(0)
    records: list[StageRecord] = []
    for _ in range(KILLS):
        pid = writers.start(root, len(records) + 1)
        time.sleep(moments.uniform(0.0, 1.2))
        os.kill(pid, signal.SIGKILL)
        assert writers.end() == "dead"
        records = check(root, records)
        registry = Registry.open(root, MODEL)
        records.append(add(registry, len(records) + 1))
        registry.close()

    registry = Registry.open(root, MODEL)
    assert registry.verify() == []
    registry.collect_garbage()
    assert registry.orphans() == []
    assert registry.verify() == []
    assert registry.records() == records
    registry.close()


@pytest.mark.slow
def test_killed_while_the_registry_is_made(writers: Writers, tmp_path: Path) -> None:
    """There is a whole database or none; the next one makes it."""
    moments = random.Random(1)
    for k in range(3):
        root = tmp_path / str(k) / "registry"
        pid = writers.start(root, 1)
        time.sleep(moments.uniform(0.1, 1.0))
        os.kill(pid, signal.SIGKILL)
        writers.end()
        registry = Registry.open(root, MODEL, create=True)
        add(registry, len(registry.records()) + 1)

        assert registry.verify() == []
        assert [p.name for p in root.iterdir() if ".new" in p.name] == []
        registry.close()
