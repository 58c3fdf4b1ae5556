"""`canal explain`: the genes a model looks at in the cells of each type."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from canal.data.stream import CellStream, open_stream
from canal.errors import DataError, StageError
from canal.explain.explainers import Explainer, explainer_of
from canal.model.model import Model
from canal.model.reader import GeneSetReader
from canal.progress import Progress, Silent
from canal.stages.predictions import reader_of

if TYPE_CHECKING:
    import anndata as ad


Rank = Literal["difference", "score"]


@dataclass(frozen=True, kw_only=True)
class TypeGenes:
    """The genes of one type, the first in rank first.

    Attributes
    ----------
    name
        Cell type.
    cells
        Number of its cells that were looked at.
    genes
        Names, (genes,).
    score, others
        Mean score in the cells of the type and in those of all other types, (genes,).
    """

    name: str
    cells: int
    genes: np.ndarray
    score: np.ndarray
    others: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a model looks at: how the scores were made and ranked, by which stage, for which types."""

    method: str
    rank: Rank
    stage: int
    types: tuple[TypeGenes, ...]
    warnings: tuple[str, ...] = ()

    def to_dict(self, top: int) -> dict[str, Any]:
        """Return plain values for JSON, with the top genes of each type."""
        types = {
            t.name: {
                "cells": t.cells,
                "genes": [
                    {"gene": g, "score": float(s), "others": float(o)}
                    for g, s, o in zip(t.genes[:top], t.score[:top], t.others[:top], strict=True)
                ],
            }
            for t in self.types
        }
        return {
            "method": self.method,
            "rank": self.rank,
            "stage": self.stage,
            "types": types,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """What is explained, and how the genes are ranked.

    Attributes
    ----------
    types
        Types to explain; every type that the file has cells of by default.
    labels
        Column of ``obs`` that says which type a cell is; the model's own answer by default.
    gene_key
        Column of ``var`` with the gene names.
    most_cells
        Cells of a type that are looked at, the first ones of the file.
    rank
        Genes by the difference of their score to that in all other cells, or by their score alone.
    """

    types: Sequence[str] = ()
    labels: str | None = None
    gene_key: str | None = None
    most_cells: int = 200
    rank: Rank = "difference"


def explain(
    model: Model,
    data: "str | Path | ad.AnnData",
    options: ExplainOptions | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """Score the genes of each type.

    Parameters
    ----------
    model
        Model of a committed stage.
    data
        File of cells, or an AnnData.
    options
        What is explained.
    progress
        Told about every block of cells.

    Raises
    ------
    DataError, StageError
        If the file cannot be used, has no cell of a type, or the model can explain nothing.
    """
    options, progress = options or ExplainOptions(), progress or Silent()
    # Collect the cells of each type, a block at a time.
    with open_stream(data, gene_key=options.gene_key, labels=options.labels, chunk=512) as stream:
        reader = reader_of(model, stream)
        names = _groups(model, stream, options.types)
        explainer = explainer_of(reader, names)
        counts = _read(stream, reader, explainer, names, options.most_cells, progress)
        path, warnings = stream.report.path, stream.report.warnings
    # A type that was asked for and has no cell cannot be explained.
    wanted = [name for name in names if (name in options.types if options.types else counts[name])]
    empty = [name for name in wanted if not counts[name]]
    if empty:
        eyes = "" if options.labels else " in the eyes of the model"
        message = f"{path} has no cell of {', '.join(map(repr, empty))}{eyes}."
        raise DataError(message)
    explained = []
    for name in wanted:
        explained.append(_of_type(explainer, names, name, counts[name], options.rank))
    return Explanation(
        method=explainer.method,
        rank=options.rank,
        stage=model.stage.number,
        types=tuple(explained),
        warnings=warnings,
    )


def _groups(model: Model, stream: CellStream, types: Sequence[str]) -> tuple[str, ...]:
    known = model.types
    if stream.labels is not None:
        known = tuple(sorted(set(stream.labels.astype(str).tolist()) - {""}))
    strange = sorted(set(types) - set(known))
    if strange:
        message = (
            f"{', '.join(map(repr, strange))} is no type here. "
            f"{'The file' if stream.labels is not None else 'The model'} has {', '.join(known)}."
        )
        raise StageError(message)
    return known


def _read(
    stream: CellStream,
    reader: GeneSetReader,
    explainer: Explainer,
    names: tuple[str, ...],
    most: int,
    progress: Progress,
) -> dict[str, int]:
    """Give the cells of the file to the explainer, ``most`` of each type; return their numbers."""
    counts = dict.fromkeys(names, 0)
    at = {name: i for i, name in enumerate(names)}
    progress.start(len(stream), "explaining")
    done = 0
    for block in stream.chunks():
        n = block.shape[0]
        given = reader.best_types(block) if stream.labels is None else stream.labels[done : done + n].astype(str)
        chosen = []
        for row, name in enumerate(given.tolist()):
            if name and counts[name] < most:
                counts[name] += 1
                chosen.append(row)
        if chosen:
            explainer.add(block[chosen], np.array([at[given[row]] for row in chosen]))
        done += n
        progress.advance(n)
    progress.close()
    return counts


def _of_type(found: Explainer, names: tuple[str, ...], name: str, cells: int, rank: Rank) -> TypeGenes:
    score, others = found.scores(names.index(name))
    order = np.argsort(others - score if rank == "difference" else -score, kind="stable")
    genes = np.array(found.genes, dtype=object)[order]
    return TypeGenes(name=name, cells=cells, genes=genes, score=score[order], others=others[order])
