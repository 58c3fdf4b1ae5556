"""Stage after stage in one workspace, many killed at a random moment: what is there stays there, and nothing grows.

Every stage is learned in a process of its own; about half of the processes are killed (SIGKILL), and the stage is run
again, sometimes with ``resume``. After each the stages before are as they were and the one in use annotates. By hand::

    python -m tests.faults.soak --stages 200
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import canal
from canal.registry.store import import_mlflow
from canal.stages.layout import open_registry
from tests.make import TYPES, make_adata

# As small as learning can be; every stage may come into use.
SMALL = (
    "training.epochs=2", "training.min_steps=5", "bank.size=16", "analytic.pseudo_cells=20", "promotion.max_fall=1.0",
)  # fmt: skip
KILLED = 0.5  # share of the processes that are killed
LOOKED_THROUGH = 10  # stages after which everything is verified and garbage is collected
# How much larger the last tenth of the stages may be than the first: the memory of a process, and what a stage's files
# grow by, a type's statistics and a stage's tests.
MOST_MEMORY = 1.15
MOST_BYTES_A_STAGE = 20_000


@dataclass
class Report:
    """What happened; ``wrong`` is empty where all went well."""

    stages: int = 0
    kills: int = 0
    resumed: int = 0
    memory_mb: list[float] = field(default_factory=list)
    stage_bytes: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return the figures of the first and the last tenth, and what is wrong."""
        values = asdict(self)
        tenth = max(len(self.seconds) // 10, 1)
        for name in ("memory_mb", "stage_bytes", "seconds"):
            series = values.pop(name)
            values[f"{name}_first"] = round(float(np.median(series[:tenth])), 2)
            values[f"{name}_last"] = round(float(np.median(series[-tenth:])), 2)
        return values


def cells_of(number: int) -> Any:
    """Return the cells of a stage: two types of a few, a batch of its own."""
    pair = (TYPES[number % len(TYPES)], TYPES[(number + 1) % len(TYPES)])
    return make_adata(40, types=pair, prefix=f"s{number}-", seed=number)


def learn(folder: Path, number: int, *, resume: bool) -> NoReturn:
    """Learn a stage in this process, and leave."""
    code = 1
    try:
        os.setsid()
        canal.open_workspace(folder).add_stage(
            cells_of(number), labels="cell_type", name=f"n{number}", overrides=SMALL, resume=resume
        )
        code = 0
    except BaseException:  # noqa: BLE001 - it is told by the parent
        traceback.print_exc()
    finally:
        os._exit(code)


def attempt(folder: Path, number: int, deadline: float | None, *, resume: bool) -> tuple[int, float]:
    """Learn a stage in a child, killed after some seconds; return its exit code, and its peak memory in MB."""
    child = os.fork()
    if child == 0:
        learn(folder, number, resume=resume)
    if deadline is not None:
        time.sleep(deadline)
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run(folder: Path, stages: int, seed: int) -> Report:
    """Learn so many stages, and look at the workspace after each."""
    import_mlflow()
    draw, report = random.Random(seed), Report()
    workspace = canal.open_workspace(folder, create=True)
    workspace.add_stage(cells_of(1), labels="cell_type", name="n1", overrides=SMALL)
    registry = open_registry(workspace.layout)
    records = registry.records()
    registry.close()
    usual = 1.0
    while len(records) < stages:
        number = len(records) + 1
        # 1. Killed, perhaps several times, at any moment of the usual time; then left alone.
        resume = False
        while draw.random() < KILLED:
            code, _ = attempt(folder, number, draw.uniform(0.0, 1.2 * usual), resume=resume)
            report.kills += code == -signal.SIGKILL
            resume = draw.random() < 0.5
            report.resumed += resume
            # It may have been committed before the kill reached it.
            registry = open_registry(workspace.layout)
            now = registry.records()
            if now[: len(records)] != records or len(now) > number:
                report.wrong.append(f"after a kill in stage {number}: {[record.number for record in now]}")
            registry.close()
            if len(now) == number:
                break
        else:
            begin = time.monotonic()
            code, memory = attempt(folder, number, None, resume=resume)
            usual = time.monotonic() - begin
            report.seconds.append(usual)
            report.memory_mb.append(memory)
            if code != 0:
                report.wrong.append(f"stage {number} ended with {code}")
                break
        # 2. All stages before are as they were; the one in use answers.
        registry = open_registry(workspace.layout)
        now = registry.records()
        if now[: len(records)] != records or [record.number for record in now] != list(range(1, number + 1)):
            report.wrong.append(f"after stage {number}: {[record.number for record in now]}")
        records = now
        newest = registry.artifacts(records[-1])
        report.stage_bytes.append(folder_bytes(newest))
        if number % LOOKED_THROUGH == 0 or number == stages:
            if len(canal.open_workspace(folder).annotate(cells_of(number))) != 40:
                report.wrong.append(f"stage {number} does not annotate")
            registry.collect_garbage()
            report.wrong += [str(problem) for problem in registry.verify()]
            report.wrong += [f"left over: {orphan}" for orphan in registry.orphans()]
            sys.stderr.write(f"{number} stages, {report.kills} kills, {usual:.1f} s a stage\n")
        registry.close()
    report.stages = len(records)
    _check_growth(report)
    return report


def _check_growth(report: Report) -> None:
    """Note what grows with the number of stages more than it may."""
    figures = report.summary()
    if figures["memory_mb_last"] > MOST_MEMORY * figures["memory_mb_first"]:
        report.wrong.append(f"memory grew from {figures['memory_mb_first']} to {figures['memory_mb_last']} MB")
    growth = (figures["stage_bytes_last"] - figures["stage_bytes_first"]) / max(report.stages, 1)
    if growth > MOST_BYTES_A_STAGE:
        report.wrong.append(f"a stage's files grow by {growth:.0f} bytes a stage")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--stages", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="canal-soak-") as folder:
        report = run(Path(folder) / "ws", asked.stages, asked.seed)
    sys.stdout.write(json.dumps(report.summary(), indent=1) + "\n")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
