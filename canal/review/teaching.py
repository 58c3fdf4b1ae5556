"""Teaching of named groups: a process of its own learns the next stage as a candidate, and says what it would change.

A teaching is a folder, ``taught/001``: what is asked for (`REQUEST`), the cells (`CELLS`, which the stage is tested on
from then on), how far it is (`PROGRESS`), and what came of it (`RESULT` or `ERROR`). So it goes on where the page's
server is killed, and any process can say how far it is. Whether it still runs tells the lock on its folder, which the
kernel takes from a process that ends.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from canal.errors import StageError
from canal.files import write_file_whole, write_whole
from canal.progress import Progress
from canal.report.annotation import Annotation
from canal.review.values import GroupState, Teaching, TeachingResult

REQUEST, ROWS, NAMES, CELLS, PROGRESS, RESULT, ERROR, LOG, LOCK = (
    "request.json",
    "rows.npy",
    "names.npy",
    "cells.h5ad",
    "progress.json",
    "result.json",
    "error.json",
    "log.txt",
    "lock",
)
FEWEST_CELLS = 2  # of a type, for one to be held out
LABELS = "cell_type"  # column of the names in the file of cells


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """The cells to teach.

    Attributes
    ----------
    rows
        Positions of the cells in the reviewed file, ascending, (cells,).
    names
        Their types, (cells,).
    types, known
        Named cells by name; cells that are surely of known types, by type.
    groups
        ``id``, ``digest``, ``name`` and ``cells`` of each group.
    """

    rows: np.ndarray
    names: np.ndarray
    types: dict[str, int]
    known: dict[str, int]
    groups: tuple[dict[str, Any], ...] = field(default=())


def lesson_of(
    states: Sequence[GroupState], annotation: Annotation, seed: int, *, approved: bool, taught: set[tuple[str, str]]
) -> Lesson:
    """Return the cells of the named groups, and some of known types along with them, as `canal novel name` has them.

    Parameters
    ----------
    states
        The live groups.
    annotation
        What the model says of all cells.
    seed
        Draws the known cells.
    approved
        Only groups that a second person approved.
    taught
        Digest and name of groups that were taught already: they are left out.

    Raises
    ------
    StageError
        If there is nothing to teach, or a name has too few cells.
    """
    from canal.novel.find import sure_cells

    # 1. The groups with a name that holds.
    wanted = ("approved",) if approved else ("approved", "decided")
    named = [state for state in states if state.name and state.status in wanted]
    chosen = [state for state in named if (state.group.digest, state.name) not in taught]
    if not chosen:
        raise StageError(_nothing_to_teach(states, named, approved=approved))
    rows = [state.group.rows for state in chosen]
    names = [np.full(state.group.cells, state.name, dtype=object) for state in chosen]
    types: dict[str, int] = {}
    for state in chosen:
        types[state.name] = types.get(state.name, 0) + state.group.cells
    few = [f"{name} ({cells})" for name, cells in types.items() if cells < FEWEST_CELLS]
    if few:
        message = (
            f"{', '.join(few)}: a type needs {FEWEST_CELLS} cells at least to be taught. Merge the group with another, "
            "or reject it."
        )
        raise StageError(message)
    # 2. Cells that are surely of known types, from outside all groups: they balance the stage.
    free = np.ones(len(annotation), dtype=bool)
    for state in states:
        free[state.group.rows] = False
    sure = sure_cells(annotation, free, seed) if "status" in annotation.columns else np.zeros(0, np.int64)
    sure = sure[~np.isin(annotation.cell_type[sure].astype(str), list(types))]
    known: dict[str, int] = {}
    for name in annotation.cell_type[sure].tolist():
        known[str(name)] = known.get(str(name), 0) + 1
    # 3. All of them in the order of the file.
    all_rows = np.concatenate([*rows, sure])
    all_names = np.concatenate([*names, annotation.cell_type[sure].astype(object)])
    order = np.argsort(all_rows, kind="stable")
    groups = tuple(
        {"id": state.group.id, "digest": state.group.digest, "name": state.name, "cells": state.group.cells}
        for state in chosen
    )
    return Lesson(
        rows=all_rows[order], names=all_names[order], types=types, known=dict(sorted(known.items())), groups=groups
    )


def _nothing_to_teach(states: Sequence[GroupState], named: Sequence[GroupState], *, approved: bool) -> str:
    if named:
        return "Every named group was taught already. Name further ones, or change a name."
    conflicts = sum(state.status == "conflict" for state in states)
    if approved and any(state.name for state in states):
        return "No named group is approved by a second person yet. Approve one, or teach all that are named."
    told = f" {conflicts} groups are in conflict: settle them first." if conflicts else ""
    return f"No group has a name that holds: there is nothing to teach.{told} Name a group."


class Teachings:
    """The teachings of one review.

    Parameters
    ----------
    folder
        ``taught/`` of the review.
    review
        Says which decisions they belong to: a review that began anew has none yet, whatever was taught before.
    """

    def __init__(self, folder: Path, review: str) -> None:
        self._folder, self._review = folder, review

    def next_number(self) -> int:
        """Return the number of the next teaching: none is used twice, also where a review began anew."""
        return max(self._all(), default=0) + 1

    def numbers(self) -> list[int]:
        """Return the numbers of the teachings of this review so far, ascending."""
        numbers = []
        for number in self._all():
            # One without a request was never begun: its writer was killed.
            if (self.folder(number) / REQUEST).is_file() and self.request(number).get("review") == self._review:
                numbers.append(number)
        return numbers

    def _all(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit())

    def folder(self, number: int) -> Path:
        """Return the folder of a teaching."""
        return self._folder / f"{number:03d}"

    def begin(self, number: int, lesson: Lesson, request: Mapping[str, Any]) -> None:
        """Write a teaching down and start its process.

        Parameters
        ----------
        number
            As `next_number` returned it.
        lesson
            The cells.
        request
            What else the process has to know; plain values.

        Raises
        ------
        StageError
            If the folder of the teaching cannot be written.
        """
        folder = self.folder(number)
        facts = {
            **request,
            "review": self._review,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "types": lesson.types,
            "known": lesson.known,
            "groups": list(lesson.groups),
        }
        try:
            folder.mkdir(parents=True)
            np.save(folder / ROWS, lesson.rows)
            np.save(folder / NAMES, lesson.names.astype(str))
            write_whole(folder / REQUEST, json.dumps(facts).encode())
        except OSError as error:
            message = (
                f"{folder} cannot be written: {error.strerror}. Nothing was taught: the cells of a stage are kept "
                "there. Check the free space and your right to write there."
            )
            raise StageError(message) from error
        self._start(folder)

    def _start(self, folder: Path) -> None:
        # The lock is taken here and handed on: from now until its end the process holds it.
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o664)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with (folder / LOG).open("wb") as log:
                process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "canal.review.learner",
                        str(folder),
                    ],  # -P: no module of the working folder
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock,),
                    start_new_session=True,  # it goes on where the server ends
                )
            os.pwrite(lock, str(process.pid).encode(), 0)
        finally:
            os.close(lock)
        _ended.append(process)

    def runs(self, number: int) -> bool:
        """Tell whether the process of a teaching is alive."""
        for process in [*_ended]:  # ask, so that one that has ended is no zombie
            if process.poll() is not None:
                _ended.remove(process)
        try:
            lock = os.open(self.folder(number) / LOCK, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def stop(self, number: int) -> None:
        """End the process of a teaching, where it runs; what it has not committed is gone."""
        if not self.runs(number):
            return
        with suppress(ValueError, ProcessLookupError):
            os.kill(int((self.folder(number) / LOCK).read_text(encoding="ascii")), signal.SIGTERM)

    def request(self, number: int) -> dict[str, Any]:
        """Return what was asked for."""
        table: dict[str, Any] = json.loads((self.folder(number) / REQUEST).read_text(encoding="utf-8"))
        return table

    def teaching(self, number: int) -> Teaching:
        """Return how far a teaching is, as its folder says."""
        folder, request = self.folder(number), self.request(number)
        told: dict[str, Any] = {"id": number, "user": request["user"], "started": request["started"]}
        told |= {"types": request["types"], "known": request["known"]}
        alive = self.runs(number)  # asked first: what it wrote before it ended is there then
        if (folder / RESULT).is_file():
            result = TeachingResult.from_dict(json.loads((folder / RESULT).read_text(encoding="utf-8")))
            return Teaching(**told, state="done", step="done", result=result)
        if (folder / ERROR).is_file():
            error = json.loads((folder / ERROR).read_text(encoding="utf-8"))["error"]
            return Teaching(**told, state="failed", error=error)
        if not alive:
            last = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            error = f"The process that taught was ended before it was done. {' '.join(last)} Teach again.".replace(
                "  ", " "
            )
            return Teaching(**told, state="failed", error=error)
        try:
            step = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            step = {"step": "starting", "done": 0, "total": 0}
        return Teaching(**told, state="running", step=step["step"], done=step["done"], total=step["total"])


_ended: list["subprocess.Popen[bytes]"] = []  # processes that were started here and may have ended


class FileProgress(Progress):
    """Progress that is written to a file, a few times a second at most.

    Parameters
    ----------
    path
        The file.
    """

    SECONDS = 0.2

    def __init__(self, path: Path) -> None:
        self._path = path
        self._step, self._done, self._total, self._last = "", 0, 0, 0.0

    def start(self, total_steps: int, description: str) -> None:
        """Begin a piece of work."""
        self._step, self._done, self._total = description, 0, total_steps
        self._write()

    def advance(self, steps: int, note: str = "") -> None:  # noqa: ARG002
        """Tell that more is done."""
        import time

        self._done += steps
        if time.monotonic() - self._last > self.SECONDS:
            self._last = time.monotonic()
            self._write()

    def close(self) -> None:
        """End a piece of work."""

    def _write(self) -> None:
        text = json.dumps({"step": self._step, "done": self._done, "total": self._total})
        write_file_whole(self._path, lambda path: path.write_text(text, encoding="utf-8"))
