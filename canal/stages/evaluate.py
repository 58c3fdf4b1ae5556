"""`canal evaluate`: an annotation against given labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from canal.data.check import open_stream
from canal.detect.metrics import novelty_figures
from canal.errors import DataError
from canal.learn.annotator import GeneSetReader
from canal.learn.progress import Progress, Silent
from canal.stages.annotate import Model, Verdicts, predict_stream, verdict_columns
from canal.stages.metrics import Evaluation, score
from canal.stages.novelty import ALPHA

if TYPE_CHECKING:
    import anndata as ad


def evaluate(
    model: Model,
    data: "str | Path | ad.AnnData",
    *,
    labels: str,
    label_map: Path | None = None,
    gene_key: str | None = None,
    novel: Sequence[str] = (),
    alpha: float | None = None,
    transductive: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Annotate labelled cells and score the annotation; cells without a label are left out of the figures.

    Parameters
    ----------
    model
        Model of a stage.
    data
        File of labelled cells, or an AnnData.
    labels
        Column of ``obs`` with the cell types.
    label_map, gene_key
        CSV of their name and our name; column of ``var`` with the gene names.
    novel
        Types of the file that the model was never taught: how well it tells them from the others is scored too.
    alpha
        Share of known cells that may be called novel, 0.05 by default.
    transductive
        Judge novelty by the paper's rule, as `canal.stages.annotate.annotate`.
    progress
        Told about every block of cells.

    Raises
    ------
    DataError
        If the file cannot be used, has no label, or has no cell of a type that is said to be novel.
    """
    with open_stream(data, gene_key=gene_key, labels=labels, label_map=label_map) as stream:
        reader = model.annotator.reader(stream.genes, stream.ensembl)
        collected = _collected(model, reader, len(stream), alpha, transductive) if novel else None
        prediction = predict_stream(reader, stream, progress or Silent(), collected)
        truth = stream.labels
        path = stream.report.path
    assert truth is not None
    predicted = np.array(model.annotator.types, dtype=object)[prediction.probabilities.argmax(axis=1)]
    labelled = truth.astype(str) != ""
    if not labelled.any():
        message = f"{path} has no labelled cell in {labels!r}. Name the column of the cell types with --labels."
        raise DataError(message)
    if collected is not None:
        _check_novel(novel, truth[labelled], model, path)
    figures = score(truth[labelled].astype(str), predicted[labelled].astype(str))
    unknown = sorted(set(truth[labelled].tolist()) - set(model.annotator.types))
    return Evaluation(
        stage=model.record.number,
        cells=int(labelled.sum()),
        unknown_types=tuple(unknown),
        novelty=None if collected is None else _novelty(collected, truth, predicted, labelled, novel),
        **figures,
    )


def _collected(
    model: Model, reader: GeneSetReader, cells: int, alpha: float | None, transductive: bool
) -> Verdicts | None:
    """Return what collects the verdicts; without an alpha it is 0.05, so that a model that cannot tell says so."""
    asked = ALPHA if alpha is None and not transductive else alpha
    return verdict_columns(model, reader, cells, asked, 0, transductive=transductive)


def _check_novel(novel: Sequence[str], truth: np.ndarray, model: Model, path: str) -> None:
    absent = sorted(set(novel) - set(truth.tolist()))
    known = sorted(set(novel) & set(model.annotator.types))
    if absent:
        message = f"{path} has no cell of {', '.join(map(repr, absent))}; --novel names types of the file's labels."
        raise DataError(message)
    if known:
        message = f"The model knows {', '.join(map(repr, known))}; --novel names types that it was never taught."
        raise DataError(message)


def _novelty(
    collected: Verdicts, truth: np.ndarray, predicted: np.ndarray, labelled: np.ndarray, novel: Sequence[str]
) -> dict[str, float]:
    columns = collected.columns(predicted)
    figures = novelty_figures(
        columns["novelty"][labelled],
        columns["status"][labelled] == "novel",
        predicted[labelled] == truth[labelled],
        np.isin(truth[labelled], list(novel)),
    )
    said = {name: value for name, value in collected.facts().items() if isinstance(value, float)}
    return said | figures.to_dict()
