"""Writers of decisions that are killed, and writers at the same time: ``python -m tests.unit.review.crowd MODE FILE``.

It forks its writers, which no process with threads may do. Each tells the ids that were acknowledged through a pipe.
"""

import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from canal.review.journal import Journal
from canal.review.values import Decision

KILLS = 50
LINES = 25
WRITERS = 8
LONG = 100_000  # letters of a comment: a line that takes long enough to write for a kill to come in the midst of it


def write(path: Path, writer: str, lines: int, told: int, length: int) -> None:
    """Append lines; tell the id of each once it was acknowledged."""
    journal = Journal(path)
    for number in range(lines):
        key = f"{writer}-{number}"
        decision = Decision(id=key, user=writer, time="", action="comment", payload={"text": "x" * length})
        journal.append(lambda _new, decision=decision: decision)
        os.write(told, f"{key}\n".encode())


def fork(path: Path, writer: str, lines: int, length: int) -> tuple[int, int]:
    """Start a writer; return its process and the pipe to read from."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    os.close(reading)
    write(path, writer, lines, writing, length)
    os._exit(0)


def acknowledged(pipe: int) -> list[str]:
    """Return the ids that a writer told, which has ended."""
    with os.fdopen(pipe) as file:
        return file.read().split("\n")[:-1]


def killed(path: Path) -> list[str]:
    """Kill writers at random moments; return what was acknowledged."""
    rng = random.Random(0)
    ids = []
    for number in range(KILLS):
        process, pipe = fork(path, f"w{number}", 1_000, LONG if number % 4 == 1 else 10)
        if number % 5:  # a few are killed before their first line, most of them later
            select.select([pipe], [], [])
        time.sleep(rng.uniform(0.0, 0.03))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        ids += acknowledged(pipe)
    return ids


def together(path: Path) -> list[str]:
    """Let several write at once; return what was acknowledged."""
    writers = [fork(path, f"w{number}", LINES, 1_000) for number in range(WRITERS)]
    ids = []
    for process, pipe in writers:
        ids += acknowledged(pipe)
        assert os.waitpid(process, 0)[1] == 0
    return ids


if __name__ == "__main__":
    mode, file = sys.argv[1:]
    Journal(Path(file)).create({"reviewed": "cells.h5ad"})
    print(json.dumps({"killed": killed, "together": together}[mode](Path(file))))  # noqa: T201
