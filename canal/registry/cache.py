"""What was computed from the registry once, kept under the digest of everything that went into it.

Nothing here is part of a stage: it can be deleted at any time, and is computed again then.

Copies that can be fetched or computed again, and how much room they may take.

::

    cache/<run>/model/...     all files of a stage, fetched from a server
    cache/files/<sha256>/...  one file of a stage, fetched from a server
    cache/computed/<key>.json answers of `canal.registry.cache`
"""

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from canal import __version__
from canal.files import digest_bytes, write_whole


def key_of(kind: str, **inputs: Any) -> str:
    """Return the key of a computation: the digest of its kind, of all its inputs and of canal's version.

    Parameters
    ----------
    kind
        What is computed.
    inputs
        Plain values; whatever may change the answer, files by their digests.
    """
    text = json.dumps({"kind": kind, "canal": __version__, **inputs}, sort_keys=True, ensure_ascii=False)
    return digest_bytes(text.encode()).removeprefix("sha256:")


class Memo:
    """Answers as JSON, one file each.

    Parameters
    ----------
    folder
        Where they are; made with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> Any:
        """Return an answer, ``None`` where there is none or its file was altered."""
        path = self.folder / f"{key}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["key"] != key or kept["digest"] != _digest(kept["answer"]):
                return None
            os.utime(path)  # `canal registry gc` deletes what was not used for longest
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return kept["answer"]

    def put(self, key: str, answer: Any) -> None:
        """Keep an answer; where the folder cannot be written it is computed again the next time."""
        table = {"key": key, "digest": _digest(answer), "answer": answer}
        with contextlib.suppress(OSError):
            write_whole(self.folder / f"{key}.json", json.dumps(table, ensure_ascii=False).encode())


def _digest(answer: Any) -> str:
    return digest_bytes(json.dumps(answer, sort_keys=True, ensure_ascii=False).encode())


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
