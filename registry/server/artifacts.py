"""All artifacts of the server as one tar, and back: artifacts.py save >TAR | put <TAR | prune <TAR.

Runs where MLflow is, in the container or beside it, with the address of --artifacts-destination in ARTIFACTS: an S3
bucket or a folder. `save` writes the tar to stdout; `put` writes what is in a tar to its place; `prune` deletes what is
not in the tar. Files pass through one at a time.
"""

import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository


def main() -> None:
    """Do what is asked."""
    doing = {"save": save, "put": put, "prune": prune}
    if len(sys.argv) != 2 or sys.argv[1] not in doing:
        sys.exit(__doc__)
    repository = get_artifact_repository(os.environ["ARTIFACTS"])
    doing[sys.argv[1]](repository, sys.stdout.buffer if sys.argv[1] == "save" else sys.stdin.buffer)


def save(repository: Any, out: IO[bytes]) -> None:
    """Write every file into a tar."""
    with tarfile.open(fileobj=out, mode="w|") as archive:
        for path in files_of(repository):
            with tempfile.TemporaryDirectory() as folder:
                archive.add(repository.download_artifacts(path, folder), arcname=path, filter=without_owner)


def put(repository: Any, source: IO[bytes]) -> None:
    """Write every file of a tar to its place."""
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for member in archive:
            with tempfile.TemporaryDirectory() as folder:
                path = PurePosixPath(member.name)
                archive.extract(member, folder, filter="data")
                repository.log_artifact(str(Path(folder) / path), str(path.parent) if path.parent.name else None)


def prune(repository: Any, source: IO[bytes]) -> None:
    """Delete every file that a tar does not hold."""
    with tarfile.open(fileobj=source, mode="r|") as archive:
        kept = {member.name for member in archive}
    for path in [path for path in files_of(repository) if path not in kept]:
        repository.delete_artifacts(path)


def files_of(repository: Any, folder: str | None = None) -> Iterator[str]:
    """Yield the path of every file below a folder."""
    for entry in repository.list_artifacts(folder):
        if entry.is_dir:
            yield from files_of(repository, entry.path)
        else:
            yield entry.path


def without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who owned the temporary file, and when."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
