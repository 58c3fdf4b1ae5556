"""A new local registry: the whole database appears at once, or not at all."""

import os
from pathlib import Path
from typing import Any

from canal.errors import RegistryError
from canal.registry.artifacts import sync_folder
from canal.registry.location import RegistryLocation
from canal.registry.sqlite import set_default_location
from canal.registry.store import Store, import_mlflow


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


def close_database(location: RegistryLocation) -> None:
    """Close MLflow's connections to a local database; it keeps them in maps of its own."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as ModelStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as RunStore

    for kind in (RunStore, ModelStore):
        engine = getattr(kind, "_engine_map", {}).get(location.uri)
        if engine is not None:
            engine.dispose()


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


def is_local_registry(root: Path) -> bool:
    """Tell whether a folder holds a local registry."""
    location = RegistryLocation.of(root)
    return location.database is not None and location.database.is_file()
