"""`canal evaluate`: an annotation against given labels, and a plain model to compare it with.

`evaluate` is the whole of the command. Below it stands logistic regression on all cells at once: what a plain model
reaches on the same cells, so that no figure of ours stands alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from canal.data.cells import Cells
from canal.data.labels import LabelOptions
from canal.data.panel import GenePanel
from canal.data.stream import open_stream
from canal.data.variable_genes import highly_variable
from canal.errors import DataError
from canal.figures import novelty_figures, score
from canal.model.model import Model
from canal.progress import Progress, Silent
from canal.stages.adapting import AdaptOptions, adapt_to_file
from canal.stages.novelty_rules import ALPHA, NoRule, NoveltyOptions, NoveltyRule, choose_rule
from canal.stages.predictions import Answers, answer_stream, reader_of
from canal.stages.sanity import gene_agreement, sanity_facts, sanity_warnings
from canal.stages.sure_answers import granular_figures, sure_rule

if TYPE_CHECKING:
    import anndata as ad


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well an annotation agrees with given labels; the JSON of `canal evaluate`.

    Attributes
    ----------
    stage
        Stage whose model annotated.
    cells
        Number of cells with a label.
    accuracy, macro_f1, ari
        Share of rightly typed cells; mean F1 over the types present in the data; adjusted Rand index.
    per_type
        Precision, recall, F1 and support of each type present.
    unknown_types
        Types of the data that the model does not know; their cells count as wrong.
    novelty
        Figures of the detection of novel types, where some were named.
    panel_genes, measured_genes, gene_agreement, sanity
        Whether the file fits the model; see `canal.stages.sanity`.
    unlabelled, dropped_labels
        Cells that have no label, and labels that name no type with their number of cells; neither counts.
    warnings
        Sentences on the file for the person.
    adapted
        How the model was adapted to the file, where that was asked for; see `canal.stages.adapting`.
    granularity
        Figures for labels of mixed granularity, where the types of the model stand in the Cell Ontology; see
        `canal.stages.sure_answers.granular_figures`.
    """

    stage: int
    cells: int
    accuracy: float
    macro_f1: float
    ari: float
    per_type: dict[str, dict[str, float]]
    unknown_types: tuple[str, ...] = ()
    novelty: dict[str, float] | None = None
    panel_genes: int = 0
    measured_genes: int = 0
    gene_agreement: float | None = None
    sanity: str = ""
    unlabelled: int = 0
    dropped_labels: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    adapted: dict[str, Any] | None = None
    granularity: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; ``adapted`` and ``granularity`` are among them where there are some."""
        values = asdict(self)
        for name in ("adapted", "granularity"):
            if values[name] is None:
                del values[name]
        return values


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How labelled cells are read, and what is scored beside the types.

    Attributes
    ----------
    labels
        Column of ``obs`` with the cell types.
    label_map, gene_key
        CSV with the file's names of types and ours; column of ``var`` with the gene names.
    drop_labels, keep_labels
        Labels whose cells do not count; types although their name says that they are none, such as "other".
    novel
        Types of the file that the model was never taught: how well it tells them from the others is scored, too.
    novelty
        How novelty is judged.
    adapting
        Whether the file's own cells help to answer.
    """

    labels: str
    label_map: Path | Mapping[str, str] | None = None
    drop_labels: Sequence[str] = ()
    keep_labels: Sequence[str] = ()
    gene_key: str | None = None
    novel: Sequence[str] = ()
    novelty: NoveltyOptions = field(default_factory=NoveltyOptions)
    adapting: AdaptOptions = field(default_factory=AdaptOptions)


def evaluate(
    model: Model,
    data: "str | Path | ad.AnnData",
    options: EvaluateOptions,
    progress: Progress | None = None,
) -> Evaluation:
    """Annotate labelled cells and score the annotation; cells without a label are left out of the figures.

    Parameters
    ----------
    model
        Model of a committed stage.
    data
        File of labelled cells, or an AnnData.
    options
        Column of the labels, and what is scored.
    progress
        Told about every block of cells.

    Raises
    ------
    DataError
        If the file cannot be used, has no label, or has no cell of a type that is said to be novel.
    """
    # A label that is a type for the model, or is asked for, counts whatever it is called.
    kept = (*model.answers, *options.novel, *options.keep_labels)
    labels = LabelOptions(
        column=options.labels, label_map=options.label_map, drop=options.drop_labels, keep=kept, drop_must_occur=True
    )
    with open_stream(data, gene_key=options.gene_key, labels=labels, wanted=model.panel) as stream:
        # Novelty is judged only where novel types are named.
        adapted = adapt_to_file(reader_of(model, stream), stream, options.adapting)
        reader = adapted.reader
        rule: NoveltyRule = NoRule(reader)
        if options.novel:
            asked = _with_rate_of_false_alarms(options.novelty, model)
            rule = choose_rule(asked, reader, cells=len(stream), seed=model.stage.seed)
        agreement = gene_agreement(reader, stream)
        sure = sure_rule(model, None)
        answers = answer_stream(
            rule.reader, stream, progress or Silent(), watch=rule.add, groups=adapted.groups, sure=sure
        )
        truth, report = stream.labels, stream.report
    path = report.path
    # Cells without a label were annotated with the others, but do not count.
    assert truth is not None
    predicted, _ = answers.answered(model)
    labelled = truth.astype(str) != ""
    if not labelled.any():
        message = f"{path} has no labelled cell in {options.labels!r}. Name the column of the cell types with --labels."
        raise DataError(message)
    # How well novel types are told from known ones, and how well the types are met.
    novelty = None
    if options.novel:
        _check_novel(options.novel, truth[labelled], model, path)
        novelty = _novelty(rule, answers, truth, labelled, options.novel)
    granularity = None
    if sure is not None and answers.sure is not None:
        granularity = granular_figures(
            model, truth[labelled].astype(str), predicted[labelled], sure, answers.sure[labelled]
        )
    figures = score(truth[labelled].astype(str), predicted[labelled].astype(str))
    unknown = sorted(set(truth[labelled].tolist()) - set(model.answers))
    sanity = sanity_facts(reader.match, agreement, None)
    del sanity["share_novel"]  # types are scored here
    return Evaluation(
        stage=model.stage.number,
        cells=int(labelled.sum()),
        unknown_types=tuple(unknown),
        novelty=novelty,
        unlabelled=report.unlabelled,
        dropped_labels=report.dropped_labels,
        warnings=(*report.warnings, *sanity_warnings(reader.match, agreement, path)),
        **sanity,
        adapted=adapted.facts.get("adapted"),
        granularity=granularity,
        **figures,
    )


