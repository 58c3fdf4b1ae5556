"""`canal explain`: the genes a model looks at in the cells of each type."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
CELLS_AT_A_TIME = 512  # rows of the file that are read at a time


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
    imputed
        Genes of the file that the type was never seen together with: what the model expects of them is estimated.
    """

    name: str
    cells: int
    genes: np.ndarray
    score: np.ndarray
    others: np.ndarray
    imputed: frozenset[str] = frozenset()

    def to_dict(self, top: int) -> dict[str, Any]:
        """Return plain values for JSON, with the top genes."""
        genes = []
        for gene, score, others in zip(self.genes[:top], self.score[:top], self.others[:top], strict=True):
            entry = {"gene": gene, "score": float(score), "others": float(others)}
            genes.append(entry | {"imputed": True} if gene in self.imputed else entry)
        return {"cells": self.cells, "genes": genes, "imputed_genes": len(self.imputed)}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a model looks at.

    Attributes
    ----------
    method
        What the scores are; see `canal.explain.explainers`.
    rank
        What the genes are ranked by.
    stage
        Whose model is explained.
    types
        Genes of each type.
    warnings
        About the file.
    """

    method: str
    rank: Rank
    stage: int
    types: tuple[TypeGenes, ...]
    warnings: tuple[str, ...]

    def to_dict(self, top: int) -> dict[str, Any]:
        """Return plain values for JSON, with the top genes of each type."""
        return {
            "method": self.method,
            "rank": self.rank,
            "stage": self.stage,
            "types": {genes.name: genes.to_dict(top) for genes in self.types},
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
    options: ExplainOptions,
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
    # Collect the cells of each type, a block at a time.
    with open_stream(data, gene_key=options.gene_key, labels=options.labels, chunk=CELLS_AT_A_TIME) as stream:
        reader = reader_of(model, stream)
        names = _type_names(model, stream, options.types)
        explainer = explainer_of(reader, names)
        counts = _collect_cells(stream, reader, explainer, names, options.most_cells, progress or Silent())
        path, warnings = stream.report.path, stream.report.warnings
    # Types that were never seen together with many of these genes.
    imputed = {} if reader.carried is None else reader.carried.imputed
    # The types that were asked for, or all that have cells. Without a cell a type cannot be explained.
    wanted, empty = [], []
    for name in names:
        if name in options.types or (not options.types and counts[name]):
            wanted.append(name)
            if not counts[name]:
                empty.append(name)
    if empty:
        eyes = "" if options.labels else " in the eyes of the model"
        message = f"{path} has no cell of {', '.join(map(repr, empty))}{eyes}."
        raise DataError(message)
    explained = []
    for name in wanted:
        score, others = explainer.scores(names.index(name))
        genes = _ranked(name, counts[name], explainer.genes, score, others, options.rank)
        explained.append(replace(genes, imputed=imputed.get(name, frozenset())))
    return Explanation(
        method=explainer.method,
        rank=options.rank,
        stage=model.stage.number,
        types=tuple(explained),
        warnings=(*warnings, *_notes_on_imputed(explained)),
    )


def _notes_on_imputed(explained: Sequence[TypeGenes]) -> list[str]:
    """Return a sentence for each type that was never seen together with many of the genes."""
    notes = []
    for genes in explained:
        if genes.imputed:
            notes.append(
                f"{genes.name!r} was never seen together with {len(genes.imputed)} genes of this file: what is "
                "expected of them is imputed from other types, and answers of this type are less sure."
            )
    return notes


def _type_names(model: Model, stream: CellStream, asked: Sequence[str]) -> tuple[str, ...]:
    """Return the types that cells can be of: those of the labels, or of the model where none were named."""
    source, names = "The model", model.types
    if stream.labels is not None:
        source, names = "The file", tuple(sorted(set(stream.labels.astype(str).tolist()) - {""}))
    strange = sorted(set(asked) - set(names))
    if strange:
        message = f"{', '.join(map(repr, strange))} is no type here. {source} has {', '.join(names)}."
        raise StageError(message)
    return names


def _collect_cells(
    stream: CellStream,
    reader: GeneSetReader,
    explainer: Explainer,
    names: tuple[str, ...],
    most: int,
    progress: Progress,
) -> dict[str, int]:
    """Give the cells of the file to the explainer, ``most`` of each type; return their numbers."""
    counts = dict.fromkeys(names, 0)
    position = {name: i for i, name in enumerate(names)}
    progress.start(len(stream), "explaining")
    start = 0
    for block in stream.chunks():
        # The type of each cell: its label, or the model's answer.
        stop = start + block.shape[0]
        types = reader.best_types(block) if stream.labels is None else stream.labels[start:stop].astype(str)
        # Those that are still wanted; a cell without a label is not.
        rows, groups = [], []
        for row, name in enumerate(types.tolist()):
            if name and counts[name] < most:
                counts[name] += 1
                rows.append(row)
                groups.append(position[name])
        if rows:
            explainer.add(block[rows], np.array(groups))
        progress.advance(stop - start)
        start = stop
    progress.close()
    return counts


def _ranked(
    name: str, cells: int, genes: tuple[str, ...], score: np.ndarray, others: np.ndarray, rank: Rank
) -> TypeGenes:
    order = np.argsort(others - score if rank == "difference" else -score, kind="stable")
    ordered = np.array(genes, dtype=object)[order]
    return TypeGenes(name=name, cells=cells, genes=ordered, score=score[order], others=others[order])
