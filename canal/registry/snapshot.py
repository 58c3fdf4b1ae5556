"""Short ways to a local registry's database, for what MLflow would be slow at or cannot do.

Importing MLflow takes seconds; `canal stage list` must not. So the committed stages are read with
plain SQL here, in one transaction, and a test compares the answer with MLflow's own. Where the
tables do not look as expected, `read_snapshot` says so and MLflow is asked instead.

What the registry holds at one moment, as plain values, whoever read it.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from canal.errors import RegistryError

STAGE, NAME, PARENT = "canal.stage", "canal.name", "canal.parent"
TYPES, GENES, DATA_DIGEST = "canal.types", "canal.genes", "canal.data_digest"
RECORD, RECORD_DIGEST = "canal.record", "canal.record_digest"
MANIFEST_DIGEST = "canal.manifest_digest"
ALIAS, SETTLED, DRAFT, STATE = "canal.alias", "canal.settled", "canal.draft", "canal.state"
NOTE = "mlflow.note.content"  # what MLflow's page shows as the description of a run
USE = "canal.use."  # and a number: when the version came into use, counted over all versions of the model

CHAMPION, CANDIDATE = "champion", "candidate"


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """One version of the registered model: one committed stage."""

    version: int
    run_id: str
    tags: dict[str, str]

    @property
    def stage(self) -> int:
        """Number of the stage."""
        return int(self.tags[STAGE])

    @property
    def settled(self) -> bool:
        """Tell whether everything that follows the commit was done, too."""
        return SETTLED in self.tags

    @property
    def last_use(self) -> int:
        """When the version last came into use; 0 if it never did, or by an older canal."""
        counts = (key.removeprefix(USE) for key in self.tags if key.startswith(USE))
        return max((int(count) for count in counts if count.isdecimal()), default=0)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The committed stages, by number, and which aliases point where.

    Attributes
    ----------
    versions
        Those that canal committed, ascending by stage; others in the same model are left out.
    aliases
        Version of each alias.
    late
        Versions of a stage whose number another machine had taken just before. Version numbers are
        given out one after the other, so all readers agree which came first. They are taken back.
    """

    versions: list[StoredVersion] = field(default_factory=list)
    aliases: dict[str, int] = field(default_factory=dict)
    late: list[StoredVersion] = field(default_factory=list)

    @classmethod
    def of(cls, versions: list[StoredVersion], aliases: dict[str, int]) -> "Snapshot":
        """Keep what canal committed, in order."""
        ours = [v for v in versions if v.tags.get(STAGE, "").isdecimal()]
        first: dict[int, StoredVersion] = {}
        for stored in sorted(ours, key=lambda v: (v.stage, v.version)):
            first.setdefault(stored.stage, stored)
        late = [v for v in ours if first[v.stage] is not v]
        return cls(versions=list(first.values()), aliases=aliases, late=late)

    @property
    def unsettled(self) -> list[StoredVersion]:
        """Stages that were committed by a process that was killed right after."""
        return [v for v in self.versions if not v.settled]

    @property
    def in_use(self) -> StoredVersion | None:
        """Return the version that came into use last, as the versions' own tags tell it.

        Tags are only ever added, so that no machine can undo what another one did. Of two that came into use at the
        same moment all readers take the one that was committed later.
        """
        used = [v for v in self.versions if v.last_use]
        return max(used, key=lambda v: (v.last_use, v.version), default=None)

    @property
    def next_use(self) -> int:
        """Return the number of the next coming into use."""
        return max((v.last_use for v in self.versions), default=0) + 1

    @property
    def champion(self) -> int | None:
        """Number of the stage in use.

        It is the one that the alias names. While a commit is under way, or its process was killed before the alias
        was moved, the versions' tags decide: a stage that was committed as champion is it from its commit on, and a
        slower machine's alias does not count.
        """
        pending = [v for v in self.unsettled if v.tags.get(ALIAS) == CHAMPION]
        if pending:
            return (self.in_use or pending[-1]).stage
        by_version = {v.version: v.stage for v in self.versions}
        return by_version.get(self.aliases.get(CHAMPION, -1))


