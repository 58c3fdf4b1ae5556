"""From a stored version to its record and its files, each checked against its hash."""

import contextlib
import shutil
import tempfile
from pathlib import Path

from canal.errors import RegistryError
from canal.files import Problem, digest_bytes, digest_file, parse_digest, verify
from canal.model.record import StageRecord, parse_record
from canal.registry import snapshot as tag
from canal.registry.cache import FILES, mark_used
from canal.registry.commit import MANIFEST_FILE, RECORD_FILE, model_folder
from canal.registry.snapshot import Snapshot, StoredVersion
from canal.registry.store import MODEL_FOLDER, Store


def find_version(found: Snapshot, number: int | None) -> StoredVersion:
    """Return the version of a stage; of the champion where no number is given.

    Raises
    ------
    RegistryError
        If there is none; it names those that are there.
    """
    wanted = found.champion if number is None else number
    for stored in found.versions:
        if stored.stage == wanted:
            return stored
    known = ", ".join(str(v.stage) for v in found.versions)
    if not known:
        message = "There is no stage yet. Add one: canal stage add --data FILE."
    elif number is None:
        message = f"No stage is in use. Choose one of {known}: canal stage promote N."
    else:
        message = f"There is no stage {number}. Stages: {known}."
    raise RegistryError(message)


def read_record(store: Store, stored: StoredVersion, cache: Path) -> StageRecord:
    """Return the record of a version.

    Raises
    ------
    RegistryError
        If it is not the one that was committed.
    """
    source = f"The record of stage {stored.stage} in {store.location}"
    text = stored.tags.get(tag.RECORD)
    if text is None:  # too long for a tag
        path = fetch(store, stored, cache) / RECORD_FILE
        source = str(path)
        if not path.is_file():
            message = f"{path} is missing; expected the record of stage {stored.stage}. {_FIX}"
            raise RegistryError(message)
        text = path.read_text(encoding="utf-8")
    expected, found = stored.tags.get(tag.RECORD_DIGEST), digest_bytes(text.encode())
    if found != expected:
        message = f"{source} was altered: expected {expected}, found {found}. {_FIX}"
        raise RegistryError(message)
    return parse_record(text, source).model_copy(update={"version": stored.version})


def checked_folder(store: Store, stored: StoredVersion, record: StageRecord, cache: Path) -> Path:
    """Return the folder with the files of a stage, after comparing every byte with its hash.

    Raises
    ------
    RegistryError
        If a file is missing or altered.
    """
    folder = fetch(store, stored, cache)
    if store.location.artifacts is None and not _whole(folder, stored, record):
        folder = fetch(store, stored, cache, fresh=True)  # it may be our copy that is damaged
    if not folder.is_dir():
        message = f"{folder} is missing; expected the files of stage {stored.stage}. {_FIX}"
        raise RegistryError(message)
    bad = _bad(folder, stored, record)
    if bad:
        first, others = bad[0], len(bad) - 1
        more = f" (and {others} more)" if others else ""
        found = first.found or "no file"
        message = (
            f"{folder / first.what} of stage {stored.stage} is {first.kind}{more}: "
            f"expected {first.expected}, found {found}. {_FIX}"
        )
        raise RegistryError(message)
    return folder


def checked_file(store: Store, record: StageRecord, name: str, cache: Path) -> Path:
    """Return one file of a stage, compared with its hash; of a server this file alone is fetched.

    Raises
    ------
    RegistryError
        If it is missing or altered.
    """
    expected = record.artifacts[name]
    folder = model_folder(store, record.run_id)
    path = _one_file(store, record.run_id, name, expected, cache) if folder is None else folder / name
    if not path.is_file():
        message = f"{path} is missing; expected {name} of stage {record.number}. {_FIX}"
        raise RegistryError(message)
    if (found := digest_file(path)) != expected:
        message = f"{path} of stage {record.number} was altered: expected {expected}, found {found}. {_FIX}"
        raise RegistryError(message)
    return path


def _one_file(store: Store, run_id: str, name: str, expected: str, cache: Path) -> Path:
    """Return our copy of a file of a server, fetched where there is none or it was altered."""
    whole, place = cache / run_id, cache / FILES / parse_digest(expected)[1]
    for copy, path in ((whole, whole / MODEL_FOLDER / name), (place, place / name)):
        if path.is_file() and digest_file(path) == expected:
            mark_used(copy)
            return path
    (place / name).unlink(missing_ok=True)  # it was altered
    new = _temporary(cache, run_id)
    try:
        found = store.download_file(run_id, name, new)
        if found is not None:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            found.replace(place / name)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return place / name


def _temporary(cache: Path, run_id: str) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{run_id}.", dir=cache))


def expected_files(stored: StoredVersion, record: StageRecord) -> dict[str, str]:
    """Return the digest of every file that belongs to a stage, by name."""
    return dict(record.artifacts) | {
        RECORD_FILE: stored.tags[tag.RECORD_DIGEST],
        MANIFEST_FILE: stored.tags[tag.MANIFEST_DIGEST],
    }


def fetch(store: Store, stored: StoredVersion, cache: Path, *, fresh: bool = False) -> Path:
    """Return the local folder of a version's files, downloaded from a server where need be; ``fresh``: anew."""
    folder = model_folder(store, stored.run_id)
    if folder is not None:
        return folder
    place = cache / stored.run_id
    if fresh:
        shutil.rmtree(place, ignore_errors=True)
    if not place.is_dir():
        new = _temporary(cache, stored.run_id)
        try:
            store.download(stored.run_id, new)
            with contextlib.suppress(OSError):  # another process was quicker
                new.replace(place)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    mark_used(place)
    return place / MODEL_FOLDER


def _whole(folder: Path, stored: StoredVersion, record: StageRecord) -> bool:
    return folder.is_dir() and not _bad(folder, stored, record)


def _bad(folder: Path, stored: StoredVersion, record: StageRecord) -> list[Problem]:
    return [p for p in verify(folder, expected_files(stored, record)) if p.kind != "extra"]


_FIX = (
    "Put it back from a backup, or use another stage with --stage N; "
    "`canal registry verify` names everything that is damaged."
)
