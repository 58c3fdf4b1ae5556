"""Run a command and measure it: seconds, seconds of computing, and its largest memory."""

import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CANAL = (sys.executable, "-c", "from canal.cli.main import main; main()")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a command took.

    Attributes
    ----------
    seconds, cpu
        Time on the wall and on all cores, from the start of the process to its end.
    peak
        Largest resident memory in MB.
    output
        What it printed.
    """

    seconds: float
    cpu: float
    peak: float
    output: str


def run(command: Sequence[object], folder: Path | None = None) -> Run:
    """Run a command to its end; stop everything if it fails."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{output}")
    return Run(seconds=seconds, cpu=used.ru_utime + used.ru_stime, peak=used.ru_maxrss / 1024, output=output)


def canal(*arguments: object, folder: Path) -> Run:
    """Run canal in a workspace."""
    return run([*CANAL, "-C", folder, *arguments])


def write_cells(path: Path, **recipe: object) -> None:
    """Generate a file in another process: a command's peak is never less than what its parent held at its start.

    Parameters
    ----------
    path
        File to write.
    recipe
        Fields of `benchmarks.generate.Recipe`.
    """
    process = multiprocessing.get_context("spawn").Process(target=_generate, args=(path, recipe))
    process.start()
    process.join()
    assert process.exitcode == 0, path


def machine() -> str:
    """Return processor, cores, memory and the load by others, for the head of a table."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB; load before the run {load:.1f}"


def fresh(folder: Path) -> Path:
    """Return an empty folder of this name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _generate(path: Path, recipe: dict[str, Any]) -> None:
    from benchmarks.generate import Recipe, write

    write(Recipe(**recipe), path)
