"""A new local registry: the whole database appears at once, or not at all."""

import logging
import os
from typing import Any

from canal.errors import RegistryError
from canal.files import sync_folder
from canal.registry.location import TIMEOUT, RegistryLocation, WriterLock
from canal.registry.snapshot import set_default_location
from canal.registry.store import Store, close_database, import_mlflow

_log = logging.getLogger("canal.registry")


def make_registry(location: RegistryLocation, name: str, lock: WriterLock) -> None:
    """Make the registry if there is none; of two at once, one makes it."""
    if location.database is None:
        Store(location, name).make_model()
        return
    location.database.parent.mkdir(parents=True, exist_ok=True)
    if location.database.is_file():
        return
    lock.acquire(TIMEOUT, _log.warning)
    try:
        if not location.database.is_file():
            create_database(location, name)
    finally:
        lock.release()


def require_registry(location: RegistryLocation) -> None:
    """Refuse a folder in which there never was a registry.

    Raises
    ------
    RegistryError
        If there is neither a database nor artifacts. Artifacts alone are told apart later.
    """
    if location.database is None or location.artifacts is None:
        return
    if not location.database.is_file() and not location.artifacts.is_dir():
        folder = location.database.parent
        message = f"{folder} has no registry yet. `canal stage add --data FILE` makes one."
        raise RegistryError(message)


def create_database(location: RegistryLocation, name: str) -> None:
    """Make the database of a local registry with its experiment and registered model.

    It is made beside its place and moved there, for a kill in the middle of MLflow's migrations
    would leave a database that nothing can mend.

    Raises
    ------
    RegistryError
        If there are artifacts already: then the database was lost, and a new one would hide it.
    """
    assert location.database is not None
    assert location.artifacts is not None
    if location.artifacts.is_dir() and any(location.artifacts.iterdir()):
        message = (
            f"{location.database} is missing, but {location.artifacts} holds models: the database "
            "was deleted or moved. Put it back from a backup, or move the artifacts away to begin "
            "a new registry."
        )
        raise RegistryError(message)
    folder = location.database.parent
    for left in folder.glob(f".{location.database.name}.*.new*"):
        left.unlink()  # of a process that was killed here; the caller holds the lock
    new = folder / f".{location.database.name}.{os.getpid()}.new"
    store = Store(RegistryLocation(uri=f"sqlite:///{new}", database=new, artifacts=location.artifacts), name)
    with _UnsyncedConnections():
        store.make_model()
    close_database(store.location)
    assert location.artifact_uri is not None
    set_default_location(new, location.artifact_uri)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.replace(location.database)
    sync_folder(folder)


class _UnsyncedConnections:
    """Let SQLite not wait for the disk: five seconds of migrations become one.

    Only for a file that nobody sees before it is whole and synced.
    """

    def __enter__(self) -> None:
        import_mlflow()
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        event.listen(Engine, "connect", self._set)

    def __exit__(self, *_: object) -> None:
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        event.remove(Engine, "connect", self._set)

    @staticmethod
    def _set(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")
