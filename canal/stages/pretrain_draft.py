"""The working folders of pre-training: one a run, in use by one process, deleted where none goes on with them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from canal.errors import RegistryError
from canal.registry.cache import size_of
from canal.registry.health import Orphan
from canal.registry.lock import WriterLock

DRAFTS = ".drafts"


def _silent(_message: str) -> None:
    pass


@contextmanager
def pretrain_draft(weights: Path, key: str, *, resume: bool) -> Iterator[Path]:
    """Give the folder of a run, empty unless it is resumed; it is gone when the run has ended well.

    Parameters
    ----------
    weights
        Folder of a workspace's weights.
    key
        Names all that decides the run's outcome.
    resume
        Whether to keep what an earlier process left.

    Raises
    ------
    RegistryError
        If another process is at the same run.
    """
    folder = weights / DRAFTS / key
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


def remove_pretrain_drafts(weights: Path) -> list[Orphan]:
    """Delete the folders that no process is at; return them."""
    removed = []
    for folder in sorted(p for p in (weights / DRAFTS).glob("*") if p.is_dir()):
        lock = _lock_of(folder)
        try:
            lock.acquire(0, _silent)
        except RegistryError:
            continue
        try:
            removed.append(Orphan(kind="draft", name=f"{weights.name}/{folder.name}", size=size_of(folder)))
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            lock.release()
    return removed


def _lock_of(folder: Path) -> WriterLock:
    return WriterLock(folder.with_suffix(".lock"))
