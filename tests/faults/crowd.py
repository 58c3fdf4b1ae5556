"""Many processes at one registry: they add stages, bring others into use, annotate and collect garbage at once.

What must hold at the end: the stages are one line without a gap, every stage that a process was told to be committed
is there, the stage in use is the one that came into use last, every answer was that of a whole model, and `verify` is
clean. By hand, on SQLite or on a server (``--server start`` starts PostgreSQL and MLflow on this machine)::

    python -m tests.faults.crowd --processes 8 --operations 200
    python -m tests.faults.crowd --processes 8 --operations 200 --server start
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import canal
from canal.errors import RegistryError
from canal.model.record import StageRecord
from canal.registry.flavour import FLAVOUR_FILES
from canal.registry.registry import Registry
from canal.registry.snapshot import USE
from canal.registry.store import PASSWORD, import_mlflow
from canal.registry.store import USER as USER_VARIABLE
from canal.stages.layout import open_registry
from canal.workspace import Workspace
from tests.labs import QUICK
from tests.make import make_adata

# What a process does next, and how often beside the others.
OPERATIONS = {"add": 4, "promote": 3, "annotate": 3, "gc": 1}
TRIES = 50  # of an operation that another machine was quicker than, on a server


@dataclass
class Crowd:
    """The registry that all processes work at.

    Attributes
    ----------
    folder
        Of the workspaces: one for all processes of SQLite, one a process beside a server, as on other machines.
    server
        Address of the server; ``None`` for SQLite.
    """

    folder: Path
    server: str | None = None

    def workspace(self, process: int) -> Workspace:
        """Open the workspace of a process."""
        # The folder's own name is that of the model, which all share.
        path = self.folder / ("shared" if self.server is None else f"machine{process}") / "lab"
        return canal.open_workspace(path, create=not (path / "canal.toml").is_file(), registry=self.server)


@dataclass
class Report:
    """What the crowd did, and what is wrong; nothing is where all went well."""

    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OPERATIONS, 0))
    again: int = 0
    stages: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def registry_of(workspace: Workspace) -> Registry:
    """Return the registry of a workspace."""
    return open_registry(workspace.layout)


def toy() -> Any:
    """Return the cells that are taught and annotated."""
    return make_adata(60, types=("B", "NK"))


def first_stage(crowd: Crowd) -> np.ndarray:
    """Learn the one stage whose model all others are; return its answer for the cells."""
    workspace = crowd.workspace(0)
    workspace.add_stage(toy(), labels="cell_type", name="first", overrides=QUICK)
    return workspace.annotate(toy()).cell_type


def add(registry: Registry, name: str) -> StageRecord:
    """Commit a stage with the model of the first one, on top of the newest."""
    first = registry.record(1)
    folder = registry.artifacts(first)
    files = {file: folder / file for file in first.artifacts if file not in FLAVOUR_FILES}
    # As `stage add` does on one machine: the number is chosen by the only writer. A server has none.
    with registry.writing():
        newest = max(record.number for record in registry.records())
        record = first.with_fields(number=newest + 1, parent=newest, name=name)
        return registry.draft(name).commit(record, files)


def operate(workspace: Workspace, operation: str, name: str, draw: random.Random, expected: np.ndarray) -> str:
    """Do one operation; return what the process was told: the stage, where there is one."""
    registry = registry_of(workspace)
    if operation == "add":
        record = add(registry, name)
        return f"{record.number} {record.run_id}"
    if operation == "promote":
        number = draw.choice(registry.records()).number
        return str(registry.set_champion(number).number)
    if operation == "annotate":
        answer = workspace.annotate(toy())
        assert np.array_equal(answer.cell_type, expected), "another answer"
        return str(answer.facts["stage"])
    registry.collect_garbage()
    return ""


def work(crowd: Crowd, process: int, operations: int, seed: int, expected: np.ndarray) -> NoReturn:
    """Do the operations of one process and write down each; leave with 1 where one failed."""
    draw = random.Random(f"{seed} {process}")
    code = 1
    try:
        workspace = crowd.workspace(process)
        with (crowd.folder / f"process{process}.jsonl").open("w", encoding="utf-8") as log:
            for number in range(operations):
                operation = draw.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
                told, again = "", 0
                for again in range(TRIES):
                    try:
                        told = operate(workspace, operation, f"p{process}-{number}-{again}", draw, expected)
                        break
                    except RegistryError as error:
                        # A server has no lock: whoever comes second is told to run it again, and does.
                        if crowd.server is None or "run this again" not in str(error).lower():
                            raise
                else:
                    message = f"{operation} did not succeed in {TRIES} tries"
                    raise RuntimeError(message)
                log.write(json.dumps({"operation": operation, "told": told, "again": again}) + "\n")
                log.flush()
        code = 0
    except BaseException:  # noqa: BLE001 - it is told by the parent
        (crowd.folder / f"process{process}.error").write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        os._exit(code)


def run(crowd: Crowd, processes: int, operations: int, seed: int) -> Report:
    """Let the crowd work, and look at the registry afterwards."""
    import_mlflow()
    report, begin = Report(), time.monotonic()
    expected = first_stage(crowd)
    # Forked, so that MLflow is imported once; no connection to the database is open.
    registry_of(crowd.workspace(0)).close()
    children = []
    for process in range(processes):
        share = operations // processes + (process < operations % processes)
        child = os.fork()
        if child == 0:
            work(crowd, process, share, seed, expected)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    report.seconds = time.monotonic() - begin
    check(crowd, report)
    return report


def check(crowd: Crowd, report: Report) -> None:
    """Compare the registry with what the processes were told."""
    # 1. What they were told.
    told: dict[int, str] = {}
    for log in sorted(crowd.folder.glob("process*.jsonl")):
        for line in log.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            report.done[entry["operation"]] += 1
            report.again += entry["again"]
            if entry["operation"] == "add":
                number, _, run_id = entry["told"].partition(" ")
                if int(number) in told:
                    report.wrong.append(f"stage {number} was given to two processes")
                told[int(number)] = run_id
    for error in sorted(crowd.folder.glob("process*.error")):
        report.wrong.append(f"{error.stem}: {error.read_text(encoding='utf-8')}")
    # 2. The stages: one line, each as it was told.
    registry = registry_of(crowd.workspace(0))
    records = registry.records()
    report.stages = len(records)
    if [record.number for record in records] != list(range(1, len(told) + 2)):
        report.wrong.append(f"stages {[record.number for record in records]}, told {sorted(told)}")
    for record in records[1:]:
        if record.parent != record.number - 1:
            report.wrong.append(f"stage {record.number} stands on {record.parent}")
        if told.get(record.number) != record.run_id:
            report.wrong.append(f"stage {record.number} is of run {record.run_id}, told {told.get(record.number)}")
    # 3. Every coming into use is kept, and the last of them is in use. On a server two may have the same moment.
    snapshot = registry._store.snapshot()
    uses = Counter(key for version in snapshot.versions for key in version.tags if key.startswith(USE))
    comings = 1 + report.done["add"] + report.done["promote"]
    if crowd.server is None and (len(uses) != comings or uses.total() != comings):
        report.wrong.append(f"{comings} came into use, {len(uses)} are kept")
    if snapshot.in_use is None or registry.champion() != snapshot.in_use.stage:
        report.wrong.append(f"stage {registry.champion()} is in use, the last to come into use is {snapshot.in_use}")
    # 4. Nothing is damaged, left over or half done.
    if snapshot.unsettled or snapshot.late:
        report.wrong.append(f"unsettled: {snapshot.unsettled}, late: {snapshot.late}")
    report.wrong += [str(problem) for problem in registry.verify() if not _elsewhere(problem.what, crowd)]
    registry.collect_garbage()
    report.wrong += [f"left over: {orphan}" for orphan in registry.orphans()]
    registry.close()


def _elsewhere(what: str, crowd: Crowd) -> bool:
    """Tell whether a problem is a declaration that stands on the machine that added the stage."""
    return crowd.server is not None and what.endswith(".toml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.crowd", description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--operations", type=int, default=200, help="of all processes together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--server", help="address of a registry server, or 'start' for one of its own")
    asked = parser.parse_args(arguments)
    server, uri = None, asked.server
    if uri == "start":
        from tests.integration.registry.server import USER, Server

        server = Server()
        server.start()
        os.environ[USER_VARIABLE], os.environ[PASSWORD] = USER, server.password
        uri = server.url
    try:
        with tempfile.TemporaryDirectory(prefix="canal-crowd-") as folder:
            report = run(Crowd(Path(folder), uri), asked.processes, asked.operations, asked.seed)
    finally:
        if server is not None:
            server.stop()
    sys.stdout.write(json.dumps(asdict(report), indent=1) + "\n")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
