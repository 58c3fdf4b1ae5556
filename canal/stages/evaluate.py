"""Figures of an annotation against given labels.

`canal evaluate`: an annotation against given labels.

What a plain model reaches on the same cells: no learned figure stands alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from canal.data.cells import Cells
from canal.data.panel import GenePanel
from canal.data.stream import open_stream
from canal.data.variable_genes import highly_variable
from canal.errors import DataError
from canal.figures import novelty_figures, score
from canal.progress import Progress, Silent
from canal.stages.annotate import Model
from canal.stages.novelty_rules import ALPHA, NoveltyRule, Unjudged, Verdict, verdict_for
from canal.stages.predictions import Answers, answer_stream, reader_of

if TYPE_CHECKING:
    import anndata as ad


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well known labels are met.

    Attributes
    ----------
    stage
        Stage whose model annotated.
    cells
        Cells with a label.
    accuracy, macro_f1, ari
        Share of right cells; mean F1 over the types present in the data; adjusted Rand index.
    per_type
        Precision, recall, F1 and support of each type present.
    unknown_types
        Types of the data that the model does not know; their cells count as wrong.
    novelty
        Figures of the detection of novel types, where some were named.
    """

    stage: int
    cells: int
    accuracy: float
    macro_f1: float
    ari: float
    per_type: dict[str, dict[str, float]]
    unknown_types: tuple[str, ...] = ()
    novelty: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


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
    transductive
        Judge novelty by the paper's rule: the verdict on a cell then depends on the other cells of the file.
    min_probability
        Call cells novel whose highest probability is below it, in place of the memory's detector.
    progress
        Told about every block of cells.

    Raises
    ------
    DataError
        If the file cannot be used, has no label, or has no cell of a type that is said to be novel.
    """
    by_memory = not transductive and min_probability is None and model.annotator.preset.novelty.detector == "memory"
    rule = NoveltyRule(
        # Asked for by number, so that a model that cannot tell says so.
        alpha=ALPHA if alpha is None and by_memory else alpha,
        transductive=transductive,
        min_probability=min_probability,
    )
    with open_stream(data, gene_key=gene_key, labels=labels, label_map=label_map) as stream:
        reader = reader_of(model.annotator, stream)
        verdict: Verdict = Unjudged(reader)
        if novel:
            verdict = verdict_for(rule, reader, model.bank, cells=len(stream), seed=model.record.seed)
        answers = answer_stream(verdict.reader, stream, progress or Silent(), watch=verdict.add)
        truth = stream.labels
        path = stream.report.path
    assert truth is not None
    predicted = answers.names(model.annotator.types)
    labelled = truth.astype(str) != ""
    if not labelled.any():
        message = f"{path} has no labelled cell in {labels!r}. Name the column of the cell types with --labels."
        raise DataError(message)
    if novel:
        _check_novel(novel, truth[labelled], model, path)
    figures = score(truth[labelled].astype(str), predicted[labelled].astype(str))
    unknown = sorted(set(truth[labelled].tolist()) - set(model.annotator.types))
    return Evaluation(
        stage=model.record.number,
        cells=int(labelled.sum()),
        unknown_types=tuple(unknown),
        novelty=_novelty(verdict, answers, truth, predicted, labelled, novel) if novel else None,
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


def _novelty(
    verdict: Verdict,
    answers: Answers,
    truth: np.ndarray,
    predicted: np.ndarray,
    labelled: np.ndarray,
    novel: Sequence[str],
) -> dict[str, float]:
    columns = verdict.columns(answers, predicted)
    figures = novelty_figures(
        columns["novelty"][labelled],
        columns["status"][labelled] == "novel",
        predicted[labelled] == truth[labelled],
        np.isin(truth[labelled], list(novel)),
    )
    said = {name: value for name, value in verdict.facts().items() if isinstance(value, float)}
    return said | figures.to_dict()


def joint_logistic_regression(train: list[Cells], test: list[Cells], n_genes: int = 2000) -> list[tuple[float, float]]:
    """Train logistic regression on the cells of all stages at once and score it on each test.

    No continual learner may see that much: it is the figure to come near.

    Parameters
    ----------
    train, test
        Labelled cells.
    n_genes
        Highly variable genes of each stage.

    Returns
    -------
    Accuracy and macro-F1 of each test.
    """
    predict = fit_joint(train, n_genes)
    results = []
    for cells in test:
        assert cells.labels is not None
        figures = score(cells.labels.astype(str), predict(cells).astype(str))
        results.append((figures["accuracy"], figures["macro_f1"]))
    return results


def fit_joint(train: list[Cells], n_genes: int = 2000) -> Callable[[Cells], np.ndarray]:
    """Train logistic regression on all cells; return what names the cells of a file.

    The panel is the union of each stage's highly variable genes, unmeasured genes are zero, C = 0.1.
    """
    from sklearn.linear_model import LogisticRegression

    panel = GenePanel.empty()
    for number, cells in enumerate(train, 1):
        columns = highly_variable(cells, n_genes)
        panel = panel.extended(cells.genes.take(columns), number)
    values = sp.vstack([_on(panel, cells) for cells in train])
    labels = np.concatenate([cells.labels for cells in train if cells.labels is not None]).astype(str)
    model = LogisticRegression(C=0.1, max_iter=500).fit(values, labels)
    return lambda cells: np.asarray(model.predict(_on(panel, cells)))


def _on(panel: GenePanel, cells: Cells) -> sp.csr_matrix:
    return panel.match(cells.genes).project(cells.expression)
