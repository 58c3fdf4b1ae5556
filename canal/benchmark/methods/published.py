"""Published baselines of the scBERT paper, by their formulas in `canal.benchmark.formulas`.

A cell that a method leaves unassigned counts as wrong. Methods that know types by their marker genes read them from a
CSV of type and gene. Baselines that cannot run here have a row with the reason: none is dropped silently.
"""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canal.benchmark.formulas import models, projection
from canal.benchmark.method import Context, Learn, Method, Predict, Unavailable, labels_of, newest_and_joint
from canal.benchmark.methods.plain import VARIABLE_GENES, expression_on
from canal.data.cells import Cells
from canal.data.labels import HEADERS, rows_of_csv
from canal.data.panel import GenePanel
from canal.data.variable_genes import highly_variable
from canal.errors import DataError

LN2 = np.log(2.0)  # expression is a natural logarithm; SciBet and scmap take base 2
MARKER_HEADERS = HEADERS | {"type", "cell.type"}

Answer = tuple[np.ndarray, np.ndarray]  # of scmap: types and similarities of the cells, each (cells,)


def fit_scibet(stages: Sequence[Cells], context: Context) -> Predict:
    """Fit the multinomial model on all cells, in the genes that every stage measures."""
    del context
    panel = _common_genes(stages)
    types, columns, probabilities = models.fit_scibet(expression_on(panel, *stages) / LN2, labels_of(*stages))
    chosen = panel.subset(columns)

    def predict(test: Cells) -> np.ndarray:
        measured, expression = _measured_expression(chosen, test)
        likelihoods = models.log2_likelihoods(expression / LN2, probabilities[:, measured])
        return np.asarray(np.array(types)[likelihoods.argmax(axis=1)])

    return predict


class TypeMedians(NamedTuple):
    """What scmap-cluster keeps of a stage: its features, its types, and their median expression (types, features)."""

    panel: GenePanel
    types: list[str]
    medians: np.ndarray


