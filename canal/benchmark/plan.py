"""The runs of a benchmark - method x order of the stages x seed - and what identifies each of them."""

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from canal.benchmark.method import Method
from canal.config import Preset, dump_preset, load_preset
from canal.errors import ConfigError
from canal.seeds import numpy_generator

Order = tuple[int, ...]  # positions of the stages, from 0
FORMAT = 1  # of a stored result; a result of another format is not taken for the same
DEFAULT_PRESET = "compact"
MOST_DRAWS = 1000  # of an order at random, for few stages have few orders


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What all runs of a benchmark have in common, as the command line gives it.

    Attributes
    ----------
    stream
        File, folder or name of the stream.
    out
        Folder of the results.
    preset_name, overrides, preset
        Preset of the methods that train our encoder.
    markers, peers
        As in `canal.benchmark.method.Context`.
    """

    stream: str
    out: Path
    preset_name: str
    overrides: tuple[str, ...]
    preset: Preset
    markers: Path | None
    peers: Path | None

    @classmethod
    def load(
        cls,
        stream: str,
        *,
        out: Path | None,
        preset_name: str,
        overrides: tuple[str, ...],
        markers: Path | None,
        peers: Path | None,
    ) -> Self:
        """Load the preset; results go to ``benchmark-STREAM`` where no folder is named.

        Raises
        ------
        ConfigError
            If no stream is named, or the preset or an override does not fit.
        """
        if not stream:
            message = "No stream is named. Name one with --stream: a TOML file of stages, a folder, or demo."
            raise ConfigError(message)
        return cls(
            stream=stream,
            out=out or Path(f"benchmark-{Path(stream).stem}"),
            preset_name=preset_name,
            overrides=overrides,
            preset=load_preset(preset_name, overrides),
            markers=markers,
            peers=peers,
        )


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One method on the stages in one order, with one seed."""

    method: Method
    order: Order
    seed: int

    @property
    def file(self) -> str:
        """Where its result is kept, below the folder of the results."""
        safe_name = re.sub(r"[^A-Za-z0-9._+-]+", "_", self.method.name)
        return f"cells/{safe_name}/{order_text(self.order)}.seed{self.seed}.json"


def plan_runs(methods: Sequence[Method], orders: Sequence[Order], seeds: Sequence[int]) -> list[PlannedRun]:
    """Return all runs of the table; a method that draws nothing at random has the first seed alone."""
    runs = []
    for method in methods:
        for order in orders:
            for seed in seeds if method.seeded else seeds[:1]:
                runs.append(PlannedRun(method=method, order=order, seed=seed))
    return runs


def order_text(order: Order) -> str:
    """Return an order as it is written: ``2-1-3``."""
    return "-".join(str(position + 1) for position in order)


def parse_orders(text: str, n_stages: int) -> tuple[Order, ...]:
    """Return orders from a number of them, or from a list such as ``1-2-3,3-2-1``.

    Of a number the first is as declared, the second swaps neighbours, the third is reversed, others are drawn.

    Raises
    ------
    ConfigError
        If it is neither, or an order does not have every stage once.
    """
    if text.isdigit() and int(text) > 0:
        return _first_orders(int(text), n_stages)
    orders = []
    for part in text.split(","):
        numbers = part.strip().split("-")
        if not all(n.isdigit() for n in numbers) or sorted(map(int, numbers)) != list(range(1, n_stages + 1)):
            message = (
                f"--orders {text!r}: {part.strip()!r} is no order of {n_stages} stages. Expected a number of orders, "
                f"or orders such as {order_text(tuple(range(n_stages)))} separated by commas."
            )
            raise ConfigError(message)
        orders.append(tuple(int(n) - 1 for n in numbers))
    return tuple(dict.fromkeys(orders))  # each once


def _first_orders(count: int, n_stages: int) -> tuple[Order, ...]:
    """Return as many orders as wanted, fewer where the stages have fewer."""
    # Three that are the same for everybody: as declared, neighbours swapped, reversed.
    declared = tuple(range(n_stages))
    swapped = list(declared)
    for i in range(1, n_stages, 2):
        swapped[i - 1], swapped[i] = swapped[i], swapped[i - 1]
    orders = list(dict.fromkeys([declared, tuple(swapped), declared[::-1]]))[:count]
    # The others are drawn, always the same ones.
    generator = numpy_generator(0, "benchmark orders")
    for _ in range(MOST_DRAWS):
        if len(orders) == count:
            break
        order = tuple(int(i) for i in generator.permutation(n_stages))
        if order not in orders:
            orders.append(order)
    return tuple(orders)


def run_key(run: PlannedRun, options: BenchmarkOptions, stream_digest: str) -> str:
    """Return the digest of all that decides the result of a run, so that no other result is taken for it."""
    import canal

    markers = options.markers.read_text(encoding="utf-8") if options.markers else None
    decisive: dict[str, Any] = {
        "format": FORMAT,
        "canal": canal.__version__,
        "method": run.method.name,
        "order": run.order,
        "seed": run.seed,
        "stream": stream_digest,
        "preset": dump_preset(options.preset),
        "markers": markers,
    }
    return "sha256:" + hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def benchmark_command(method: Method, orders: Sequence[Order], seeds: Sequence[int], options: BenchmarkOptions) -> str:
    """Return the command line that repeats one row of the table, or one run."""
    words = ["canal", "benchmark", "--stream", options.stream, "--methods", method.name]
    words += ["--orders", ",".join(map(order_text, orders)), "--seeds", str(len(seeds))]
    # What is as the defaults are is left out.
    if seeds[0]:
        words += ["--first-seed", str(seeds[0])]
    if options.preset_name != DEFAULT_PRESET:
        words += ["--preset", options.preset_name]
    for override in options.overrides:
        words += ["--set", override]
    if options.markers:
        words += ["--markers", str(options.markers)]
    if options.peers:
        words += ["--peers", str(options.peers)]
    return shlex.join([*words, "--out", str(options.out)])
