"""Whether everything that was kept is there as it was kept, and what is left over.

The working folders of pre-training: one a run, in use by one process, deleted where none goes on with them.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from canal.errors import RegistryError
from canal.files import Problem, digest_bytes, verify
from canal.model.record import StageRecord
from canal.registry import cache as cached
from canal.registry import snapshot as tag
from canal.registry.cache import size_of
from canal.registry.commit import RECORD_FILE, model_folder
from canal.registry.flavour import flavour_problems, strange_names
from canal.registry.location import WriterLock
from canal.registry.read import expected_files, fetch, read_record
from canal.registry.settle import declaration_name
from canal.registry.snapshot import Snapshot, StoredVersion, check_database
from canal.registry.store import Store

# Seconds that a run on a server may be a commit in progress: another machine's, which no lock of ours tells.
_PATIENCE = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """Something that no committed stage needs.

    Attributes
    ----------
    kind
        ``"run"``, left by a commit that was killed, ``"draft"``, which `--resume` could use, or ``"copy"``, which can
        be fetched or computed again.
    name
        Id of the run, key of the draft, path of the copy in the cache.
    size
        Bytes on this machine.
    """

    kind: Literal["run", "draft", "copy"]
    name: str
    size: int


def find_problems(store: Store, found: Snapshot, declarations: Path, cache: Path) -> list[Problem]:
    """Check every hash and every reference, and that MLflow would load nothing but canal."""
    problems = _database_problems(store)
    if problems:
        return problems
    runs = store.run_states()
    numbers = {version.stage for version in found.versions}
    # Every stage: its run, its record, its files, its parent, its declaration.
    for stored in found.versions:
        if stored.run_id not in runs:
            problems.append(Problem(stage=stored.stage, what=f"run {stored.run_id}", kind="missing"))
        problems += _stage_problems(store, stored, numbers, declarations, cache)
    return problems + _alias_problems(found)


def find_orphans(store: Store, found: Snapshot, drafts: Path) -> list[Orphan]:
    """Return runs of killed commits and drafts; runs that canal did not make are not ours."""
    orphans = []
    # Runs that no version names. On a server a young one may be another machine's commit in progress.
    used = {version.run_id for version in found.versions}
    patience = 0.0 if store.location.database is not None else _PATIENCE
    for run_id, (state, age) in sorted(store.run_states().items()):
        if state == "draft" and run_id not in used and age >= patience:
            orphans.append(Orphan(kind="run", name=run_id, size=cached.size_of(_run_folder(store, run_id))))
    # Drafts of stages that were not committed.
    for path in sorted(drafts.iterdir()) if drafts.is_dir() else []:
        if path.is_dir():
            orphans.append(Orphan(kind="draft", name=path.name, size=cached.size_of(path)))
    return orphans


def find_copies(cache: Path, limit: int) -> list[Orphan]:
    """Return the copies that were not used for months, and the oldest of those that take more than ``limit`` bytes."""
    copies = []
    for path, size in cached.too_much(cache, limit):
        copies.append(Orphan(kind="copy", name=path.relative_to(cache).as_posix(), size=size))
    return copies


def remove_orphans(store: Store, orphans: Sequence[Orphan], drafts: Path, cache: Path) -> None:
    """Delete what `find_orphans` and `find_copies` named."""
    for orphan in orphans:
        if orphan.kind == "copy":
            cached.remove(cache / orphan.name)
            continue
        if orphan.kind == "draft":
            shutil.rmtree(drafts / orphan.name, ignore_errors=True)
            continue
        folder = _run_folder(store, orphan.name)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        store.delete_run(orphan.name)


def _database_problems(store: Store) -> list[Problem]:
    """Return what SQLite's own check finds; a database on a server is checked by its server."""
    database = store.location.database
    if database is None:
        return []
    state = check_database(database)
    if state == "ok":
        return []
    return [Problem(what=str(database), kind="altered", expected="ok", found=state)]


