"""Baselines of the scBERT paper by their published formulas; a cell they leave unassigned counts as wrong."""

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np

from canal.benchmark.formulas import cellid, scibet, scina, scmap, seurat
from canal.benchmark.markers import read_markers
from canal.benchmark.method import Context, Method, Predict, Unavailable, both_ways, labels_of
from canal.benchmark.methods.plain import GENES, on_panel
from canal.data.cells import Cells
from canal.data.hvg import highly_variable
from canal.data.panel import GenePanel

LN2 = np.log(2.0)
Answer = tuple[np.ndarray, np.ndarray]  # types and similarities of the cells


def fit_scibet(stages: Sequence[Cells], context: Context) -> Predict:
    """Learn the multinomial model on all cells, in the genes that every stage measures."""
    del context
    panel = _common_genes(stages)
    values = _log2(panel, stages)
    types, columns, model = scibet.learn(values, np.concatenate([labels_of(c) for c in stages]))
    chosen = panel.subset(columns)

    def predict(cells: Cells) -> np.ndarray:
        seen = np.flatnonzero(chosen.match(cells.genes, cells.ensembl).measured)
        test = on_panel(chosen, cells)[:, seen] / LN2
        return np.asarray(np.array(types)[scibet.log_likelihoods(test, model[:, seen]).argmax(axis=1)])

    return predict


def scmap_cluster(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
    """Keep the medians of every stage; of several stages the most similar type answers, as scmap joins references."""
    del context
    kept: list[tuple[GenePanel, list[str], np.ndarray]] = []
    for cells in stages:
        panel, values = _features(cells)
        kept.append((panel, *scmap.medians(values, labels_of(cells))))

        yield lambda test, known=tuple(kept): _most_similar([_on_medians(test, *k) for k in known])  # type: ignore[misc]


def _on_medians(test: Cells, panel: GenePanel, types: list[str], index: np.ndarray) -> Answer:
    seen, values = _measured(panel, test)
    return scmap.project_on_clusters(values, types, index[:, seen])


def fit_scmap_cell(stages: Sequence[Cells], context: Context) -> Predict:
    """Keep the cells of every stage; of several stages the one with the most similar cell answers."""
    del context
    kept = [(*_features(cells), labels_of(cells)) for cells in stages]

    def predict(test: Cells) -> np.ndarray:
        def one(panel: GenePanel, reference: np.ndarray, labels: np.ndarray) -> Answer:
            seen, values = _measured(panel, test)
            return scmap.project_on_cells(values, reference[:, seen], labels)

        return _most_similar([one(*k) for k in kept])

    return predict


def cell_id(stages: Iterator[Cells], context: Context) -> Generator[Predict, None, None]:
    """Keep the signature of every type of every stage; the best supported one answers."""
    del context
    kept: list[tuple[str, frozenset[str]]] = []
    for cells in stages:
        genes, values = _varying(cells)
        places, of_genes = cellid.correspondence(values)
        labels = labels_of(cells)
        for name in sorted(set(labels.tolist())):
            centre = places[labels == name].mean(axis=0, keepdims=True)
            nearest = cellid.nearest_genes(centre, of_genes)[0]
            kept.append((name, frozenset(genes[g] for g in nearest)))

        def predict(test: Cells, known: Sequence[tuple[str, frozenset[str]]] = tuple(kept)) -> np.ndarray:
            return _by_signatures(test, known)

        yield predict


def _by_signatures(test: Cells, known: Sequence[tuple[str, frozenset[str]]]) -> np.ndarray:
    genes, values = _varying(test)
    places, of_genes = cellid.correspondence(values)
    nearest = cellid.nearest_genes(places, of_genes)
    member = np.array([[g in signature for _, signature in known] for g in genes])
    sizes = member.sum(axis=0)
    usable = np.flatnonzero(sizes >= cellid.FEWEST)
    if not len(usable):
        return np.full(len(test), cellid.UNASSIGNED, dtype=object)
    shared = member[:, usable][nearest].sum(axis=1)
    support = cellid.evidence(shared, len(genes), nearest.shape[1], sizes[usable])
    names: np.ndarray = np.array([known[i][0] for i in usable.tolist()], dtype=object)
    return np.where(support.max(axis=1) > cellid.LEAST_EVIDENCE, names[support.argmax(axis=1)], cellid.UNASSIGNED)


def fit_seurat(stages: Sequence[Cells], context: Context) -> Predict:
    """Keep the cells in the stages' variable genes that every stage measures; a file's cells are told together."""
    del context
    panel = _variable_common_genes(stages)
    reference = np.concatenate([on_panel(panel, cells).toarray() for cells in stages]).astype(np.float64)
    labels = np.concatenate([labels_of(cells) for cells in stages])

    def predict(test: Cells) -> np.ndarray:
        seen = np.flatnonzero(panel.match(test.genes, test.ensembl).measured)
        query = on_panel(panel, test)[:, seen].toarray().astype(np.float64)
        types, votes = seurat.transfer(reference[:, seen], labels, query)
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
        return np.full(len(test), scina.UNKNOWN, dtype=object)
    values = test.expression[:, [c for c, _ in used]].toarray().astype(np.float64)
    signature = np.array([present.index(r) for _, r in used])
    names = np.array([*(types[r] for r in present), scina.UNKNOWN], dtype=object)
    return np.asarray(names[scina.assign(values, signature).argmax(axis=1)])


def _common_genes(stages: Sequence[Cells]) -> GenePanel:
    panel = GenePanel.empty().extended(stages[0].genes, stages[0].ensembl, 1)
    for cells in stages[1:]:
        panel = panel.subset(np.flatnonzero(panel.match(cells.genes, cells.ensembl).measured))
    return panel


def _variable_common_genes(stages: Sequence[Cells]) -> GenePanel:
    common = _common_genes(stages)
    varying: set[int] = set()
    for cells in stages:
        position = {column: g for g, column in enumerate(common.match(cells.genes, cells.ensembl).columns.tolist())}
        varying |= {position[c] for c in highly_variable(cells, GENES).tolist() if c in position}
    return common.subset(np.array(sorted(varying), dtype=np.int64))


def _log2(panel: GenePanel, stages: Sequence[Cells]) -> Any:
    import scipy.sparse as sp

    return sp.vstack([on_panel(panel, cells) for cells in stages], format="csr") / LN2


def _features(cells: Cells) -> tuple[GenePanel, np.ndarray]:
    columns = scmap.features(cells.expression / LN2)
    panel = GenePanel.empty().extended([cells.genes[c] for c in columns], [cells.ensembl[c] for c in columns], 1)
    return panel, cells.expression[:, columns].toarray() / LN2


def _measured(panel: GenePanel, test: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Return which features the file measures, and its cells on these."""
    seen = np.flatnonzero(panel.match(test.genes, test.ensembl).measured)
    return seen, on_panel(panel, test)[:, seen].toarray() / LN2


def _most_similar(answers: Sequence[Answer]) -> np.ndarray:
    """Join the answers of several references: an assigned type with the highest similarity."""
    labels = np.stack([a for a, _ in answers])
    similarity = np.stack([s for _, s in answers])
    similarity = np.where((labels == scmap.UNASSIGNED) | np.isnan(similarity), -np.inf, similarity)
    return np.asarray(labels[similarity.argmax(axis=0), np.arange(labels.shape[1])])


def _varying(cells: Cells) -> tuple[list[str], np.ndarray]:
    values = cells.expression.toarray()
    columns = np.flatnonzero(values.max(axis=0) > values.min(axis=0))
    return [cells.genes[c] for c in columns], values[:, columns].astype(np.float64)


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