def learn_scmap_cluster(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
    """Keep the medians of every stage; of several stages the most similar type wins, as scmap joins references."""
    del context
    references: list[TypeMedians] = []
    for cells in stages:
        # Of a stage only the medians are kept, on features of its own.
        panel, values = _scmap_features(cells)
        types, medians = projection.type_medians(values, labels_of(cells))
        references.append(TypeMedians(panel, types, medians))

        def predict(test: Cells, references: Sequence[TypeMedians] = tuple(references)) -> np.ndarray:
            answers = []
            for stage in references:
                measured, expression = _measured_expression(stage.panel, test)
                values = expression.toarray() / LN2
                answers.append(projection.project_on_clusters(values, stage.types, stage.medians[:, measured]))
            return _most_similar(answers)

        yield predict


def fit_scmap_cell(stages: Sequence[Cells], context: Context) -> Predict:
    """Keep the cells of every stage; of several stages the one with the most similar cell wins."""
    del context
    references = []
    for cells in stages:
        panel, values = _scmap_features(cells)
        references.append((panel, values, labels_of(cells)))

    def predict(test: Cells) -> np.ndarray:
        answers = []
        for panel, reference, labels in references:
            measured, expression = _measured_expression(panel, test)
            values = expression.toarray() / LN2
            answers.append(projection.project_on_cells(values, reference[:, measured], labels))
        return _most_similar(answers)

    return predict


def _scmap_features(cells: Cells) -> tuple[GenePanel, np.ndarray]:
    """Return the features of a stage, and log2 expression of its cells on these (cells, features)."""
    columns = projection.select_features(cells.expression / LN2)
    panel = GenePanel.empty().extended(cells.genes.take(columns), 1)
    return panel, cells.expression[:, columns].toarray() / LN2


def _most_similar(answers: Sequence[Answer]) -> np.ndarray:
    """Return for each cell the assigned type with the highest similarity over several references, (cells,)."""
    types, similarities = zip(*answers, strict=True)
    labels, similarity = np.stack(types), np.stack(similarities)
    similarity = np.where((labels == projection.UNASSIGNED) | np.isnan(similarity), -np.inf, similarity)
    return np.asarray(labels[similarity.argmax(axis=0), np.arange(labels.shape[1])])


class Signature(NamedTuple):
    """What Cell-ID keeps of a type: the genes nearest its centroid."""

    cell_type: str
    genes: frozenset[str]


def learn_cell_id(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
    """Keep the signature of every type of every stage; the best supported one wins."""
    del context
    signatures: list[Signature] = []
    for cells in stages:
        # Signatures of the types of this stage, beside those of earlier stages.
        genes, values = _varying_genes(cells)
        cell_points, gene_points = models.multiple_correspondence(values)
        labels = labels_of(cells)
        for name in sorted(set(labels.tolist())):
            centroid = cell_points[labels == name].mean(axis=0, keepdims=True)
            nearest = models.nearest_genes(centroid, gene_points)[0]
            signatures.append(Signature(name, frozenset(genes[g] for g in nearest)))

        def predict(test: Cells, signatures: Sequence[Signature] = tuple(signatures)) -> np.ndarray:
            return _predict_by_signatures(test, signatures)

        yield predict


def _predict_by_signatures(test: Cells, signatures: Sequence[Signature]) -> np.ndarray:
    """Return the type of each cell whose signature it shares most, unassigned where the evidence is weak, (cells,)."""
    # The signature of each cell, from the file alone.
    genes, values = _varying_genes(test)
    cell_points, gene_points = models.multiple_correspondence(values)
    nearest = models.nearest_genes(cell_points, gene_points)
    # Types of whose signature the file measures enough genes.
    in_signature = np.array([[gene in signature.genes for signature in signatures] for gene in genes])
    sizes = in_signature.sum(axis=0)
    usable = np.flatnonzero(sizes >= models.FEWEST_SIGNATURE_GENES)
    if not len(usable):
        return np.full(len(test), models.UNASSIGNED, dtype=object)
    shared = in_signature[:, usable][nearest].sum(axis=1)
    evidence = models.overlap_evidence(shared, len(genes), nearest.shape[1], sizes[usable])
    names: np.ndarray = np.array([signatures[i].cell_type for i in usable.tolist()], dtype=object)
    enough = evidence.max(axis=1) > models.LEAST_EVIDENCE
    return np.where(enough, names[evidence.argmax(axis=1)], models.UNASSIGNED)


def _varying_genes(cells: Cells) -> tuple[list[str], np.ndarray]:
    """Return the genes that are not constant in a file, and their expression in its cells, dense (cells, genes)."""
    values = cells.expression.toarray()
    columns = np.flatnonzero(values.max(axis=0) > values.min(axis=0))
    return list(cells.genes.take(columns).names), values[:, columns].astype(np.float64)


def fit_seurat(stages: Sequence[Cells], context: Context) -> Predict:
    """Keep the cells in variable genes that every stage measures; the cells of a file are labelled together."""
    del context
    panel = _common_variable_genes(stages)
    reference = expression_on(panel, *stages).toarray().astype(np.float64)
    labels = labels_of(*stages)

    def predict(test: Cells) -> np.ndarray:
        measured, expression = _measured_expression(panel, test)
        query = expression.toarray().astype(np.float64)
        types, votes = projection.transfer_labels(reference[:, measured], labels, query)
        return np.asarray(np.array(types, dtype=object)[votes.argmax(axis=1)])

    return predict


def _common_genes(stages: Sequence[Cells]) -> GenePanel:
    """Return the genes that every stage measures."""
    panel = GenePanel.empty().extended(stages[0].genes, 1)
    for cells in stages[1:]:
        panel = panel.subset(np.flatnonzero(panel.match(cells.genes).measured))
    return panel


def _common_variable_genes(stages: Sequence[Cells]) -> GenePanel:
    """Return the genes that every stage measures and that are highly variable in one at least."""
    common = _common_genes(stages)
    variable: set[int] = set()
    for cells in stages:
        # From the columns of this file to the rows of the panel.
        row_of_column = {column: row for row, column in enumerate(common.match(cells.genes).columns.tolist())}
        for column in highly_variable(cells, VARIABLE_GENES).tolist():
            if column in row_of_column:
                variable.add(row_of_column[column])
    return common.subset(np.array(sorted(variable), dtype=np.int64))


def _measured_expression(panel: GenePanel, test: Cells) -> tuple[np.ndarray, Any]:
    """Return which genes of a panel a file measures, and its cells on these, CSR float32 (cells, genes)."""
    measured = np.flatnonzero(panel.match(test.genes).measured)
    return measured, expression_on(panel, test)[:, measured]


def learn_markers(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
    """Take types from the marker table (SCINA); of the cells only the names of the types so far are used."""
    if context.markers is None:
        message = "it knows types by marker genes: name a CSV of type and gene with --markers"
        raise Unavailable(message)
    markers = read_markers(context.markers)
    known: set[str] = set()
    for cells in stages:
        # Every type so far must have markers; the cells themselves are not used.
        known |= set(labels_of(cells).tolist())
        missing = sorted(known - set(markers))
        if missing:
            message = f"{context.markers} has no markers of {', '.join(missing)}"
            raise Unavailable(message)

        def predict(test: Cells, types: Sequence[str] = tuple(sorted(known))) -> np.ndarray:
            return _predict_by_markers(test, types, markers)

        yield predict


def _predict_by_markers(test: Cells, types: Sequence[str], markers: dict[str, tuple[str, ...]]) -> np.ndarray:
    """Return the type of each cell by the markers that the file measures, (cells,)."""
    # A gene that marks two of the types marks neither.
    types_of_gene: dict[str, list[str]] = {}
    for name in types:
        for gene in markers[name]:
            types_of_gene.setdefault(gene, []).append(name)
    column_of_gene = {gene: column for column, gene in enumerate(test.genes)}
    columns, marked = [], []
    for gene, of_types in types_of_gene.items():
        if len(of_types) == 1 and gene in column_of_gene:
            columns.append(column_of_gene[gene])
            marked.append(of_types[0])
    if not columns:
        return np.full(len(test), models.UNKNOWN, dtype=object)
    # Types whose markers are all missing cannot be assigned.
    present = [name for name in types if name in marked]
    values = test.expression[:, columns].toarray().astype(np.float64)
    probabilities = models.type_probabilities(values, np.array([present.index(name) for name in marked]))
    names = np.array([*present, models.UNKNOWN], dtype=object)
    return np.asarray(names[probabilities.argmax(axis=1)])


def read_markers(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a marker table: type and gene, one marker a row; a header is optional.

    Raises
    ------
    DataError
        If the file is missing or a row has not two columns.
    """
    if not path.is_file():
        message = f"There is no marker table {path}. Expected a CSV file with two columns: cell type, gene."
        raise DataError(message)
    markers: dict[str, list[str]] = {}
    for number, row in rows_of_csv(path, MARKER_HEADERS):
        if len(row) != 2 or not all(row):
            message = f"{path}, line {number}: expected two columns, cell type and gene; found {row}."
            raise DataError(message)
        markers.setdefault(row[0], []).append(row[1].upper())
    if not markers:
        message = f"The marker table {path} is empty. Expected rows of two columns: cell type, gene."
        raise DataError(message)
    return {name: tuple(dict.fromkeys(genes)) for name, genes in markers.items()}  # each gene once


METHODS = (
    *newest_and_joint("scibet", "SciBet", "Li et al. 2020", fit_scibet),
    Method(
        name="scmap-cluster",
        title="scmap-cluster",
        group="peers",
        keeps="medians of 500 genes",
        reference="Kiselev et al. 2018",
        learn=learn_scmap_cluster,
        seeded=False,
    ),
    *newest_and_joint("scmap-cell", "scmap-cell", "Kiselev et al. 2018; exact neighbours", fit_scmap_cell),
    *newest_and_joint("seurat", "Seurat label transfer", "Stuart et al. 2019; exact neighbours", fit_seurat),
    Method(
        name="cellid",
        title="Cell-ID",
        group="peers",
        keeps="200 genes a type",
        reference="Cortal et al. 2021",
        learn=learn_cell_id,
        seeded=False,
    ),
    Method(
        name="scina",
        title="SCINA (markers, no cells)",
        group="peers",
        keeps="marker table",
        reference="Zhang et al. 2019",
        learn=learn_markers,
        seeded=False,
    ),
)


def _refuse(reason: str) -> Learn:
    """Return the method that cannot run, for a reason."""

    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        del stages, context
        raise Unavailable(reason)

    return learn


def _unavailable(name: str, title: str, reference: str, reason: str) -> Method:
    return Method(
        name=name, title=title, group="peers", keeps="-", reference=reference, learn=_refuse(reason), seeded=False
    )


UNAVAILABLE = (
    _unavailable(
        "scnym",
        "scNym",
        "Kimmel and Kelley 2021",
        "its newest release (0.3.2) pins numpy 1.18, scipy 1.4 and torch 1.4, which have no wheels for Python 3.11 or "
        "newer",
    ),
    _unavailable(
        "garnett",
        "Garnett",
        "Pliner, Shendure and Trapnell 2019",
        "an R package on monocle3; there is no Python package",
    ),
    _unavailable("scsorter", "scSorter", "Guo and Li 2021", "an R package; there is no Python package"),
)
