"""Where a registry is: the only place that knows what kind of database it has."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from canal.errors import RegistryError

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"


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
            If MLflow could not address the folder.
        """
        if uri is not None:
            return cls(uri=uri)
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
        """Return the address without a password, for messages."""
        return str(self.database or re.sub(r"//[^/@]*@", "//", self.uri))
