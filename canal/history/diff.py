"""`canal stage diff A B`: what is different between two stages."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.data.stream import CellStream, open_stream
from canal.errors import ConfigError
from canal.files import check_file
from canal.model.model import Model
from canal.model.record import StageRecord
from canal.progress import Progress, Silent
from canal.registry.commit import flatten
from canal.stages.layout import Layout, open_registry
from canal.stages.predictions import answer_stream, reader_of

if TYPE_CHECKING:
    import anndata as ad


Pair = tuple[Any, Any]


@dataclass(frozen=True, kw_only=True)
class ChangedCells:
    """Two models on the cells of one file.

    Attributes
    ----------
    names
        Names of the cells, (cells,).
    types
        What each model says, both (cells,).
    confidence
        How sure each is, both (cells,).
    """

    names: np.ndarray
    types: tuple[np.ndarray, np.ndarray]
    confidence: tuple[np.ndarray, np.ndarray]

    @property
    def rows(self) -> np.ndarray:
        """Positions of the cells that change their type."""
        return np.flatnonzero(self.types[0] != self.types[1])

    def to_dict(self) -> dict[str, Any]:
        """Return the number of cells, of those that change, and from which to which type, the commonest first."""
        rows = self.rows
        pairs = Counter(zip(self.types[0][rows].tolist(), self.types[1][rows].tolist(), strict=True))
        changes = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
        return {
            "cells": len(self.names),
            "changed": len(rows),
            "changes": [{"from": before, "to": after, "cells": n} for (before, after), n in changes],
        }


@dataclass(frozen=True, kw_only=True)
class StageDiff:
    """What is different in stage b as compared with stage a.

    Attributes
    ----------
    a, b
        Numbers of the stages.
    types_added, types_removed, genes_added, genes_removed
        By name; genes of the network's panel.
    metrics, config
        Figures, and keys of the preset, that differ: (of a, of b), ``None`` where it has none.
    cells
        Both models on a file, where one was given.
    """

    a: int
    b: int
    types_added: tuple[str, ...]
    types_removed: tuple[str, ...]
    genes_added: tuple[str, ...]
    genes_removed: tuple[str, ...]
    metrics: dict[str, Pair]
    config: dict[str, Pair]
    cells: ChangedCells | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = {k: v for k, v in vars(self).items() if k != "cells"}
        return plain | ({"data": self.cells.to_dict()} if self.cells is not None else {})


def stage_difference(
    layout: Layout,
    a: int,
    b: int,
    *,
    data: "str | Path | ad.AnnData | None" = None,
    gene_key: str | None = None,
    progress: Progress | None = None,
) -> StageDiff:
    """Compare two stages.

    Parameters
    ----------
    layout
        The workspace.
    a, b
        Numbers of the stages.
    data
        Cells to annotate with both.
    gene_key
        Column of its ``var`` with the gene names.
    progress
        Told about every block of cells.

    Raises
    ------
    RegistryError, DataError
        If there is no such stage, its files are damaged, or the cells cannot be annotated.
    """
    registry = open_registry(layout)
    records = registry.record(a), registry.record(b)
    models = [registry.model(record) for record in records]
    genes_added, genes_removed = _new(models[0].panel.genes.names, models[1].panel.genes.names)
    types_added, types_removed = _new(records[0].types, records[1].types)
    return StageDiff(
        a=a,
        b=b,
        types_added=types_added,
        types_removed=types_removed,
        genes_added=genes_added,
        genes_removed=genes_removed,
        metrics=_differing(records[0].metrics, records[1].metrics),
        config=_differing(_config(records[0]), _config(records[1])),
        cells=None if data is None else _cells(models[0], models[1], data, gene_key, progress or Silent()),
    )


def check_changes_file(out: Path, data: object | None) -> None:
    """Refuse a file of changes that cannot be written, or a difference without cells.

    Raises
    ------
    ConfigError, DataError
        If so.
    """
    check_file(out, ".csv", "--out")
    if data is None:
        message = "--out lists the cells of a file that change; name that file with --data."
        raise ConfigError(message)


def write_changes(cells: ChangedCells, numbers: tuple[int, int], out: Path) -> None:
    """Write a CSV with one line for each cell that changes its type."""
    a, b = numbers
    with out.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["cell", f"stage_{a}", f"stage_{b}", f"confidence_{a}", f"confidence_{b}"])
        for k in cells.rows.tolist():
            sure = [f"{c[k]:.4f}" for c in cells.confidence]
            lines.writerow([cells.names[k], cells.types[0][k], cells.types[1][k], *sure])


def _cells(
    first: Model, second: Model, data: "str | Path | ad.AnnData", gene_key: str | None, progress: Progress
) -> ChangedCells:
    answers = []
    for model in (first, second):
        with open_stream(data, gene_key=gene_key) as stream:
            answers.append(_answers(model, stream, progress))
            names = stream.names
    return ChangedCells(
        names=names, types=(answers[0][0], answers[1][0]), confidence=(answers[0][1], answers[1][1])
    )  # fmt: skip


def _answers(model: Model, stream: CellStream, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    answers = answer_stream(reader_of(model, stream), stream, progress)
    return answers.names(model.types), answers.confidence


def _new(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    old, new = set(before), set(after)
    return tuple(n for n in after if n not in old), tuple(n for n in before if n not in new)


def _config(record: StageRecord) -> dict[str, str]:
    values = flatten(record.preset) | {"seed": str(record.seed)}
    return {k: v for k, v in values.items() if k != "description"}


def _differing(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Pair]:
    return {k: (a.get(k), b.get(k)) for k in sorted(set(a) | set(b)) if a.get(k) != b.get(k)}
