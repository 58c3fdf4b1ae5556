"""`canal explain`: the genes a model looks at in the cells of each type."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from canal.data.stream import CellStream, open_stream
from canal.errors import ConfigError, DataError, StageError
from canal.explain.explainers import Explainer, TaughtExplainer, explainer_of
from canal.model.model import Model
from canal.model.reader import GeneSetReader
from canal.progress import Progress, Silent
from canal.stages.predictions import reader_of

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


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
    speaks_for
        Whether expressing the gene speaks for the type; where it does not, it speaks for others, and the type has less
        of it. Bool (genes,); ``None`` where the method does not tell.
    imputed
        Genes of the file that the type was never seen together with: what the model expects of them is estimated.
    """

    name: str
    cells: int
    genes: np.ndarray
    score: np.ndarray
    others: np.ndarray
    speaks_for: np.ndarray | None = None
    imputed: frozenset[str] = frozenset()

    def to_dict(self, top: int) -> dict[str, Any]:
        """Return plain values for JSON, with the top genes: of all, for the type, and against others."""
        values = {"cells": self.cells, "genes": self._entries(range(len(self.genes)), top)}
        if self.speaks_for is not None:
            values["genes_for"] = self._entries(np.flatnonzero(self.speaks_for).tolist(), top)
            values["genes_against"] = self._entries(np.flatnonzero(~self.speaks_for).tolist(), top)
        return values | {"imputed_genes": len(self.imputed)}

    def _entries(self, places: Sequence[int], top: int) -> list[dict[str, Any]]:
        """Return the first genes at these places as plain values."""
        entries = []
        for place in places[:top]:
            entry = {"gene": self.genes[place], "score": float(self.score[place]), "others": float(self.others[place])}
            entries.append(entry | {"imputed": True} if self.genes[place] in self.imputed else entry)
        return entries


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
    source
        ``"cells"`` of a file, or the cells that were ``"taught"``.
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
    source: Literal["cells", "taught"] = "cells"

    def to_frame(self, top: int = 20) -> "pd.DataFrame":
        """Return the top genes of each type: ``cell_type``, ``evidence``, ``gene``, ``score``, ``others``.

        ``evidence`` is ``for`` where expressing the gene speaks for the type and ``against`` where it speaks for others
        and the type has less of it, with ``top`` genes of each; ``""`` where the method does not tell.
        """
        import pandas as pd

        rows = []
        for name, values in self.to_dict(top)["types"].items():
            lists = {"for": "genes_for", "against": "genes_against"} if "genes_for" in values else {"": "genes"}
            for evidence, key in lists.items():
                for entry in values[key]:
                    rows.append(
                        {
                            "cell_type": name,
                            "evidence": evidence,
                            "gene": entry["gene"],
                            "score": entry["score"],
                            "others": entry["others"],
                        }
                    )
        return pd.DataFrame(rows, columns=["cell_type", "evidence", "gene", "score", "others"])

    def to_dict(self, top: int) -> dict[str, Any]:
        """Return plain values for JSON, with the top genes of each type."""
        return {
            "method": self.method,
            "source": self.source,
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
    data: "str | Path | ad.AnnData | None",
    options: ExplainOptions,
    progress: Progress | None = None,
) -> Explanation:
    """Score the genes of each type.

    Parameters
    ----------
    model
        Model of a committed stage.
    data
        File of cells, or an AnnData; ``None`` for the cells that were taught, as the analytic memory knows them.
    options
        What is explained.
    progress
        Told about every block of cells.

    Raises
    ------
    DataError, StageError
        If the file cannot be used, has no cell of a type, or the model can explain nothing.
    """
    if data is None:
        return explain_taught(model, options)
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
        genes = _ranked(explainer, names.index(name), options.rank)
        explained.append(replace(genes, name=name, cells=counts[name], imputed=imputed.get(name, frozenset())))
    return Explanation(
        method=explainer.method,
        rank=options.rank,
        stage=model.stage.number,
        types=tuple(explained),
        warnings=(*warnings, *_notes_on_imputed(explained)),
    )


def explain_taught(model: Model, options: ExplainOptions) -> Explanation:
    """Score the genes of each type in the cells that were taught, without a file.

    Parameters
    ----------
    model
        Model of a committed stage, with an analytic memory.
    options
        What is explained: ``types`` and ``rank`` alone.

    Raises
    ------
    ConfigError, StageError
        If labels or genes of a file are named, a type is not known, or the model has no analytic memory.
    """
    if options.labels is not None or options.gene_key is not None:
        message = "Labels and gene names belong to a file. Name it with --data, or leave out --labels and --gene-key."
        raise ConfigError(message)
    if model.memory is None or not model.memory.statistics:
        message = (
            f"This stage keeps no statistics of what was taught (preset {model.preset.name!r}). Name cells to explain "
            "it by with --data."
        )
        raise StageError(message)
    # Types whose statistics were taken out with their stage have none.
    cells: dict[str, int] = {}
    for (_, name), count in model.memory.counts().items():
        cells[name] = cells.get(name, 0) + count
    names = tuple(name for name in model.types if name in cells)
    _check_types(options.types, names, "The model")
    explainer = TaughtExplainer(model.memory, names)
    explained = []
    for name in options.types or names:
        genes = _ranked(explainer, names.index(name), options.rank)
        explained.append(replace(genes, name=name, cells=cells[name]))
    return Explanation(
        method=explainer.method,
        rank=options.rank,
        stage=model.stage.number,
        types=tuple(explained),
        warnings=(),
        source="taught",
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
    _check_types(asked, names, source)
    return names


def _check_types(asked: Sequence[str], names: tuple[str, ...], source: str) -> None:
    """Refuse types that are not among the names."""
    strange = sorted(set(asked) - set(names))
    if strange:
        message = f"{', '.join(map(repr, strange))} is no type here. {source} has {', '.join(names)}."
        raise StageError(message)


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


def _ranked(explainer: Explainer, group: int, rank: Rank) -> TypeGenes:
    """Return the genes of a group in their order, before its name and number of cells are known."""
    score, others = explainer.scores(group)
    speaks_for = explainer.speaks_for(group)
    order = np.argsort(others - score if rank == "difference" else -score, kind="stable")
    return TypeGenes(
        name="",
        cells=0,
        genes=np.array(explainer.genes, dtype=object)[order],
        score=score[order],
        others=others[order],
        speaks_for=None if speaks_for is None else speaks_for[order],
    )
