"""The runs of a benchmark: results that are there already are kept, the others are made, each in its own process."""

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
from canal.benchmark.plan import (
    BenchmarkOptions,
    Order,
    PlannedRun,
    benchmark_command,
    order_text,
    plan_runs,
    run_key,
)
from canal.benchmark.stream import Stream, read_stream, stream_digest
from canal.errors import ConfigError
from canal.progress import Progress

MARK_FILE = "benchmark.json"  # marks a folder as that of a benchmark
LONGEST_REASON = 400  # characters of a failure that go into the table


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one run: the plain values of `canal.benchmark.worker.run_method`, or a reason."""

    run: PlannedRun
    values: dict[str, Any]

    @property
    def done(self) -> bool:
        """Tell whether there are figures."""
        return bool(self.values["status"] == "done")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """All results of one table.

    Attributes
    ----------
    options
        What all runs have in common.
    stream, digest
        The stages, and the digest of their declaration and files.
    methods, orders, seeds
        Rows, orders of the stages, and seeds.
    results
        One for each run.
    kept_runs
        Runs whose result was there already.
    """

    options: BenchmarkOptions
    stream: Stream
    digest: str
    methods: tuple[Method, ...]
    orders: tuple[Order, ...]
    seeds: tuple[int, ...]
    results: tuple[Result, ...]
    kept_runs: int

    def results_of(self, method: Method) -> list[Result]:
        """Return the results of one row."""
        return [result for result in self.results if result.run.method.name == method.name]


def run_benchmark(
    options: BenchmarkOptions,
    methods: Sequence[Method],
    orders: Sequence[Order],
    seeds: Sequence[int],
    progress: Progress,
    *,
    only_kept: bool,
) -> Benchmark:
    """Make all runs that are not there already.

    Parameters
    ----------
    options
        Stream, folder of the results and what else all runs have in common.
    methods, orders, seeds
        Rows, orders of the stages, and seeds.
    progress
        Told about every run.
    only_kept
        Run nothing: show what is there already.

    Raises
    ------
    ConfigError
        If the stream cannot be read, or the folder holds something else.
    """
    with tempfile.TemporaryDirectory(prefix="canal-benchmark-") as scratch:
        # The digest of the stream tells which results are of the same inputs.
        stream = read_stream(options.stream, Path(scratch))
        digest = stream_digest(stream)
        _claim_folder(options.out)
        runs = plan_runs(methods, orders, seeds)
        progress.start(len(runs), f"{stream.name}: {len(methods)} methods, {len(runs)} runs")
        results, kept_runs = [], 0
        for run in runs:
            # One after the other, so that times and memory are those of a single run.
            values = _read_result(run, options, digest)
            if values is not None:
                kept_runs += 1
            elif only_kept:
                values = {"status": "missing", "reason": "asked for what is there", "method": run.method.name}
            else:
                progress.advance(0, f"{run.method.name}, order {order_text(run.order)}, seed {run.seed}")
                values = _run_in_process(run, options, digest, Path(scratch))
            results.append(Result(run=run, values=values))
            progress.advance(1)
        progress.close()
    return Benchmark(
        options=options,
        stream=stream,
        digest=digest,
        methods=tuple(methods),
        orders=tuple(orders),
        seeds=tuple(seeds),
        results=tuple(results),
        kept_runs=kept_runs,
    )


def _claim_folder(out: Path) -> None:
    """Mark a new or empty folder as that of a benchmark; refuse one that holds something else."""
    mark = out / MARK_FILE
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not mark.is_file())):
        message = f"{out} holds something else than a benchmark. Name another folder with --out."
        raise ConfigError(message)
    (out / "cells").mkdir(parents=True, exist_ok=True)
    if not mark.is_file():
        mark.write_text("{}\n", encoding="utf-8")


def _read_result(run: PlannedRun, options: BenchmarkOptions, digest: str) -> dict[str, Any] | None:
    """Return a finished result of the same inputs; ``None`` where the run has to be made."""
    file = options.out / run.file
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    same = isinstance(values, dict) and values.get("key") == run_key(run, options, digest)
    if not same or values.get("status") != "done":
        return None
    return {**values, "command": _run_command(run, options)}  # the folder may have moved since


def _run_in_process(run: PlannedRun, options: BenchmarkOptions, digest: str, scratch: Path) -> dict[str, Any]:
    """Make one run in a process of its own and keep its result."""
    # The worker reads a task and writes a result; what it prints goes to a log beside the kept result.
    task, result = scratch / "task.json", scratch / "result.json"
    result.unlink(missing_ok=True)
    task.write_text(json.dumps(_task(run, options)), encoding="utf-8")
    file = options.out / run.file
    file.parent.mkdir(parents=True, exist_ok=True)
    log = file.with_suffix(".log")
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.run(
            [sys.executable, "-m", "canal.benchmark.worker", str(task), str(result)],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            check=False,
            env=_environment(),
        )
    # A process that died left no result; its log says more and stays.
    if result.is_file() and process.returncode == 0:
        outcome = json.loads(result.read_text(encoding="utf-8"))
    else:
        outcome = {"status": "failed", "reason": _failure_reason(process.returncode, log)}
    if outcome["status"] != "failed":
        log.unlink()
    values = {
        "key": run_key(run, options, digest),
        "method": run.method.name,
        "order": [position + 1 for position in run.order],
        "seed": run.seed,
        "command": _run_command(run, options),
        **outcome,
    }
    # Written whole or not at all.
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)
    return values


def _run_command(run: PlannedRun, options: BenchmarkOptions) -> str:
    return benchmark_command(run.method, [run.order], [run.seed], options)


def _task(run: PlannedRun, options: BenchmarkOptions) -> dict[str, Any]:
    """Return what the worker is asked for, as plain values for JSON."""
    return {
        "stream": options.stream,
        "method": run.method.name,
        "order": run.order,
        "seed": run.seed,
        "preset": options.preset_name,
        "overrides": options.overrides,
        "markers": str(options.markers) if options.markers else None,
        "peers": str(options.peers) if options.peers else None,
    }


def _environment() -> dict[str, str]:
    """Return the environment with this very package first: the worker must be of the same version."""
    import canal

    folders = [str(Path(canal.__file__).parents[1])]
    if os.environ.get("PYTHONPATH"):
        folders.append(os.environ["PYTHONPATH"])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


def _failure_reason(exit_code: int, log: Path) -> str:
    """Tell how a process ended, with the last line of its log."""
    last_line = ""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.strip():
            last_line = f": {line.strip()}"
    ended = f"was ended by signal {-exit_code}" if exit_code < 0 else f"left with exit code {exit_code}"
    return f"its process {ended}{last_line}"[:LONGEST_REASON]
