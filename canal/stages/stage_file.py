"""One small file of a committed stage, compared with its own hash alone, so that many stages are read at once."""

from pathlib import Path

from canal.errors import RegistryError
from canal.registry.artifacts import digest_file
from canal.registry.location import RegistryLocation
from canal.registry.record import StageRecord
from canal.registry.registry import Registry
from canal.registry.store import MODEL_FOLDER


def find_stage_file(registry: Registry, record: StageRecord, name: str, what: str) -> Path | None:
    """Return where a file of a stage lies, ``None`` where the stage was committed without it.

    Parameters
    ----------
    name, what
        Name of the file; what it holds, for the error.

    Raises
    ------
    RegistryError
        If it is missing or altered.
    """
    expected = record.artifacts.get(name)
    if expected is None:
        return None
    path = _folder(registry, record) / name
    if not path.is_file():
        message = f"{path} is missing; expected the {what} of stage {record.number}. Restore it from a backup."
        raise RegistryError(message)
    found = digest_file(path)
    if found != expected:
        message = (
            f"{path} was altered: expected {expected}, found {found}. Restore it from a backup; "
            "`canal registry verify` names everything that is damaged."
        )
        raise RegistryError(message)
    return path


def _folder(registry: Registry, record: StageRecord) -> Path:
    local = RegistryLocation.of(registry.root)
    if local.uri == registry.uri and local.artifacts is not None:
        return local.artifacts / record.run_id / "artifacts" / MODEL_FOLDER
    return registry.artifacts(record)
