"""What a method of the benchmark is: a name, what is to be known of it, and one function.

The function is given the stages one after another and yields, after each, what names the cells of a file::

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]: ...

It cannot look ahead: the next stage is read when it asks for it, and the last predictor was tested by then. What it may
keep of earlier stages it says in `Method.keeps`; a method that keeps all cells says so with `sees_all`, and its row is
marked.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from canal.config import Preset
from canal.data.cells import Cells
from canal.errors import ConfigError

Predict = Callable[[Cells], np.ndarray]
Fit = Callable[[Sequence[Cells], "Context"], Predict]
Group = Literal["ours", "strategies", "peers"]


class Unavailable(Exception):
    """The method cannot run here; the text says why and what would help. Becomes the method's row."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a method may know besides the cells.

    Attributes
    ----------
    preset
        Encoder, training and memory of what trains our encoder.
    seed
        The recorded seed.
    n_types
        Types of the whole stream: for the width of stored arrays, never for learning.
    markers
        CSV of type and gene, for methods that know types by their markers.
    peers
        Folder of environments, one a peer, each with ``bin/python``.
    scratch
        A folder for files; deleted afterwards.
    """

    preset: Preset
    seed: int
    n_types: int
    markers: Path | None
    peers: Path | None
    scratch: Path


Learn = Callable[[Iterator[Cells], Context], Generator[Predict, None, None]]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the table.

    Attributes
    ----------
    name
        As on the command line.
    title
        As in the table.
    group
        Where it belongs.
    keeps
        What it keeps of earlier stages.
    reference
        Paper, package or equation.
    learn
        The method.
    sees_all
        Whether it is given the cells of all stages at once.
    seeded
        Whether its answer depends on the seed; if not, it runs once an order.
    external
        Whether the work is done in another process, whose memory counts then.
    """

    name: str
    title: str
    group: Group
    keeps: str
    reference: str
    learn: Learn = field(repr=False)
    sees_all: bool = False
    seeded: bool = True
    external: bool = False


def jointly(fit: Fit) -> Learn:
    """Return the method that is trained anew on the cells of all stages so far."""

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        seen: list[Cells] = []
        for cells in stages:
            seen.append(cells)
            yield fit(seen, context)

    return learn


def newest(fit: Fit) -> Learn:
    """Return the method that is trained anew on the cells of the newest stage alone."""

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        for cells in stages:
            yield fit([cells], context)

    return learn


def both_ways(
    name: str, title: str, reference: str, fit: Fit, *, seeded: bool = False, external: bool = False
) -> tuple[Method, Method]:
    """Return the two honest rows of a method that cannot be updated: newest stage only, and all cells at once."""

    def row(name: str, title: str, keeps: str, learn: Learn, *, sees_all: bool) -> Method:
        return Method(
            name=name, title=title, keeps=keeps, learn=learn, sees_all=sees_all,
            group="peers", reference=reference, seeded=seeded, external=external,
        )  # fmt: skip

    alone = row(name, title, "nothing", newest(fit), sees_all=False)
    joint = row(f"{name}-joint", f"{title}, all cells", "all cells", jointly(fit), sees_all=True)
    return alone, joint


def labels_of(cells: Cells) -> np.ndarray:
    """Return the types of labelled cells as str (cells,)."""
    assert cells.labels is not None
    return cells.labels.astype(str)


def choose(names: str, known: Sequence[Method], preset_method: Callable[[str], Method]) -> tuple[Method, ...]:
    """Return the methods of a list of names and groups, each once, in the order they were named.

    Parameters
    ----------
    names
        Separated by commas: names of methods, groups, ``all``, or ``preset:NAME``.
    known
        All methods.
    preset_method
        Makes the method of a preset.

    Raises
    ------
    ConfigError
        If there is no such method.
    """
    by_name = {m.name: m for m in known}
    chosen: dict[str, Method] = {}
    for name in (part.strip() for part in names.split(",") if part.strip()):
        of_group = [m for m in known if name in {m.group, "all"}]
        if name.startswith("preset:"):
            of_group = [preset_method(name.removeprefix("preset:"))]
        elif not of_group:
            of_group = [by_name[name]] if name in by_name else []
        if not of_group:
            groups = ", ".join(sorted({m.group for m in known}))
            message = (
                f"There is no method {name!r}. Known: {', '.join(by_name)}; groups: {groups}, all; or preset:NAME for "
                "a preset of ours."
            )
            raise ConfigError(message)
        chosen |= {m.name: m for m in of_group}
    if not chosen:
        message = "No method is named. Name some with --methods, for instance --methods ours,strategies."
        raise ConfigError(message)
    return tuple(chosen.values())
