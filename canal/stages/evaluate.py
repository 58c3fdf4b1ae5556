"""`canal evaluate`: an annotation against given labels."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from canal.data.check import open_stream
from canal.errors import DataError
from canal.learn.progress import Progress, Silent
from canal.stages.annotate import Model, predict_stream
from canal.stages.metrics import Evaluation, score

if TYPE_CHECKING:
    import anndata as ad


def evaluate(
    model: Model,
    data: "str | Path | ad.AnnData",
    *,
    labels: str,
    label_map: Path | None = None,
    gene_key: str | None = None,
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
    progress
        Told about every block of cells.

    Raises
    ------
    DataError
        If the file cannot be used, or has no label.
    """
    with open_stream(data, gene_key=gene_key, labels=labels, label_map=label_map) as stream:
        prediction, _ = predict_stream(model.annotator, stream, progress or Silent())
        truth = stream.labels
        path = stream.report.path
    assert truth is not None
    predicted = np.array(model.annotator.types, dtype=object)[prediction.probabilities.argmax(axis=1)]
    labelled = truth.astype(str) != ""
    if not labelled.any():
        message = f"{path} has no labelled cell in {labels!r}. Name the column of the cell types with --labels."
        raise DataError(message)
    figures = score(truth[labelled].astype(str), predicted[labelled].astype(str))
    unknown = sorted(set(truth[labelled].tolist()) - set(model.annotator.types))
    return Evaluation(stage=model.record.number, cells=int(labelled.sum()), unknown_types=tuple(unknown), **figures)