def _stage_problems(
    store: Store, stored: StoredVersion, numbers: set[int], declarations: Path, cache: Path
) -> list[Problem]:
    """Return what is wrong with one stage: the first thing, where nothing else can be read, or all."""
    # The record is in the registry's database too, with its hash.
    text = stored.tags.get(tag.RECORD)
    expected = stored.tags.get(tag.RECORD_DIGEST, "")
    if text is not None and (now := digest_bytes(text.encode())) != expected:
        return [Problem(stage=stored.stage, what="record", kind="altered", expected=expected, found=now)]
    try:
        record = read_record(store, stored, cache)
    except RegistryError as error:
        return [Problem(stage=stored.stage, what=RECORD_FILE, kind="altered", found=str(error))]
    # What the record names: files, parent, declaration.
    problems = _file_problems(store, stored, record, cache)
    if record.parent is not None and record.parent not in numbers:
        problems.append(Problem(what=f"parent stage {record.parent}", kind="missing"))
    path = declarations / declaration_name(record)
    if store.location.database is not None and not path.is_file():
        problems.append(Problem(what=str(path), kind="missing"))
    return [replace(problem, stage=stored.stage) for problem in problems]


def _file_problems(store: Store, stored: StoredVersion, record: StageRecord, cache: Path) -> list[Problem]:
    absent = {tag.MANIFEST_DIGEST, tag.RECORD_DIGEST} - set(stored.tags)
    if absent:
        return [Problem(what=f"tag {name}", kind="missing") for name in sorted(absent)]
    folder = fetch(store, stored, cache)
    if not folder.is_dir():
        return [Problem(what=str(folder), kind="missing")]
    problems = verify(folder, expected_files(stored, record))
    told = {problem.what for problem in problems}
    for problem in _foreign_files(folder, record):
        if problem.what not in told:
            problems.append(problem)
    return problems


def _foreign_files(folder: Path, record: StageRecord) -> list[Problem]:
    """Return what a stage was committed with that canal did not write: an older canal imported anything as it was."""
    problems = [Problem(what=name, kind="extra") for name in strange_names(record.artifacts)]
    for problem in flavour_problems(folder):
        if problem.what in record.artifacts:
            problems.append(problem)
    return problems


def _alias_problems(found: Snapshot) -> list[Problem]:
    """Return the names of the stage in use and of the candidate that point to nothing, or are not there."""
    versions = {stored.version for stored in found.versions}
    problems = []
    for alias, version in found.aliases.items():
        if alias in {tag.CHAMPION, tag.CANDIDATE} and version not in versions:
            problems.append(Problem(what=f"version {version} of alias {alias}", kind="missing"))
    if versions and found.champion is None and not problems:
        problems.append(Problem(what=f"alias {tag.CHAMPION}", kind="missing"))
    return problems


def _run_folder(store: Store, run_id: str) -> Path | None:
    folder = model_folder(store, run_id)
    return None if folder is None else folder.parents[1]


DRAFTS = ".drafts"


def _silent(_message: str) -> None:
    pass


@contextmanager
def working_folder(root: Path, key: str, *, resume: bool) -> Iterator[Path]:
    """Give the folder of a run, empty unless it is resumed; it is gone when the run has ended well.

    Parameters
    ----------
    root
        Folder that the run's outcome will stand in, such as that of a workspace's weights.
    key
        Names all that decides the run's outcome.
    resume
        Whether to keep what an earlier process left.

    Raises
    ------
    RegistryError
        If another process is at the same run.
    """
    folder = root / DRAFTS / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock_of(folder)
    lock.acquire(0, _silent)
    try:
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()


def remove_working_folders(root: Path) -> list[Orphan]:
    """Delete the folders that no process is at; return them."""
    removed = []
    for folder in sorted((root / DRAFTS).glob("*")):
        if not folder.is_dir():
            continue
        lock = _lock_of(folder)
        try:
            lock.acquire(0, _silent)
        except RegistryError:
            continue
        try:
            removed.append(Orphan(kind="draft", name=f"{root.name}/{folder.name}", size=size_of(folder)))
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            lock.release()
    return removed


def _lock_of(folder: Path) -> WriterLock:
    return WriterLock(folder.with_suffix(".lock"))
