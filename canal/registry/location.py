"""Where a registry is: the only place that knows what kind of database it has."""

import os
import re
from dataclasses import dataclass
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
