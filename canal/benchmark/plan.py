"""Which cells the table has: method x order x seed, and what each depends on."""

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canal.benchmark.method import Method
from canal.config import Preset, dump_preset
from canal.errors import ConfigError
from canal.seeds import numpy_generator

Order = tuple[int, ...]  # positions of the stages, from 0
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says; what every cell of a run has in common.

    Attributes
    ----------
    stream
        As it was named.
    out
        Folder of the results.
    preset_name, overrides, preset
        Preset of what trains our encoder.
    markers, peers
        As in `Context`.
    """

    stream: str
    out: Path
    preset_name: str
    overrides: tuple[str, ...]
    preset: Preset
    markers: Path | None
    peers: Path | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """One cell of the table: a method on the stages in one order, with one seed."""

    method: Method
    order: Order
    seed: int

    @property
    def file(self) -> str:
        """Where its result is kept, below the folder of the results."""
        safe = re.sub(r"[^A-Za-z0-9._+-]+", "_", self.method.name)
        return f"cells/{safe}/{order_text(self.order)}.seed{self.seed}.json"


def places(methods: Sequence[Method], orders: Sequence[Order], seeds: Sequence[int]) -> list[Place]:
    """Return all cells of the table; a method that draws nothing at random has the first seed alone."""
    return [
        Place(method=method, order=order, seed=seed)
        for method in methods
        for order in orders
        for seed in (seeds if method.seeded else seeds[:1])
    ]


def order_text(order: Order) -> str:
    """Return an order as it is written: ``2-1-3``."""
    return "-".join(str(i + 1) for i in order)


def parse_orders(text: str, stages: int) -> tuple[Order, ...]:
    """Return orders from a number of them, or from a list such as ``1-2-3,3-2-1``.

    Of a number the first is as declared, the second swaps neighbours, the third is reversed, others are drawn.

    Raises
    ------
    ConfigError
        If it is neither, or an order does not have every stage once.
    """
    if text.isdigit() and int(text) > 0:
        return _first_orders(int(text), stages)
    orders = []
    for part in text.split(","):
        numbers = part.strip().split("-")
        if not all(n.isdigit() for n in numbers) or sorted(map(int, numbers)) != list(range(1, stages + 1)):
            message = (
                f"--orders {text!r}: {part.strip()!r} is no order of {stages} stages. Expected a number of orders, or "
                f"orders such as {order_text(tuple(range(stages)))} separated by commas."
            )
            raise ConfigError(message)
        orders.append(tuple(int(n) - 1 for n in numbers))
    return tuple(dict.fromkeys(orders))


def _first_orders(count: int, stages: int) -> tuple[Order, ...]:
    declared = tuple(range(stages))
    swapped = tuple(i ^ 1 if i ^ 1 < stages else i for i in declared)
    found = list(dict.fromkeys([declared, swapped, declared[::-1]]))[:count]
    draw = numpy_generator(0, "benchmark orders")
    tries = 0
    while len(found) < count and tries < 1000:  # few stages have few orders
        order = tuple(int(i) for i in draw.permutation(stages))
        found += [order] if order not in found else []
        tries += 1
    return tuple(found)


def key_of(place: Place, options: Options, stream_digest: str) -> str:
    """Return the digest of all that decides a cell of the table, so that nothing else is taken for it."""
    import canal

    markers = options.markers.read_text(encoding="utf-8") if options.markers else None
    what: dict[str, Any] = {
        "format": FORMAT,
        "canal": canal.__version__,
        "method": place.method.name,
        "order": place.order,
        "seed": place.seed,
        "stream": stream_digest,
        "preset": dump_preset(options.preset),
        "markers": markers,
    }
    return "sha256:" + hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def command_of(method: Method, orders: Sequence[Order], seeds: Sequence[int], options: Options) -> str:
    """Return the command that makes one row, or one cell, of the table again."""
    words = ["canal", "benchmark", "--stream", options.stream, "--methods", method.name]
    words += ["--orders", ",".join(map(order_text, orders)), "--seeds", str(len(seeds))]
    words += ["--first-seed", str(seeds[0])] if seeds[0] else []
    words += ["--preset", options.preset_name] if options.preset_name != "compact" else []
    for override in options.overrides:
        words += ["--set", override]
    words += ["--markers", str(options.markers)] if options.markers else []
    words += ["--peers", str(options.peers)] if options.peers else []
    return shlex.join([*words, "--out", str(options.out)])
