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

import canal
from canal.model.record import StageRecord
from canal.registry.registry import Registry
from tests.integration.registry.conftest import MODEL, add
from tests.integration.registry.writer import QUICK
from tests.make import make_adata

ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("CANAL_KILLS", "15"))
LEARNED_KILLS = int(os.environ.get("CANAL_LEARNED_KILLS", "6"))  # of whole `stage add`s, which take longer
EACH_LAB = 10  # kills in one workspace
# A commit makes 11 calls to MLflow's client; the writer may die before and after each: 0 to 21.
THE_COMMIT = 12  # before the call that creates the version; one later it is done
DEATHS = (0, 1, 5, 9, THE_COMMIT - 1, THE_COMMIT, *range(THE_COMMIT + 1, 23))


class Writers:
    """Starts writers in other processes and kills them."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.integration.registry.writer"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, root: Path, first: int, calls: int | None = None, cells: list[str] | None = None) -> int:
        """Begin to commit stages; return the process id."""
        assert self.process.stdin is not None
        job = {"root": str(root), "first": first, "calls": calls, "cells": cells}
        self.process.stdin.write(json.dumps(job) + "\n")
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


def check(root: Path, before: list[StageRecord], model: str = MODEL) -> list[StageRecord]:
    """Assert that every stage is whole and none is lost; return them."""
    registry = Registry.open(root, model)
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
def test_stage_add_killed_at_random_moments(writers: Writers, tmp_path: Path) -> None:
    """Reading, learning, testing, committing: what was said to be committed is, and whole; set CANAL_LEARNED_KILLS."""
    cells = []
    for k in range(3):
        make_adata(40, 40, types=("B", "NK"), prefix=f"n{k}-", seed=k).write_h5ad(tmp_path / f"{k}.h5ad")
        cells.append(str(tmp_path / f"{k}.h5ad"))
    lab = tmp_path / "template"
    workspace = canal.open_workspace(lab, create=True)
    for name in cells[:2]:  # the first one imports what is needed
        begin = time.monotonic()
        workspace.add_stage(name, labels="cell_type", overrides=QUICK)
    seconds = time.monotonic() - begin
    moments = random.Random(int(os.environ.get("CANAL_KILL_SEED", "2")))
    committed = 0
    for k in range(LEARNED_KILLS):
        if k % EACH_LAB == 0:
            root = tmp_path / f"lab{k}" / "registry"
            shutil.copytree(lab, root.parent)
            (root.parent / "canal.toml").write_text(f'name = "{lab.name}"\n')
            records = check(root, [], lab.name)
        pid = writers.start(root, len(records) + 1, cells=cells)
        time.sleep(moments.uniform(0.0, 3.0 * seconds))
        os.kill(pid, signal.SIGKILL)
        assert writers.end() == "dead"
        before, records = len(records), check(root, records, lab.name)
        committed += len(records) - before
        said = {int(path.name.removeprefix("said-")) for path in root.parent.glob("said-*")}
        assert said <= {r.number for r in records}
        registry = Registry.open(root, lab.name)
        assert registry.verify() == []
        registry.close()
    print(f"{LEARNED_KILLS} kills, {committed} stages committed meanwhile, {seconds:.1f} s a stage")  # noqa: T201
    canal.open_workspace(root.parent).add_stage(cells[0], labels="cell_type", again=True, overrides=QUICK)
    registry = Registry.open(root, lab.name)
    registry.collect_garbage()
    assert registry.orphans() == registry.verify() == []
    assert len(registry.records()) == len(records) + 1
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
