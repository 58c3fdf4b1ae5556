"""`canal evaluate`: an annotation against given labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from canal.data.check import open_stream
from canal.detect.metrics import novelty_figures
from canal.errors import DataError
from canal.learn.progress import Progress, Silent
from canal.stages.annotate import Model, predict_stream
from canal.stages.metrics import Evaluation, score
from canal.stages.novelty import ALPHA, NoveltyColumns, novelty_columns
from canal.stages.probability import probability_columns, threshold_of

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
    min_probability: float | None = None,
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
    min_probability
        Call cells novel whose highest probability is below it, in place of the memory's detector.
    progress
        Told about every block of cells.

    Raises
    ------
    DataError
        If the file cannot be used, has no label, or has no cell of a type that is said to be novel.
    """
    threshold = threshold_of(model.annotator.preset, alpha, 0, min_probability) if novel else None
    with open_stream(data, gene_key=gene_key, labels=labels, label_map=label_map) as stream:
        reader = model.annotator.reader(stream.genes, stream.ensembl)
        collected = None
        if novel and threshold is None:
            collected = novelty_columns(reader, model.bank, ALPHA if alpha is None else alpha, 0)
        prediction = predict_stream(reader, stream, progress or Silent(), collected)
        truth = stream.labels
        path = stream.report.path
    assert truth is not None
    predicted = np.array(model.annotator.types, dtype=object)[prediction.probabilities.argmax(axis=1)]
    labelled = truth.astype(str) != ""
    if not labelled.any():
        message = f"{path} has no labelled cell in {labels!r}. Name the column of the cell types with --labels."
        raise DataError(message)
    if novel:
        _check_novel(novel, truth[labelled], model, path)
    figures = score(truth[labelled].astype(str), predicted[labelled].astype(str))
    unknown = sorted(set(truth[labelled].tolist()) - set(model.annotator.types))
    judged = _judged(collected, threshold, prediction.probabilities, predicted)
    return Evaluation(
        stage=model.record.number,
        cells=int(labelled.sum()),
        unknown_types=tuple(unknown),
        novelty=None if judged is None else judged[0] | _novelty(judged[1], truth, predicted, labelled, novel),
        **figures,
    )


def _check_novel(novel: Sequence[str], truth: np.ndarray, model: Model, path: str) -> None:
    absent = sorted(set(novel) - set(truth.tolist()))
    known = sorted(set(novel) & set(model.annotator.types))
    if absent:
        message = f"{path} has no cell of {', '.join(map(repr, absent))}; --novel names types of the file's labels."
        raise DataError(message)
    if known:
        message = f"The model knows {', '.join(map(repr, known))}; --novel names types that it was never taught."
        raise DataError(message)


def _judged(
    collected: NoveltyColumns | None, threshold: float | None, probabilities: np.ndarray, predicted: np.ndarray
) -> tuple[dict[str, float], Mapping[str, np.ndarray]] | None:
    """Return how novelty was judged and the columns of the verdicts, or ``None`` where nobody asked."""
    if threshold is not None:
        return {"min_probability": threshold}, probability_columns(probabilities, predicted, threshold)
    return None if collected is None else ({"alpha": collected.alpha}, collected.columns(predicted))


def _novelty(
    columns: Mapping[str, np.ndarray],
    truth: np.ndarray,
    predicted: np.ndarray,
    labelled: np.ndarray,
    novel: Sequence[str],
) -> dict[str, float]:
    figures = novelty_figures(
        columns["novelty"][labelled],
        columns["status"][labelled] == "novel",
        predicted[labelled] == truth[labelled],
        np.isin(truth[labelled], list(novel)),
    )
    return figures.to_dict()
