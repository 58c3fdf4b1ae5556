"""The registry of a workspace: what every other part of canal sees of it."""

import contextlib
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from canal.errors import RegistryError
from canal.files import Problem
from canal.model.record import StageRecord
from canal.registry.cache import COMPUTED, LIMIT, Memo
from canal.registry.commit import StageDraft, check_place, commit_stage
from canal.registry.location import TIMEOUT, RegistryLocation, WriterLock
from canal.registry.read import checked_file, checked_folder, find_version, read_record
from canal.registry.settle import done_later, put_in_use, settle, settle_all, write_declaration
from canal.registry.store import Store, close_database

if TYPE_CHECKING:
    from canal.model.model import Model
    from canal.registry.health import Orphan

_log = logging.getLogger("canal.registry")


class Registry:
    """The committed stages of a workspace.

    Reading needs no MLflow and no lock. Everything that writes goes through `writing`.

    Parameters
    ----------
    root
        The workspace's ``registry/``.
    store
        Database and artifacts.
    declarations
        Folder of the readable declarations, ``stages/``.
    """

    def __init__(self, root: Path, store: Store, declarations: Path) -> None:
        self.root, self.declarations = root, declarations
        self._store = store
        self._lock = WriterLock(root / "lock")
        self._drafts, self._cache = root / "drafts", root / "cache"
        self.memo = Memo(self._cache / COMPUTED)

    @classmethod
    def open(
        cls,
        root: Path,
        name: str,
        *,
        create: bool = False,
        uri: str | None = None,
        declarations: Path | None = None,
    ) -> "Registry":
        """Open the registry of a workspace, and finish what a killed process left half done.

        Parameters
        ----------
        root
            The workspace's ``registry/``.
        name
            Name of the registered model.
        create
            Make the registry where there is none.
        uri
            Address of a server; the folder's own database by default.
        declarations
            Folder of the readable declarations; ``stages/`` beside ``root`` by default.

        Raises
        ------
        RegistryError
            If there is none, its database is missing or altered, or it has no such model.
        """
        from canal.registry.create import make_registry, require_registry

        root = Path(root).absolute()
        store = Store(RegistryLocation.of(root, uri), name)
        if uri is not None:
            root.mkdir(parents=True, exist_ok=True)  # of the lock and of what is fetched
        registry = cls(root, store, declarations or root.parent / "stages")
        if create:
            make_registry(store.location, name, registry._lock)
        else:
            require_registry(store.location)
        if store.snapshot().unsettled:
            with contextlib.suppress(RegistryError), registry.writing(timeout=0):
                pass  # a live writer, or one who may write, will settle it
        return registry

    @staticmethod
    def exists(root: Path, name: str = "", uri: str | None = None) -> bool:
        """Tell whether a folder holds a local registry, or a server a model of that name."""
        location = RegistryLocation.of(root, uri)
        return Store(location, name).exists() if location.database is None else location.database.is_file()

    @property
    def name(self) -> str:
        """Name of the registered model."""
        return self._store.name

    @property
    def uri(self) -> str:
        """Address that MLflow's own tools take, e.g. ``mlflow ui --backend-store-uri``."""
        return self._store.location.uri

    @property
    def place(self) -> str:
        """Where the registry is, for messages: never with a password."""
        return str(self._store.location)

    def records(self) -> list[StageRecord]:
        """Return the records of all committed stages, by number."""
        found = self._store.snapshot().versions
        return [read_record(self._store, stored, self._cache) for stored in found]

    def champion(self) -> int | None:
        """Return the number of the stage in use, ``None`` before the first."""
        return self._store.snapshot().champion

    def record(self, number: int | None = None) -> StageRecord:
        """Return the record of a stage; of the champion by default.

        Raises
        ------
        RegistryError
            If there is no such stage.
        """
        return read_record(self._store, find_version(self._store.snapshot(), number), self._cache)

    def artifacts(self, record: StageRecord) -> Path:
        """Return the folder with the files of a stage, every byte compared with its hash.

        Raises
        ------
        RegistryError
            If a file is missing or altered.
        """
        stored = find_version(self._store.snapshot(), record.number)
        return checked_folder(self._store, stored, record, self._cache)

    def model(self, record: StageRecord, *, voter_alone: bool = False) -> "Model":
        """Return the model of a committed stage; its files are compared with their hashes.

        Parameters
        ----------
        record
            Of the stage.
        voter_alone
            Take a voter, too, beside which nothing was taught.

        Raises
        ------
        RegistryError
            If a file is missing or altered, or the stage is a voter alone and none is to be taken.
        """
        from canal.model.model import Model

        model = Model.load(self.artifacts(record), record, self.name)
        if not model.is_taught and not voter_alone:
            message = (
                f"Stage {record.number} ({record.name}) is a voter alone: it annotates, and has neither network nor "
                "statistics, which this needs. Teach on top of it first: canal stage add --data cells.h5ad."
            )
            raise RegistryError(message)
        return model

    def model_in_use(self) -> "Model | None":
        """Return the model that annotates, be it a voter alone, with its record; ``None`` before the first stage."""
        number = self.champion()
        return None if number is None else self.model(self.record(number), voter_alone=True)

    def file(self, record: StageRecord, name: str) -> Path | None:
        """Return one file of a stage, compared with its own hash alone; ``None`` if the stage has none of that name.

        Raises
        ------
        RegistryError
            If it is missing or altered.
        """
        return checked_file(self._store, record, name, self._cache) if name in record.artifacts else None

    @contextmanager
    def writing(self, timeout: float = TIMEOUT, notify: Callable[[str], None] = _log.warning) -> Iterator["Registry"]:
        """Be the only writer of this workspace; what a killed one left is finished first.

        Parameters
        ----------
        timeout
            Seconds to wait for another writer.
        notify
            Told who it is, once, before waiting.

        Raises
        ------
        RegistryError
            If another process still writes after that time.
        """
        outermost = not self._lock.held
        self._lock.acquire(timeout, notify)
        try:
            if outermost:
                settle_all(self._store, self._cache, self.declarations, self._drafts)
            yield self
        finally:
            self._lock.release()

    def draft(self, key: str) -> StageDraft:
        """Return the working folder of a stage in progress; the same key finds it again."""
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", key), key
        return StageDraft(self._drafts / key, key, self._commit)

    def set_champion(self, number: int) -> StageRecord:
        """Let `annotate` use this stage."""
        with self.writing():
            stored = find_version(self._store.snapshot(), number)
            put_in_use(self._store, stored)
            return self.record(number)

    def export(self, number: int, path: Path, *, private_key: bytes | None = None) -> tuple[StageRecord, int]:
        """Write a stage to one file, signed where there is a key; return its record and the file's size in bytes."""
        from canal.registry.package import write_package

        record = self.record(number)
        return record, write_package(path, self.name, record, self.artifacts(record), private_key=private_key)

    def declare(self, number: int) -> Path:
        """Write the readable declaration of a stage anew; return its path."""
        return write_declaration(self.record(number), self.declarations)

    def recover(self) -> list[int]:
        """Finish what killed processes left; return the numbers of the stages concerned."""
        pending = [stored.stage for stored in self._store.snapshot().unsettled]
        with self.writing():
            return pending

    def verify(self) -> list[Problem]:
        """Check every hash and every reference; return what is wrong.

        Of a server all files are fetched anew, and only this workspace's own declarations are known.
        """
        from canal.registry.health import find_problems

        found = self._store.snapshot()
        with tempfile.TemporaryDirectory(prefix="canal-") as fresh:
            return find_problems(self._store, found, self.declarations, Path(fresh))

    def orphans(self) -> "list[Orphan]":
        """Return what killed processes left and no stage needs."""
        from canal.registry.health import find_orphans

        return find_orphans(self._store, self._store.snapshot(), self._drafts)

    def collect_garbage(self, *, keep_drafts: bool = False, cache_limit: int = LIMIT) -> "list[Orphan]":
        """Delete the orphans, and copies beyond ``cache_limit`` bytes; return them. `--resume` needs the drafts."""
        from canal.registry.health import find_copies, remove_orphans

        with self.writing():
            orphans = [o for o in self.orphans() if not (keep_drafts and o.kind == "draft")]
            orphans += find_copies(self._cache, cache_limit)
            remove_orphans(self._store, orphans, self._drafts, self._cache)
        return orphans

    def close(self) -> None:
        """Close the connections to the database, if there are any."""
        if "client" in self._store.__dict__ and self._store.location.database is not None:
            close_database(self._store.location)

    def _commit(
        self,
        draft: StageDraft,
        record: StageRecord,
        files: Mapping[str, Path],
        declarations: Path | None,
        *,
        promote: bool,
    ) -> StageRecord:
        with self.writing():
            found = self._store.snapshot()
            check_place(record, {v.stage for v in found.versions})
            use = found.next_use if promote else None
            stored, record = commit_stage(self._store, draft, record, files, use)
            with done_later(f"Stage {record.number} is committed"):
                settle(self._store, stored, record, declarations or self.declarations, self._drafts)
        return record