def _with_rate_of_false_alarms(novelty: NoveltyOptions, model: Model) -> NoveltyOptions:
    """Ask for a rate of false alarms where the memory judges, so that a model that cannot tell is an error."""
    by_memory = model.preset.novelty.detector == "memory"
    if novelty.alpha is None and not novelty.transductive and novelty.min_probability is None and by_memory:
        return replace(novelty, alpha=ALPHA)
    return novelty


def _check_novel(novel: Sequence[str], truth: np.ndarray, model: Model, path: str) -> None:
    """Refuse novel types of which the file has no cell, or that the model knows."""
    absent = sorted(set(novel) - set(truth.tolist()))
    known = sorted(set(novel) & set(model.answers))
    if absent:
        message = f"{path} has no cell of {', '.join(map(repr, absent))}; --novel names types of the file's labels."
        raise DataError(message)
    if known:
        message = f"The model knows {', '.join(map(repr, known))}; --novel names types that it was never taught."
        raise DataError(message)


def _novelty(
    rule: NoveltyRule, answers: Answers, truth: np.ndarray, labelled: np.ndarray, novel: Sequence[str]
) -> dict[str, float]:
    """Return the figures of the detection of novel types, and the numbers of the rule that judged."""
    predicted = answers.names(rule.reader.model.types)
    columns = rule.columns(answers, predicted)
    figures = novelty_figures(
        columns["novelty"][labelled],
        columns["status"][labelled] == "novel",
        predicted[labelled] == truth[labelled],
        np.isin(truth[labelled], list(novel)),
    )
    numbers = {name: value for name, value in rule.facts().items() if isinstance(value, float)}
    return numbers | figures.to_dict()


# Of the logistic regression: highly variable genes of each stage, inverse strength of the ridge, rounds of the solver.
REGRESSION_GENES, REGRESSION_C, REGRESSION_ROUNDS = 2000, 0.1, 500


def joint_logistic_regression(train: list[Cells], test: list[Cells]) -> list[tuple[float, float]]:
    """Train logistic regression on the cells of all stages at once and score it on each test set.

    No continual learner may see all cells at once: its figures are those to come near.

    Parameters
    ----------
    train, test
        Labelled cells of each stage, and of each test set.

    Returns
    -------
    Accuracy and macro-F1 on each test set.
    """
    predict = fit_logistic_regression(train)
    results = []
    for cells in test:
        assert cells.labels is not None
        figures = score(cells.labels.astype(str), predict(cells).astype(str))
        results.append((figures["accuracy"], figures["macro_f1"]))
    return results


def fit_logistic_regression(train: list[Cells]) -> Callable[[Cells], np.ndarray]:
    """Train logistic regression on the cells of all stages; return the function that predicts the types of cells.

    The gene panel is the union of each stage's highly variable genes; genes that a file does not measure are zero.
    """
    from sklearn.linear_model import LogisticRegression

    panel = GenePanel.empty()
    for number, cells in enumerate(train, 1):
        columns = highly_variable(cells, REGRESSION_GENES)
        panel = panel.extended(cells.genes.take(columns), number)
    values = sp.vstack([_panel_values(panel, cells) for cells in train])
    labels = np.concatenate([cells.labels for cells in train if cells.labels is not None]).astype(str)
    model = LogisticRegression(C=REGRESSION_C, max_iter=REGRESSION_ROUNDS).fit(values, labels)
    return lambda cells: np.asarray(model.predict(_panel_values(panel, cells)))


def _panel_values(panel: GenePanel, cells: Cells) -> sp.csr_matrix:
    """Return the expression of the panel's genes, (cells, panel genes)."""
    return panel.match(cells.genes).project(cells.expression)
