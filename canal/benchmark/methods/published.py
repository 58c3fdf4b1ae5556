"""Marker genes: a CSV of type and gene, for methods that know types by their markers and by no cells.

Baselines of the scBERT paper by their published formulas; a cell they leave unassigned counts as wrong.

Published baselines that cannot run here, each with the reason: a row is never dropped silently.
"""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canal.benchmark.formulas import models, projection
from canal.benchmark.method import Context, Learn, Method, Predict, Unavailable, both_ways, labels_of
from canal.benchmark.methods.plain import GENES, on_panel
from canal.data.cells import Cells
from canal.data.labels import HEADERS, rows_of_csv
from canal.data.panel import GenePanel
from canal.data.variable_genes import highly_variable
from canal.errors import DataError

TITLES = HEADERS | {"type", "cell.type"}


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
    for number, row in rows_of_csv(path, TITLES):
        if len(row) != 2 or not all(row):
            message = f"{path}, line {number}: expected two columns, cell type and gene; found {row}."
            raise DataError(message)
        markers.setdefault(row[0], []).append(row[1].upper())
    if not markers:
        message = f"The marker table {path} is empty. Expected rows of two columns: cell type, gene."
        raise DataError(message)
    return {name: tuple(dict.fromkeys(genes)) for name, genes in markers.items()}


LN2 = np.log(2.0)
Answer = tuple[np.ndarray, np.ndarray]  # types and similarities of the cells


def fit_scibet(stages: Sequence[Cells], context: Context) -> Predict:
    """Learn the multinomial model on all cells, in the genes that every stage measures."""
    del context
    panel = _common_genes(stages)
    values = _log2(panel, stages)
    types, columns, model = models.learn(values, np.concatenate([labels_of(c) for c in stages]))
    chosen = panel.subset(columns)

    def predict(cells: Cells) -> np.ndarray:
        seen = np.flatnonzero(chosen.match(cells.genes).measured)
        test = on_panel(chosen, cells)[:, seen] / LN2
        return np.asarray(np.array(types)[models.log_likelihoods(test, model[:, seen]).argmax(axis=1)])

    return predict


