"""`canal stage diff A B`: what is different between two stages."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.data.stream import open_stream
from canal.errors import ConfigError
from canal.files import check_file, write_file_whole
from canal.model.model import Model
from canal.model.record import StageRecord
from canal.progress import Progress, Silent
from canal.registry.commit import flatten
from canal.stages.layout import Layout, open_registry
from canal.stages.predictions import answer_stream, reader_of
from canal.text import csv_row

if TYPE_CHECKING:
    import anndata as ad


Pair = tuple[Any, Any]  # a value of stage a and of stage b


@dataclass(frozen=True, kw_only=True)
class ChangedCells:
    """The annotations of the cells of one file by two models.

    Attributes
    ----------
    names
        Names of the cells, (cells,).
    types
        Cell types by the first and by the second model, both (cells,).
    confidence
        Their confidence, both (cells,).
    """

    names: np.ndarray
    types: tuple[np.ndarray, np.ndarray]
    confidence: tuple[np.ndarray, np.ndarray]

    @property
    def rows(self) -> np.ndarray:
        """Positions of the cells whose type changes."""
        return np.flatnonzero(self.types[0] != self.types[1])

    def to_dict(self) -> dict[str, Any]:
        """Return how many cells there are, how many change, and from which type to which, the commonest change first.

        The keys are those of the JSON of `canal stage diff`.
        """
        # Changes of equally many cells are in the order of the names.
        rows = self.rows
        before, after = self.types[0][rows].tolist(), self.types[1][rows].tolist()
        pairs = Counter(zip(before, after, strict=True))
        changes = []
        for (old, new), cells in sorted(pairs.items(), key=lambda item: (-item[1], item[0])):
            changes.append({"from": old, "to": new, "cells": cells})
        return {"cells": len(self.names), "changed": len(rows), "changes": changes}


@dataclass(frozen=True, kw_only=True)
class StageDiff:
    """What is different in stage b as compared with stage a.

    Attributes
    ----------
    a, b
        Numbers of the stages.
    types_added, types_removed, genes_added, genes_removed
        Cell types, and genes of the gene panel, by name.
    metrics, config
        Figures, and keys of the preset, that differ: (of a, of b), ``None`` where a stage has none.
    cells
        The annotations of a file by both models, where one was given.
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
        plain = dict(vars(self))
        del plain["cells"]
        if self.cells is not None:
            plain["data"] = self.cells.to_dict()
        return plain


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
    # What the records and the models say.
    registry = open_registry(layout)
    record_a, record_b = registry.record(a), registry.record(b)
    model_a, model_b = registry.model(record_a), registry.model(record_b)
    genes_added, genes_removed = _added_and_removed(model_a.panel.genes.names, model_b.panel.genes.names)
    types_added, types_removed = _added_and_removed(record_a.types, record_b.types)
    # What the two models say of the same cells.
    cells = None
    if data is not None:
        cells = _annotated_by_both(model_a, model_b, data, gene_key, progress or Silent())
    return StageDiff(
        a=a,
        b=b,
        types_added=types_added,
        types_removed=types_removed,
        genes_added=genes_added,
        genes_removed=genes_removed,
        metrics=_differing(record_a.metrics, record_b.metrics),
        config=_differing(_config(record_a), _config(record_b)),
        cells=cells,
    )


def check_changes_file(out: Path, data: object | None) -> None:
    """Refuse a file of changed cells that cannot be written, or that is asked for without cells to compare.

    Raises
    ------
    ConfigError, DataError
        If the file cannot be written, or there are no cells.
    """
    check_file(out, ".csv", "--out")
    if data is None:
        message = "--out lists the cells of a file that change; name that file with --data."
        raise ConfigError(message)


def write_changes(cells: ChangedCells, numbers: tuple[int, int], out: Path) -> None:
    """Write a CSV with one line for each cell that changes its type."""
    a, b = numbers
    types_a, types_b = cells.types
    confidence_a, confidence_b = cells.confidence

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(["cell", f"stage_{a}", f"stage_{b}", f"confidence_{a}", f"confidence_{b}"])
            for row in cells.rows.tolist():
                confidences = f"{confidence_a[row]:.4f}", f"{confidence_b[row]:.4f}"
                lines.writerow(csv_row([cells.names[row], types_a[row], types_b[row], *confidences]))

    write_file_whole(out, write)


def _annotated_by_both(
    first: Model, second: Model, data: "str | Path | ad.AnnData", gene_key: str | None, progress: Progress
) -> ChangedCells:
    """Annotate the cells of a file with one model and then with the other."""
    # The file is opened once for each model: blocks are read as they are annotated, and only the model's genes.
    types, confidence = [], []
    for model in (first, second):
        with open_stream(data, gene_key=gene_key) as stream:
            answers = answer_stream(reader_of(model, stream), stream, progress)
            names = stream.names
        answered, sure = answers.answered(model)
        types.append(answered)
        confidence.append(sure)
    return ChangedCells(names=names, types=(types[0], types[1]), confidence=(confidence[0], confidence[1]))


def _added_and_removed(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names that only the second has, and those that only the first has, each in its order."""
    old, new = set(before), set(after)
    return tuple(name for name in after if name not in old), tuple(name for name in before if name not in new)


def _config(record: StageRecord) -> dict[str, str]:
    """Return seed and values of a stage's preset by key, without the text that describes it."""
    values = flatten(record.preset) | {"seed": str(record.seed)}
    values.pop("description", None)
    return values


def _differing(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Pair]:
    """Return the keys whose values are not the same, with both values."""
    differing = {}
    for key in sorted({*a, *b}):
        if a.get(key) != b.get(key):
            differing[key] = (a.get(key), b.get(key))
    return differing