_PATIENCE = 20.0  # seconds that a reader waits for a writer, as MLflow does
_VERSIONS = """
    SELECT v.version, v.run_id, t.key, t.value
    FROM model_versions v JOIN model_version_tags t ON t.name = v.name AND t.version = v.version
    WHERE v.name = ? AND v.current_stage <> 'Deleted_Internal'
    ORDER BY v.version
"""
_ALIASES = "SELECT alias, version FROM registered_model_aliases WHERE name = ?"


def read_snapshot(database: Path, name: str) -> Snapshot | None:
    """Read the committed stages of a registered model.

    Returns
    -------
    ``None`` if the tables are of a shape that is not known here: ask MLflow then.

    Raises
    ------
    RegistryError
        If the file is missing, no database, damaged, or has no model of that name.
    """
    with _opened(database, "rw") as connection:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
        _require_model(connection, database, name)
        try:
            rows = connection.execute(_VERSIONS, (name,)).fetchall()
            aliases = dict(connection.execute(_ALIASES, (name,)).fetchall())
        except sqlite3.OperationalError as error:
            if "no such" in str(error):
                return None
            raise
    versions: dict[int, StoredVersion] = {}
    for version, run_id, key, value in rows:
        stored = versions.setdefault(version, StoredVersion(version=version, run_id=run_id, tags={}))
        stored.tags[key] = value
    return Snapshot.of(list(versions.values()), aliases)


def check_database(database: Path) -> str:
    """Return ``"ok"``, or what SQLite finds wrong in the file; reads all of it."""
    with _opened(database, "rw") as connection:
        return str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])


def move_artifacts(database: Path, experiment: str, artifact_uri: str) -> bool:
    """Tell the database where its artifacts are now, after the workspace was moved or copied.

    MLflow keeps absolute addresses and has no call that changes them.

    Returns
    -------
    Whether there was anything to change.
    """
    with _opened(database, "rw") as connection:
        found = connection.execute("SELECT artifact_location FROM experiments WHERE name = ?", (experiment,)).fetchone()
        if found is None or found[0] == artifact_uri:
            return False
        old = found[0]
        connection.execute("BEGIN IMMEDIATE")
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
        ):
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (artifact_uri, len(old) + 1, old, len(old) + 1, f"{old}/"),
            )
        connection.execute("COMMIT")
    return True


def set_default_location(database: Path, artifact_uri: str) -> None:
    """Keep MLflow's own default experiment out of the folder that the command was run in."""
    with _opened(database, "rw") as connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE name = 'Default'",
            (f"{artifact_uri}/0",),
        )


@contextmanager
def _opened(database: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """Open an existing database; mode ``rw`` so that SQLite may undo a killed writer's half."""
    if not database.is_file():
        message = (
            f"{database} is missing: the registry's database was deleted or moved. Put it back "
            "from a backup; without it the stages cannot be told."
        )
        raise RegistryError(message)
    try:
        uri = f"file:{quote(str(database))}?mode={mode}"
        with closing(sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        if any(words in str(error) for words in ("disk I/O error", "disk is full")):
            raise RegistryError(failing_disk(str(database), str(error))) from error
        message = (
            f"{database} cannot be read as the registry's database: {error}. It was altered or "
            "damaged, or cannot be written; put it back from a backup, or mend its permissions."
        )
        raise RegistryError(message) from error


def failing_disk(place: str, reason: str) -> str:
    """Return the message for a database whose disk is full or fails."""
    return (
        f"The registry's database {place} cannot be read or written ({reason}). Stages are kept whole or not at all. "
        "Check the disk's space and your rights there, then run this again."
    )


def _require_model(connection: sqlite3.Connection, database: Path, name: str) -> None:
    try:
        found = connection.execute("SELECT name FROM registered_models ORDER BY name").fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        message = (
            f"{database} is empty or no MLflow database: it has no registered models. "
            "Put it back from a backup, or move the file away to begin a new registry."
        )
        raise RegistryError(message) from error
    names = [row[0] for row in found]
    if name not in names:
        raise RegistryError(no_model(str(database), name, names))


def no_model(place: str, name: str, names: list[str]) -> str:
    """Return the message for a model name that a registry does not have."""
    known = ", ".join(names) or "none"
    return (
        f"{place} has no model {name!r}; it has: {known}. "
        "Set `model` in canal.toml to one of these, or choose another workspace."
    )