def scmap_cluster(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
    """Keep the medians of every stage; of several stages the most similar type answers, as scmap joins references."""
    del context
    kept: list[tuple[GenePanel, list[str], np.ndarray]] = []
    for cells in stages:
        panel, values = _features(cells)
        kept.append((panel, *projection.medians(values, labels_of(cells))))

        yield lambda test, known=tuple(kept): _most_similar([_on_medians(test, *k) for k in known])  # type: ignore[misc]


def _on_medians(test: Cells, panel: GenePanel, types: list[str], index: np.ndarray) -> Answer:
    seen, values = _measured(panel, test)
    return projection.project_on_clusters(values, types, index[:, seen])


def fit_scmap_cell(stages: Sequence[Cells], context: Context) -> Predict:
    """Keep the cells of every stage; of several stages the one with the most similar cell answers."""
    del context
    kept = [(*_features(cells), labels_of(cells)) for cells in stages]

    def predict(test: Cells) -> np.ndarray:
        def one(panel: GenePanel, reference: np.ndarray, labels: np.ndarray) -> Answer:
            seen, values = _measured(panel, test)
            return projection.project_on_cells(values, reference[:, seen], labels)

        return _most_similar([one(*k) for k in kept])

    return predict


def cell_id(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
    """Keep the signature of every type of every stage; the best supported one answers."""
    del context
    kept: list[tuple[str, frozenset[str]]] = []
    for cells in stages:
        genes, values = _varying(cells)
        places, of_genes = models.correspondence(values)
        labels = labels_of(cells)
        for name in sorted(set(labels.tolist())):
            centre = places[labels == name].mean(axis=0, keepdims=True)
            nearest = models.nearest_genes(centre, of_genes)[0]
            kept.append((name, frozenset(genes[g] for g in nearest)))

        def predict(test: Cells, known: Sequence[tuple[str, frozenset[str]]] = tuple(kept)) -> np.ndarray:
            return _by_signatures(test, known)

        yield predict


def _by_signatures(test: Cells, known: Sequence[tuple[str, frozenset[str]]]) -> np.ndarray:
    genes, values = _varying(test)
    places, of_genes = models.correspondence(values)
    nearest = models.nearest_genes(places, of_genes)
    member = np.array([[g in signature for _, signature in known] for g in genes])
    sizes = member.sum(axis=0)
    usable = np.flatnonzero(sizes >= models.FEWEST)
    if not len(usable):
        return np.full(len(test), models.UNASSIGNED, dtype=object)
    shared = member[:, usable][nearest].sum(axis=1)
    support = models.evidence(shared, len(genes), nearest.shape[1], sizes[usable])
    names: np.ndarray = np.array([known[i][0] for i in usable.tolist()], dtype=object)
    return np.where(support.max(axis=1) > models.LEAST_EVIDENCE, names[support.argmax(axis=1)], models.UNASSIGNED)


def fit_seurat(stages: Sequence[Cells], context: Context) -> Predict:
    """Keep the cells in the stages' variable genes that every stage measures; a file's cells are told together."""
    del context
    panel = _variable_common_genes(stages)
    reference = np.concatenate([on_panel(panel, cells).toarray() for cells in stages]).astype(np.float64)
    labels = np.concatenate([labels_of(cells) for cells in stages])

    def predict(test: Cells) -> np.ndarray:
        seen = np.flatnonzero(panel.match(test.genes).measured)
        query = on_panel(panel, test)[:, seen].toarray().astype(np.float64)
        types, votes = projection.transfer(reference[:, seen], labels, query)
        return np.asarray(np.array(types, dtype=object)[votes.argmax(axis=1)])

    return predict


def marker_genes(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
    """Know types by the marker table; of the cells only the names of the types so far are used."""
    if context.markers is None:
        message = "it knows types by marker genes: name a CSV of type and gene with --markers"
        raise Unavailable(message)
    table = read_markers(context.markers)
    known: set[str] = set()
    for cells in stages:
        known |= set(labels_of(cells).tolist())
        missing = sorted(known - set(table))
        if missing:
            message = f"{context.markers} has no markers of {', '.join(missing)}"
            raise Unavailable(message)
        types = sorted(known)
        yield lambda test, types=types: _by_markers(test, types, table)  # type: ignore[misc]


def _by_markers(test: Cells, types: list[str], table: dict[str, tuple[str, ...]]) -> np.ndarray:
    """Assign with the markers that the file measures; a gene that marks two of the types marks neither."""
    column = {gene: i for i, gene in enumerate(test.genes)}
    of_gene: dict[str, list[int]] = {}
    for r, name in enumerate(types):
        for gene in table[name]:
            of_gene.setdefault(gene, []).append(r)
    used = [(column[g], rs[0]) for g, rs in of_gene.items() if len(rs) == 1 and g in column]
    present = sorted({r for _, r in used})
    if not used:
        return np.full(len(test), models.UNKNOWN, dtype=object)
    values = test.expression[:, [c for c, _ in used]].toarray().astype(np.float64)
    signature = np.array([present.index(r) for _, r in used])
    names = np.array([*(types[r] for r in present), models.UNKNOWN], dtype=object)
    return np.asarray(names[models.assign(values, signature).argmax(axis=1)])


def _common_genes(stages: Sequence[Cells]) -> GenePanel:
    panel = GenePanel.empty().extended(stages[0].genes, 1)
    for cells in stages[1:]:
        panel = panel.subset(np.flatnonzero(panel.match(cells.genes).measured))
    return panel


def _variable_common_genes(stages: Sequence[Cells]) -> GenePanel:
    common = _common_genes(stages)
    varying: set[int] = set()
    for cells in stages:
        position = {column: g for g, column in enumerate(common.match(cells.genes).columns.tolist())}
        varying |= {position[c] for c in highly_variable(cells, GENES).tolist() if c in position}
    return common.subset(np.array(sorted(varying), dtype=np.int64))


def _log2(panel: GenePanel, stages: Sequence[Cells]) -> Any:
    import scipy.sparse as sp

    return sp.vstack([on_panel(panel, cells) for cells in stages], format="csr") / LN2


def _features(cells: Cells) -> tuple[GenePanel, np.ndarray]:
    columns = projection.features(cells.expression / LN2)
    panel = GenePanel.empty().extended(cells.genes.take(columns), 1)
    return panel, cells.expression[:, columns].toarray() / LN2


def _measured(panel: GenePanel, test: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Return which features the file measures, and its cells on these."""
    seen = np.flatnonzero(panel.match(test.genes).measured)
    return seen, on_panel(panel, test)[:, seen].toarray() / LN2


def _most_similar(answers: Sequence[Answer]) -> np.ndarray:
    """Join the answers of several references: an assigned type with the highest similarity."""
    labels = np.stack([a for a, _ in answers])
    similarity = np.stack([s for _, s in answers])
    similarity = np.where((labels == projection.UNASSIGNED) | np.isnan(similarity), -np.inf, similarity)
    return np.asarray(labels[similarity.argmax(axis=0), np.arange(labels.shape[1])])


def _varying(cells: Cells) -> tuple[list[str], np.ndarray]:
    values = cells.expression.toarray()
    columns = np.flatnonzero(values.max(axis=0) > values.min(axis=0))
    return list(cells.genes.take(columns).names), values[:, columns].astype(np.float64)


METHODS = (
    *both_ways("scibet", "SciBet", "Li et al. 2020", fit_scibet),
    Method(name="scmap-cluster", title="scmap-cluster", group="peers", keeps="medians of 500 genes",
           reference="Kiselev et al. 2018", learn=scmap_cluster, seeded=False),
    *both_ways("scmap-cell", "scmap-cell", "Kiselev et al. 2018; exact neighbours", fit_scmap_cell),
    *both_ways("seurat", "Seurat label transfer", "Stuart et al. 2019; exact neighbours", fit_seurat),
    Method(name="cellid", title="Cell-ID", group="peers", keeps="200 genes a type", reference="Cortal et al. 2021",
           learn=cell_id, seeded=False),
    Method(name="scina", title="SCINA (markers, no cells)", group="peers", keeps="marker table",
           reference="Zhang et al. 2019", learn=marker_genes, seeded=False),
)  # fmt: skip


def _cannot(reason: str) -> Learn:
    def learn(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
        del stages, context
        yield from _raise(reason)

    return learn


def _raise(reason: str) -> Generator[Predict, None, None]:
    raise Unavailable(reason)


def _absent_row(name: str, title: str, reference: str, reason: str) -> Method:
    return Method(
        name=name, title=title, group="peers", keeps="-", reference=reference, learn=_cannot(reason), seeded=False
    )  # fmt: skip


UNAVAILABLE = (
    _absent_row("scnym", "scNym", "Kimmel and Kelley 2021",
         "its newest release (0.3.2) pins numpy 1.18, scipy 1.4 and torch 1.4, which have no wheels for Python 3.11 or "
         "newer"),
    _absent_row("garnett", "Garnett", "Pliner, Shendure and Trapnell 2019",
         "an R package on monocle3; there is no Python package"),
    _absent_row("scsorter", "scSorter", "Guo and Li 2021",
         "an R package; there is no Python package"),
)  # fmt: skip
