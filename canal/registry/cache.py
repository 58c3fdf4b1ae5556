"""Copies that can be fetched or computed again, and how much room they may take.

::

    cache/<run>/model/...     all files of a stage, fetched from a server
    cache/files/<sha256>/...  one file of a stage, fetched from a server
    cache/computed/<key>.json answers of `canal.registry.memo`
"""

import contextlib
import os
import shutil
import time
from pathlib import Path

FILES, COMPUTED = "files", "computed"
LIMIT = 5_000_000_000  # bytes that the copies may take
UNUSED = 90 * 24 * 3600.0  # seconds after which a copy that nobody used goes


def mark_used(place: Path) -> None:
    """Note that a copy was used just now."""
    with contextlib.suppress(OSError):
        os.utime(place)


def entries(cache: Path) -> list[Path]:
    """Return all copies, those that were not used for longest first."""
    inner = [path for name in (FILES, COMPUTED) for path in _inside(cache / name)]
    outer = [path for path in _inside(cache) if path.name not in {FILES, COMPUTED}]
    return sorted(inner + outer, key=_last_used)


def too_much(cache: Path, limit: int = LIMIT, unused: float = UNUSED) -> list[tuple[Path, int]]:
    """Return the copies that must go, and their sizes in bytes: the unused ones, then the oldest beyond the limit."""
    found = [(path, size_of(path)) for path in entries(cache)]
    total, now = sum(size for _, size in found), time.time()
    going = []
    for path, size in found:
        if total <= limit and now - _last_used(path) < unused:
            break  # all later ones were used since
        going.append((path, size))
        total -= size
    return going


def remove(path: Path) -> None:
    """Delete a copy, if it is still there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size_of(path: Path | None) -> int:
    """Return the bytes of a file, or of all files in a folder; 0 where there is nothing."""
    if path is None or not path.exists():
        return 0
    files = [path] if path.is_file() else path.rglob("*")
    return sum(p.stat().st_size for p in files if p.is_file())


def _inside(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process deleted it
        return 0.0
