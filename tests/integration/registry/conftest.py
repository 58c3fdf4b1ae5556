"""A real registry for each test: MLflow on SQLite, and on a server with PostgreSQL and passwords.

Every test that takes `open_registry` runs once for each backend named here; another one is one more
entry of `_BACKENDS`, and no test is copied for it. The server skips itself where PostgreSQL or MLflow's
`auth` extra is not installed.
"""

import importlib.util
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest

from canal.model.record import StageRecord
from canal.registry.package import Package
from canal.registry.registry import Registry
from canal.registry.store import PASSWORD
from canal.registry.store import USER as USER_VARIABLE
from tests.integration.registry.server import USER, Server, postgres_programs
from tests.unit.registry.make import fill, make_record

MODEL = "lab"
Machine = Callable[[str], Registry]
server_only = pytest.mark.parametrize("backend", ["server"], indirect=True)
_SERVER_NEEDS = ("psycopg2", "flask_wtf")


class OpenRegistry(Protocol):
    """Opens the registry of this test's workspace; each call is like another process."""

    def __call__(self) -> Registry:
        """Open it."""


@dataclass
class Backend:
    """What keeps the stages of a test.

    Attributes
    ----------
    open
        Opens the registry from a workspace's folder, like another process or machine.
    files
        Where the files of a run stand, whoever keeps them.
    """

    open: Callable[[Path], Registry]
    files: Callable[[str], Path]


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


@pytest.fixture(scope="session")
def running_server() -> Iterator[Server]:
    """PostgreSQL and MLflow on this machine, for all tests of this process."""
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    missing = [name for name in _SERVER_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install 'canal[server]'")
    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(running_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, with user and password in the environment."""
    monkeypatch.setenv(USER_VARIABLE, USER)
    monkeypatch.setenv(PASSWORD, running_server.password)
    return running_server


def _sqlite(request: pytest.FixtureRequest, workspace: Path) -> Backend:
    empty: Path = request.getfixturevalue("empty_registry")

    def open_one(folder: Path) -> Registry:
        if not (folder / "registry").exists():
            shutil.copytree(empty, folder / "registry")
        return Registry.open(folder / "registry", MODEL)

    return Backend(open_one, lambda run: workspace / "registry" / "artifacts" / run / "artifacts" / "model")


def _server(request: pytest.FixtureRequest, workspace: Path) -> Backend:
    server: Server = request.getfixturevalue("server")
    name = f"{MODEL}-{uuid.uuid4().hex[:12]}"  # every test has a model of its own on the one server

    def files(run: str) -> Path:
        return next(server.artifacts.glob(f"*/{run}")) / "artifacts" / "model"

    return Backend(lambda folder: Registry.open(folder / "registry", name, create=True, uri=server.url), files)


_BACKENDS = {"sqlite": _sqlite, "server": _server}


@pytest.fixture(params=[pytest.param("sqlite"), pytest.param("server", marks=pytest.mark.slow)])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Return what keeps the stages of this test."""
    return _BACKENDS[request.param](request, tmp_path / "workspace")


@pytest.fixture
def open_registry(backend: Backend, tmp_path: Path) -> Iterator[OpenRegistry]:
    """Open the registry of this test's workspace."""
    opened: list[Registry] = []

    def open_and_note() -> Registry:
        opened.append(backend.open(tmp_path / "workspace"))
        return opened[-1]

    yield open_and_note
    for registry in opened:
        registry.close()


@pytest.fixture
def stored(backend: Backend) -> Callable[[str], Path]:
    """Return a function that gives the folder in which a run's files stand, whoever keeps them."""
    return backend.files


@pytest.fixture
def local_registry(empty_registry: Path, tmp_path: Path) -> Iterator[Registry]:
    """An empty registry on SQLite, for what does not depend on the backend."""
    shutil.copytree(empty_registry, tmp_path / "workspace" / "registry")
    registry = Registry.open(tmp_path / "workspace" / "registry", MODEL)
    yield registry
    registry.close()


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one stage that was really learned; tests do not add to it."""
    import canal
    from tests.make import make_adata

    root = tmp_path_factory.mktemp("learned") / "ws"
    quick = ("training.epochs=3", "training.min_steps=20", "bank.size=24", "analytic.pseudo_cells=40")
    cells = make_adata(80, types=("B", "NK"))
    canal.open_workspace(root, create=True).add_stage(cells, labels="cell_type", name="toy", overrides=quick)
    return root


def add(registry: Registry, number: int = 1, *, promote: bool = True, **changes: object) -> StageRecord:
    """Commit a stage that nobody learned."""
    with registry.writing():
        draft = registry.draft(f"key{number}")
        files = fill(draft, number)
        return draft.commit(make_record(number, **changes), files, promote=promote)


@pytest.fixture
def machine(backend: Backend, tmp_path: Path) -> Iterator[Machine]:
    """Open the registry from another machine's workspace."""
    opened: list[Registry] = []

    def open_on(name: str) -> Registry:
        opened.append(backend.open(tmp_path / name))
        return opened[-1]

    yield open_on
    for registry in opened:
        registry.close()


@pytest.fixture
def made_up_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages whose files are no model are taken in: what is tested is how files travel, not what is in them."""
    load = Package.load

    def load_or_nothing(package: Package) -> Any:
        made_up = not (package.folder / "config.toml").is_file()
        return SimpleNamespace(network=None, is_taught=True, voter=None) if made_up else load(package)

    monkeypatch.setattr(Package, "load", load_or_nothing)
