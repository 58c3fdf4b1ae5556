"""A process that forks writers, so that many can be killed and MLflow is imported once.

Each line on stdin is JSON: ``root``, ``first`` (number of the first stage), ``calls``: the call to
MLflow's client at which the writer kills itself, or null to go on until it is killed from outside, and
``cells``: files to learn one after another, or null for stages that nobody learned.
Answers with the writer's process id, then, when it is dead, with ``dead``.
"""

import importlib
import itertools
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import canal
from canal.registry.registry import Registry
from canal.registry.store import import_mlflow
from tests.integration.registry.conftest import MODEL, add

QUICK = (
    "training.epochs=2", "training.min_steps=5", "bank.size=16", "analytic.pseudo_cells=20", "promotion.max_fall=1.0",
)  # fmt: skip
_BEFORE_THE_FORK = (
    "canal.stages.add",
    "canal.workspace",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
)


class _Deadly:
    """MLflow's client, until a number of calls; then SIGKILL, before or after the call."""

    def __init__(self, client: Any, calls: int) -> None:
        self.client, self.left = client, calls

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._count()
            result = getattr(self.client, name)(*args, **kwargs)
            self._count()
            return result

        return call

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def write(root: Path, first: int, calls: int | None) -> None:
    """Commit stage after stage."""
    registry = Registry.open(root, MODEL, create=True)
    if calls is not None:
        registry._store.__dict__["client"] = _Deadly(registry._store.client, calls)
    for number in itertools.count(first):
        add(registry, number)
        if calls is not None:
            os._exit(0)  # it did not take so many calls


def learn(root: Path, first: int, cells: list[str]) -> None:
    """Learn stage after stage, all of it; a file tells which are said to be committed."""
    workspace = canal.open_workspace(root.parent)
    for number in itertools.count(first):
        result = workspace.add_stage(
            cells[number % len(cells)], labels="cell_type", name=f"n{number}", seed=number, again=True, overrides=QUICK
        )
        (root.parent / f"said-{result.stage}").touch()


def warm_up(cells: list[str]) -> None:
    """Learn a stage before the fork, for what is imported only then takes longer than the stage."""
    with tempfile.TemporaryDirectory() as folder:
        canal.open_workspace(folder, create=True).add_stage(cells[0], labels="cell_type", overrides=QUICK)


def answer(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Fork a writer for each line."""
    import_mlflow()
    for module in _BEFORE_THE_FORK:
        importlib.import_module(module)

    warm = False
    for line in sys.stdin:
        job = json.loads(line)
        if job["cells"] and not warm:
            warm_up(job["cells"])
            warm = True
        pid = os.fork()
        if pid == 0:
            if job["cells"]:
                learn(Path(job["root"]), job["first"], job["cells"])
            write(Path(job["root"]), job["first"], job["calls"])
        answer(str(pid))
        _, status = os.waitpid(pid, 0)
        answer("dead" if os.WIFSIGNALED(status) else "ended")


if __name__ == "__main__":
    main()
