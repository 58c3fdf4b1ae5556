"""The contract of a benchmark method: its description and one function that learns the stages.

The function is given the stages one after another and yields, after each, a function that predicts the cell types of a
file::

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]: ...

It cannot look ahead: the next stage is handed over when it asks for it, and the last predictor was tested by then. What
it keeps of earlier stages is declared in `Method.keeps`; a method that keeps all cells sets `Method.sees_all`, and its
row is marked.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from canal.config import Preset
from canal.data.cells import Cells

# A predictor returns the type of each cell, (cells,).
Predict = Callable[[Cells], np.ndarray]
Fit = Callable[[Sequence[Cells], "Context"], Predict]
Group = Literal["ours", "strategies", "peers"]


class Unavailable(Exception):
    """The method cannot run here; the text says why and what would help, and becomes the method's row."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a method is told besides the cells.

    Attributes
    ----------
    preset
        Encoder, training and memory, for the methods that train our encoder.
    seed
        The recorded seed.
    n_types
        Number of types of the whole stream: for the width of stored arrays, never for learning.
    markers
        CSV of type and gene, for methods that identify types by marker genes.
    peers
        Folder of environments, one for each peer, each with ``bin/python``.
    scratch
        Folder for temporary files.
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
        Name on the command line.
    title
        Name in the table.
    group
        Family of methods.
    keeps
        What it keeps of earlier stages.
    reference
        Paper, package or equation.
    learn
        The function that learns the stages.
    sees_all
        Whether it is given the cells of all stages at once.
    seeded
        Whether its predictions depend on the seed; if not, it runs once for each order of the stages.
    external
        Whether the work is done in a child process, whose memory is then reported.
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


def _learn_all_stages(fit: Fit) -> Learn:
    """Return the method that is trained anew on the cells of all stages so far."""

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        seen: list[Cells] = []
        for cells in stages:
            seen.append(cells)
            yield fit(seen, context)

    return learn


def _learn_newest_stage(fit: Fit) -> Learn:
    """Return the method that is trained anew on the cells of the newest stage alone."""

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        for cells in stages:
            yield fit([cells], context)

    return learn


def newest_and_joint(name: str, title: str, reference: str, fit: Fit, *, seeded: bool = False) -> tuple[Method, Method]:
    """Return the two honest rows of a method that cannot be updated: newest stage only, and all cells at once."""
    newest = Method(
        name=name,
        title=title,
        group="peers",
        keeps="nothing",
        reference=reference,
        learn=_learn_newest_stage(fit),
        seeded=seeded,
    )
    joint = replace(
        newest,
        name=f"{name}-joint",
        title=f"{title}, all cells",
        keeps="all cells",
        learn=_learn_all_stages(fit),
        sees_all=True,
    )
    return newest, joint


def labels_of(*files: Cells) -> np.ndarray:
    """Return the types of the labelled cells of one file, or of several in turn, as str (cells,)."""
    labels = []
    for cells in files:
        assert cells.labels is not None
        labels.append(cells.labels.astype(str))
    return np.concatenate(labels)
