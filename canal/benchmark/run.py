"""The table: what is there already is kept, the rest is run, one process a cell."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canal.benchmark.method import Method
from canal.benchmark.plan import Options, Order, Place, command_of, key_of, order_text, places
from canal.benchmark.stream import Stream, read_stream, stream_digest
from canal.errors import ConfigError
from canal.progress import Progress

MARK = "benchmark.json"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One cell of the table and what came of it: the plain values of `run_method`, or a reason."""

    place: Place
    values: dict[str, Any]

    @property
    def done(self) -> bool:
        """Tell whether there are figures."""
        return bool(self.values["status"] == "done")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """All results of one table."""

    options: Options
    stream: Stream
    digest: str
    methods: tuple[Method, ...]
    orders: tuple[Order, ...]
    seeds: tuple[int, ...]
    results: tuple[Result, ...]
    kept: int

    def of(self, method: Method) -> list[Result]:
        """Return the results of one row."""
        return [r for r in self.results if r.place.method.name == method.name]


def run_benchmark(
    options: Options,
    methods: Sequence[Method],
    orders: Sequence[Order],
    seeds: Sequence[int],
    progress: Progress,
    *,
    only_kept: bool = False,
) -> Benchmark:
    """Fill the table.

    Parameters
    ----------
    options
        Stream, folder of the results and what else all cells have in common.
    methods, orders, seeds
        Rows, orders of the stages, and seeds.
    progress
        Told about every cell.
    only_kept
        Run nothing: show what is there already.

    Raises
    ------
    ConfigError
        If the stream cannot be read, or the folder holds something else.
    """
    with tempfile.TemporaryDirectory(prefix="canal-benchmark-") as scratch:
        stream = read_stream(options.stream, Path(scratch))
        digest = stream_digest(stream)
        _claim(options.out)
        todo = places(methods, orders, seeds)
        progress.start(len(todo), f"{stream.name}: {len(methods)} methods, {len(todo)} runs")
        results, kept = [], 0
        for place in todo:
            found = _kept(place, options, digest)
            kept += found is not None
            if found is None and only_kept:
                found = {"status": "missing", "reason": "asked for what is there", "method": place.method.name}
            if found is None:
                progress.advance(0, f"{place.method.name}, order {order_text(place.order)}, seed {place.seed}")
                found = _run(place, options, digest, Path(scratch))
            results.append(Result(place=place, values=found))
            progress.advance(1)
        progress.close()
    return Benchmark(
        options=options, stream=stream, digest=digest, methods=tuple(methods), orders=tuple(orders),
        seeds=tuple(seeds), results=tuple(results), kept=kept,
    )  # fmt: skip


def _claim(out: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARK).is_file())):
        message = f"{out} holds something else than a benchmark. Name another folder with --out."
        raise ConfigError(message)
    (out / "cells").mkdir(parents=True, exist_ok=True)
    if not (out / MARK).is_file():
        (out / MARK).write_text("{}\n", encoding="utf-8")


def _kept(place: Place, options: Options, digest: str) -> dict[str, Any] | None:
    """Return a finished result of the same inputs; others are run again."""
    file = options.out / place.file
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    same = isinstance(values, dict) and values.get("key") == key_of(place, options, digest)
    if not same or values.get("status") != "done":
        return None
    return {**values, "command": _command(place, options)}  # the folder may have moved since


def _run(place: Place, options: Options, digest: str, scratch: Path) -> dict[str, Any]:
    """Run one cell in a process of its own and keep its result."""
    task, answer = scratch / "task.json", scratch / "result.json"
    answer.unlink(missing_ok=True)
    task.write_text(json.dumps(_task(place, options)), encoding="utf-8")
    file = options.out / place.file
    file.parent.mkdir(parents=True, exist_ok=True)
    log = file.with_suffix(".log")
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            [sys.executable, "-m", "canal.benchmark.worker", str(task), str(answer)],
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False, env=_environment(),
        )  # fmt: skip
    if answer.is_file() and done.returncode == 0:
        values = json.loads(answer.read_text(encoding="utf-8"))
    else:
        values = {"status": "failed", "reason": _death(done.returncode, log)}
    if values["status"] != "failed":
        log.unlink()
    values = {
        "key": key_of(place, options, digest),
        "method": place.method.name,
        "order": [i + 1 for i in place.order],
        "seed": place.seed,
        "command": _command(place, options),
        **values,
    }
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)
    return values


def _command(place: Place, options: Options) -> str:
    return command_of(place.method, [place.order], [place.seed], options)


def _task(place: Place, options: Options) -> dict[str, Any]:
    return {
        "stream": options.stream,
        "method": place.method.name,
        "order": place.order,
        "seed": place.seed,
        "preset": options.preset_name,
        "overrides": options.overrides,
        "markers": str(options.markers) if options.markers else None,
        "peers": str(options.peers) if options.peers else None,
    }


def _environment() -> dict[str, str]:
    """Return the environment with this very package first: the worker must be of the same version."""
    import canal

    here = str(Path(canal.__file__).parents[1])
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, before] if before else [here])}


def _death(code: int, log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = f": {lines[-1]}" if lines else ""
    if code < 0:
        return f"its process was ended by signal {-code}{last}"[:400]
    return f"its process left with exit code {code}{last}"[:400]
