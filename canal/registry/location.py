"""Where a registry is: the only place that knows what kind of database it has.

One writer a workspace: a lock that the kernel releases when its holder dies.
"""

import errno
import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from canal.errors import RegistryError

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"
_CREDENTIALS = r"//[^/@]*@"


@dataclass(frozen=True, kw_only=True)
class RegistryLocation:
    """Address of database and artifacts.

    A server's user and password are never kept here: MLflow reads ``MLFLOW_TRACKING_USERNAME`` and
    ``MLFLOW_TRACKING_PASSWORD`` from the environment.

    Attributes
    ----------
    uri
        What MLflow is told: ``sqlite:///...`` or a server's ``https://...``.
    database
        File of the database, ``None`` where a server keeps it.
    artifacts
        Folder of the artifacts, ``None`` where a server keeps them.
    """

    uri: str
    database: Path | None = None
    artifacts: Path | None = None

    @classmethod
    def of(cls, root: Path, uri: str | None = None) -> "RegistryLocation":
        """Return the registry in a folder, or the one at a server's address.

        Raises
        ------
        RegistryError
            If MLflow could not address the folder, or the address is none of a server.
        """
        if uri is not None:
            return cls(uri=_server(uri))
        root = Path(os.path.abspath(root))  # noqa: PTH100 - links stay as the user named them
        if any(sign in str(root) for sign in "?%"):  # signs of an address; no quoting suits all
            message = f"{root} has a '?' or '%' in its path, which MLflow cannot address. Rename it."
            raise RegistryError(message)
        return cls(uri=f"sqlite:///{root / DATABASE}", database=root / DATABASE, artifacts=root / ARTIFACTS)

    @property
    def artifact_uri(self) -> str | None:
        """Return what MLflow is told about the artifacts, ``None`` for the server's own choice."""
        return None if self.artifacts is None else self.artifacts.as_uri()

    def __str__(self) -> str:
        """Return the address for messages; it never holds a password."""
        return str(self.database or self.uri)


def _server(uri: str) -> str:
    """Return a server's address without a slash at its end, if it is one."""
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        message = (
            f"{re.sub(_CREDENTIALS, '//', uri)!r} is no address of a registry; expected 'local' or a server's "
            "https://host:port. Set `registry` in canal.toml, or --registry."
        )
        raise RegistryError(message)
    if parts.username or parts.password:
        message = (
            f"The address of {parts.hostname} holds a user or a password, which would be written down with it. "
            "Leave them out and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
        raise RegistryError(message)
    return uri.rstrip("/")


TIMEOUT = 600.0  # seconds that a writer waits for another one, if nothing else is said
_INTERVAL = 0.1  # seconds between two tries
_BUSY = {errno.EACCES, errno.EAGAIN}


class WriterLock:
    """The lock of a workspace; one object may take it again while it holds it.

    Parameters
    ----------
    path
        File of the lock. It is never removed: a lock on a removed file would exclude nobody.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        self._depth = 0

    @property
    def held(self) -> bool:
        """Tell whether this object holds the lock."""
        return self._depth > 0

    def acquire(self, timeout: float, notify: Callable[[str], None]) -> None:
        """Take the lock, waiting if need be.

        Parameters
        ----------
        timeout
            Seconds to wait at most; 0 tries once.
        notify
            Told once, before waiting, who holds the lock.

        Raises
        ------
        RegistryError
            If another process still holds it then.
        """
        if self.held:
            self._depth += 1
            return
        handle = self._open()
        try:
            self._wait(handle, timeout, notify)
            _write_holder(handle)
        except BaseException:
            os.close(handle)
            raise
        self._handle, self._depth = handle, 1

    def release(self) -> None:
        """Give the lock back as often as it was taken."""
        assert self._handle is not None, "release without acquire"
        self._depth -= 1
        if self._depth == 0:
            with suppress(OSError):  # who held it is told to other writers alone; the lock ends with the file
                os.ftruncate(self._handle, 0)
            with suppress(OSError):
                os.close(self._handle)
            self._handle = None

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o664)
        except OSError as error:
            message = (
                f"{self.path} cannot be written: {error.strerror}. The registry is read-only for "
                "you; ask its owner for write permission, or copy the workspace."
            )
            raise RegistryError(message) from error

    def _wait(self, handle: int, timeout: float, notify: Callable[[str], None]) -> None:
        deadline = time.monotonic() + timeout
        told = False
        while not _try_lock(handle):
            holder = _read_holder(self.path)
            if time.monotonic() >= deadline:
                message = (
                    f"{self.path.parent} is in use by {holder}; waited {timeout:g} s. "
                    "Run this again when the other command has ended."
                )
                raise RegistryError(message)
            if not told:
                notify(f"Waiting for {holder}, which writes to {self.path.parent}.")
                told = True
            time.sleep(_INTERVAL)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True


def _write_holder(handle: int) -> None:
    """Write who holds the lock; for messages only, the lock itself is the kernel's."""
    facts = {
        "pid": os.getpid(),
        "command": " ".join([Path(sys.argv[0] or "python").name, *sys.argv[1:]])[:500],
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(facts).encode(), 0)


def _read_holder(path: Path) -> str:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return f"process {facts['pid']} ({facts['command']}, since {facts['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
