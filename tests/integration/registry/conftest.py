"""A real registry for each test: MLflow on SQLite.

Every test that takes `open_registry` runs once for each backend named here; a server is one more
entry of `_BACKENDS`, and no test is copied for it.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from canal.registry.record import StageRecord
from canal.registry.registry import Registry
from tests.unit.registry.make import fill, make_record

MODEL = "lab"


class OpenRegistry(Protocol):
    """Opens the registry of this test's workspace; each call is like another process."""

    def __call__(self) -> Registry:
        """Open it."""


@pytest.fixture(scope="session")
def _unsynced() -> Iterator[None]:
    """Let SQLite not wait for the disk: a power cut is nothing that a test survives."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def unsync(connection: Any, _record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", unsync)
    yield
    event.remove(Engine, "connect", unsync)


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory, _unsynced: None) -> Path:
    """A registry without stages; copied, for MLflow takes a second to make one."""
    root = tmp_path_factory.mktemp("template") / "registry"
    Registry.open(root, MODEL, create=True).close()
    return root


def _open_sqlite(empty: Path, workspace: Path) -> Callable[[], Registry]:
    root = workspace / "registry"
    shutil.copytree(empty, root)
    return lambda: Registry.open(root, MODEL)


_BACKENDS = {"sqlite": _open_sqlite}


@pytest.fixture(params=sorted(_BACKENDS))
def open_registry(request: pytest.FixtureRequest, empty_registry: Path, tmp_path: Path) -> Iterator[OpenRegistry]:
    """Open the registry of this test's workspace."""
    opened: list[Registry] = []
    open_one = _BACKENDS[request.param](empty_registry, tmp_path / "workspace")

    def open_and_note() -> Registry:
        opened.append(open_one())
        return opened[-1]

    yield open_and_note
    for registry in opened:
        registry.close()


@pytest.fixture
def stored(open_registry: OpenRegistry, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that gives the folder in which a run's files stand, whoever keeps them."""
    artifacts = tmp_path / "workspace" / "registry" / "artifacts"
    return lambda run_id: artifacts / run_id / "artifacts" / "model"


def add(registry: Registry, number: int = 1, *, promote: bool = True, **changes: object) -> StageRecord:
    """Commit a stage that nobody learned."""
    with registry.writing():
        draft = registry.draft(f"key{number}")
        files = fill(draft, number)
        return draft.commit(make_record(number, **changes), files, promote=promote)
