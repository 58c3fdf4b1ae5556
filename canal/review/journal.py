"""The file of decisions: JSON lines that are only ever appended, and that no crash and no second writer can lose.

The first line, the head, says what is reviewed; each further line is one `Decision`. A line without a line feed at its
end is of a writer that was killed while it wrote: it was never acknowledged, and is put aside beside the file.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canal.errors import DataError
from canal.files import refuse_newer, sync_folder
from canal.review.values import Decision

FORMAT = 1
KIND = "canal review"


@dataclass(frozen=True, kw_only=True)
class Torn:
    """What a writer that was killed left behind the last whole line: where it was put, and how many bytes."""

    path: Path
    bytes: int

    def __str__(self) -> str:
        """Return one sentence for a person."""
        return (
            f"The last line of the decisions was cut off ({self.bytes} bytes) when canal was killed; it was never "
            f"acknowledged, and stands in {self.path} now."
        )


class Journal:
    """The decisions of one review, in their file; several processes and threads may append at once.

    Every line is written whole under the kernel's lock on the file (``flock``), which a killed process gives back.

    Parameters
    ----------
    path
        The file; `create` makes it.

    Attributes
    ----------
    notes
        What was put aside or cannot be read, a sentence each.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self._head: dict[str, Any] | None = None
        self._offset = 0  # bytes that were read, up to the end of a whole line
        self._line = 0  # lines that were read
        self._file: tuple[int, int] | None = None  # device and number of the file that was read
        self._lock = threading.RLock()  # of this object; other processes are held off by the lock on the file

    @property
    def exists(self) -> bool:
        """Whether the file is there and has its first line."""
        try:
            with self.path.open("rb") as file:
                return file.readline().endswith(b"\n")
        except FileNotFoundError:
            return False

    def create(self, head: dict[str, Any]) -> None:
        """Write the first line, where there is none yet.

        Parameters
        ----------
        head
            What is reviewed; plain values.

        Raises
        ------
        DataError
            If the file cannot be written.
        """
        with self._lock, self._open_alone(create=True) as handle:
            self._set_torn_aside(handle)
            if os.fstat(handle).st_size == 0:
                _write_line(handle, {"format": FORMAT, "kind": KIND, **head}, self.path)
        with suppress(OSError):  # a folder that cannot be synchronised; the file itself is on disk
            sync_folder(self.path.parent)

    def head(self) -> dict[str, Any]:
        """Return the first line.

        Raises
        ------
        DataError
            If the file is no file of decisions, or a newer canal wrote it.
        """
        with self._lock:
            if self._head is None:
                try:
                    with self.path.open("rb") as file:
                        first = file.readline()
                except OSError as error:
                    message = f"{self.path} cannot be read: {error.strerror}. Check your rights there."
                    raise DataError(message) from error
                self._head = self._checked_head(first)
                self._offset, self._line = len(first), 1
            return self._head

    def _checked_head(self, line: bytes) -> dict[str, Any]:
        table = _parsed(line)
        if table is None or table.get("kind") != KIND:
            message = (
                f"{self.path} is no file of decisions: its first line is not that of canal review. Move it away, or "
                "restore it."
            )
            raise DataError(message)
        refuse_newer(self.path, table.get("format"), FORMAT, DataError)
        return table

    def read_new(self) -> list[Decision]:
        """Return the whole lines that were not returned before, in order.

        Raises
        ------
        DataError
            If the file is gone, is no file of decisions, or was replaced since it was opened.
        """
        with self._lock:
            try:
                handle = os.open(self.path, os.O_RDONLY)
            except OSError as error:
                message = f"{self.path} cannot be read: {error.strerror}. Restore the file, or open the review again."
                raise DataError(message) from error
            try:
                return self._read(handle)
            finally:
                os.close(handle)

    def append(self, make: Callable[[list[Decision]], Decision | None]) -> Decision | None:
        """Append one decision, alone: nobody else writes meanwhile; it is on disk when this returns.

        Parameters
        ----------
        make
            Given the lines that others appended since the last reading; returns the decision to write, ``None`` to
            write nothing, or raises.

        Raises
        ------
        DataError
            If it cannot be written; nothing of it is in the file then.
        """
        with self._lock, self._open_alone() as handle:
            # 1. What others wrote; what somebody who was killed began to write.
            self._set_torn_aside(handle)
            decision = make(self._read(handle))
            if decision is None:
                return None
            # 2. One line, on disk before anybody hears that it was taken.
            self._offset += _write_line(handle, decision.to_dict(), self.path)
            self._line += 1
            return decision

    @contextmanager
    def _open_alone(self, *, create: bool = False) -> Iterator[int]:
        """Open the file for appending as its only writer."""
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0), 0o664)
        except OSError as error:
            message = (
                f"{self.path} cannot be written: {error.strerror}. The decisions stand beside what is reviewed: ask "
                "for the right to write in that folder, or copy what is reviewed to one of your own."
            )
            raise DataError(message) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)  # gives the lock back

    def _read(self, handle: int) -> list[Decision]:
        """Return the whole lines behind those that were read before."""
        facts = os.fstat(handle)
        if self._file is not None and (facts.st_dev, facts.st_ino) != self._file:
            message = f"{self.path} is another file than the one that was opened. Open the review again."
            raise DataError(message)
        self._file = (facts.st_dev, facts.st_ino)
        self.head()
        content = _read_from(handle, self._offset)
        whole = content[: content.rfind(b"\n") + 1]  # somebody may be writing the line behind
        decisions = []
        for line in whole.splitlines(keepends=True):
            self._line += 1
            decision = _decision_of(line)
            if decision is None:
                self.notes.append(f"Line {self._line} of {self.path} cannot be read and counts for nothing.")
            else:
                decisions.append(decision)
        self._offset += len(whole)
        return decisions

    def _set_torn_aside(self, handle: int) -> None:
        """Move what stands behind the last whole line to another file; only while nobody else can write."""
        size = os.fstat(handle).st_size
        if size == 0 or _read_from(handle, size - 1) == b"\n":
            return
        content = _read_from(handle, 0)
        whole = content.rfind(b"\n") + 1
        aside = self.path.with_name(f"{self.path.name}.torn")
        try:
            with aside.open("ab") as file:
                file.write(content[whole:] + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.ftruncate(handle, whole)
            os.fsync(handle)
        except OSError as error:
            message = f"{self.path} ends in half a line, which cannot be put aside: {error}. Check the free space."
            raise DataError(message) from error
        self.notes.append(str(Torn(path=aside, bytes=len(content) - whole)))


def _write_line(handle: int, table: dict[str, Any], path: Path) -> int:
    """Write one line at the end of an open file and bring it to disk; return its bytes. A failure leaves none."""
    size = os.fstat(handle).st_size
    try:
        line = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    except UnicodeEncodeError as error:
        message = f"{path}: {error.object[error.start : error.end]!r} is no text that can be written. Write it anew."
        raise DataError(message) from error
    except OSError as error:
        with suppress(OSError):  # of a disk that has become read-only; what is left has no line feed at its end
            os.ftruncate(handle, size)
        message = f"{path} cannot be written: {error}. The decision was not taken; check the free space."
        raise DataError(message) from error
    return len(line)


_AT_ONCE = 1 << 24  # bytes


def _read_from(handle: int, start: int) -> bytes:
    """Return what stands in an open file from a place to its end."""
    parts = []
    while part := os.pread(handle, _AT_ONCE, start):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        table = json.loads(line)
    except ValueError:
        return None
    return table if isinstance(table, dict) else None


def _decision_of(line: bytes) -> Decision | None:
    """Return the decision of a line, ``None`` where it is none; fields that only a newer canal knows are left out."""
    table = _parsed(line)
    if table is None or not all(isinstance(table.get(name), str) for name in ("id", "user", "time", "action")):
        return None
    payload = table.get("payload")
    return Decision(
        id=table["id"],
        user=table["user"],
        time=table["time"],
        action=table["action"],
        group=str(table.get("group", "")),
        digest=str(table.get("digest", "")),
        payload=payload if isinstance(payload, dict) else {},
    )
