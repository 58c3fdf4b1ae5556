"""`canal novel find`: the novel cells of a file in groups, with the evidence for each group.

Which cells are grouped: the novel ones, and those that lie among them. A cell is judged by itself, so that many cells
of a new type near a known one pass for known. In the file they lie among the others of their type: a cell most of whose
neighbours are novel or uncertain is grouped with them. Its own verdict stays what it was.

Shapes: n candidate cells, G genes, d principal components.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

import canal
from canal.data.stream import open_stream
from canal.errors import StageError
from canal.model.model import Model
from canal.model.novelty.calibration import check_alpha
from canal.novel.folder import check_folder, result_files, write_folder
from canal.novel.groups import (
    ASIDE,
    KNOWN,
    LEAST_KNOWN,
    Groups,
    Separation,
    cluster_cells,
    find_markers,
    renumbered,
    separation,
)
from canal.novel.report import NovelCluster, NovelReport
from canal.progress import Progress, Silent
from canal.report.annotation import Annotation
from canal.report.groups import MarkerGene, NearestType
from canal.seeds import derived_seed, numpy_generator
from canal.stages.adapting import AdaptOptions, batch_column
from canal.stages.annotate import AnnotateOptions, annotate
from canal.stages.clusters import NEAREST, principal_components
from canal.stages.novelty_rules import NoveltyOptions

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class FindOptions:
    """What is grouped, and how; every default is that of the command line.

    Attributes
    ----------
    alpha
        Share of known cells that may be called novel.
    min_size
        Clusters below are set aside.
    resolution
        Higher for more clusters.
    batch
        Column of ``obs`` with batch or donor; found by its name by default.
    gene_key
        Column of ``var`` with the gene names.
    uncertain
        Take uncertain cells too.
    adapt
        Adapt the model to the file, batch by batch, before it judges.
    """

    alpha: float = 0.05
    min_size: int = 10
    resolution: float = 1.0
    batch: str | None = None
    gene_key: str | None = None
    uncertain: bool = False
    adapt: bool = False


def find_novel(
    model: Model,
    data: "str | Path | ad.AnnData",
    out: Path,
    options: FindOptions,
    progress: Progress | None = None,
) -> NovelReport:
    """Group the novel cells of a file and write the evidence for each group.

    Parameters
    ----------
    model
        Model of a committed stage; it judges.
    data
        File of cells, or an AnnData; it is not changed.
    out
        Folder to write, whole or not at all: `novel.h5ad`, `names.csv`, `novel.json`, `index.html` and pictures.
    options
        What is grouped, and how.
    progress
        Told about every block of cells.

    Raises
    ------
    DataError, StageError
        If file, folder, column or model cannot be used; nothing is written then.
    """
    # Whatever can be refused before the cells are read.
    _check(options)
    target = check_folder(out)
    groups = group_novel(model, data, options, progress)
    sure = sure_known_cells(groups.annotation, groups.cells, groups.cells.seed)
    report = replace(
        groups.report, known_cells=dict(sorted(Counter(groups.annotation.cell_type[sure].tolist()).items()))
    )
    write_folder(target, report, result_files(data, groups.annotation, groups.cells, report, sure))
    return report


@dataclass(frozen=True, kw_only=True)
class NovelGroups:
    """The novel cells of a file in groups: what the model says of all cells, the groups, and the report of them."""

    annotation: Annotation
    cells: Groups
    report: NovelReport


STEPS = 10  # of the grouping; of 25,000 novel cells among 100,000 reading takes a fifth of it, clusters a half


def group_novel(
    model: Model,
    data: "str | Path | ad.AnnData",
    options: FindOptions,
    progress: Progress | None = None,
    annotation: Annotation | None = None,
) -> NovelGroups:
    """Group the novel cells of a file; nothing is written.

    Parameters
    ----------
    model, data, options, progress
        As for `find_novel`.
    annotation
        What the model says of all cells of the file, where it was asked already; the file is not annotated again then.

    Raises
    ------
    DataError, StageError
        If file, column or model cannot be used.
    """
    _check(options)
    batches = _read_batches(data, options)
    # 1. Which cells are novel, and which groups they form.
    asked = AnnotateOptions(
        gene_key=options.gene_key,
        novelty=NoveltyOptions(alpha=options.alpha),
        adapting=AdaptOptions(adapt=options.adapt, batch=options.batch if options.adapt else None),
    )
    if annotation is None:
        annotation = annotate(model, data, asked, progress)
    seed = derived_seed(model.stage.seed, "novel")
    progress = progress or Silent()
    progress.start(STEPS, "grouping novel cells")
    groups = _group_cells(data, annotation, options, seed, progress)
    counts = _count_status(annotation)
    # 2. The evidence for each group.
    report = NovelReport(
        model=str(annotation.facts["model"]),
        stage=int(annotation.facts["stage"]),
        canal_version=canal.__version__,
        data=str(data) if isinstance(data, str | Path) else "AnnData",
        data_digest=str(annotation.facts["data_digest"]),
        alpha=options.alpha,
        uncertain_too=options.uncertain,
        resolution=options.resolution,
        min_size=options.min_size,
        seed=seed,
        cells=len(annotation),
        cells_by_status=counts,
        taken=int((~groups.known).sum()),
        for_neighbours=_count_for_neighbours(annotation, groups, options),
        aside=int((groups.groups == ASIDE).sum()),
        batch="" if batches is None else str(batches.name),
        known_types=tuple(model.stage.types),
        clusters=_describe_clusters(groups, annotation, batches),
        warnings=(
            *annotation.facts.get("warnings", ()),
            *_calibration_warning(annotation),
            *_doubts(counts, groups),
        ),
        sanity=str(annotation.facts["sanity"]),
    )
    progress.advance(1)
    progress.close()
    return NovelGroups(annotation=annotation, cells=groups, report=report)


def _check(options: FindOptions) -> None:
    check_alpha(options.alpha)
    if options.min_size < 2 or not 0 < options.resolution < np.inf:
        message = (
            f"min-size is {options.min_size} and resolution {options.resolution:g}; expected 2 cells at least and a "
            "positive number."
        )
        raise StageError(message)


MOSTLY_NOVEL = 0.5  # share of novel cells above which a new technology is likelier than so many new types


def _doubts(counts: dict[str, int], groups: Groups) -> list[str]:
    """Return what speaks against taking the clusters for types."""
    doubts = []
    share = counts["novel"] / max(sum(counts.values()), 1)
    if share > MOSTLY_NOVEL:
        doubts.append(
            f"{share:.0%} of the cells are called novel. A technology, tissue or preparation that the model has not "
            "seen is likelier than so many new types: look at the markers, and name only what has its own."
        )
    if len(groups.rows) and groups.known.sum() < LEAST_KNOWN:
        doubts.append(
            f"The file has {int(groups.known.sum())} known cells to compare with; expected {LEAST_KNOWN} at least. "
            "Whether a cluster stands apart from the known types cannot be told."
        )
    return doubts


SURE = 0.9  # confidence from which a known cell may teach its type again
MOST_SURE = 200  # such cells of a type that are kept


def sure_known_cells(annotation: Annotation, groups: Groups, seed: int) -> np.ndarray:
    """Return positions in the file, ascending, of cells that are surely of known types, `MOST_SURE` of each type.

    Known beyond doubt, confident and not grouped for their neighbours; a type with fewer than two such cells has none.

    Parameters
    ----------
    annotation
        Of all cells of the file.
    groups
        The cells that were grouped.
    seed
        Draws the cells of large types.
    """
    free = np.ones(len(annotation), dtype=bool)
    free[groups.rows[~groups.known]] = False
    return sure_cells(annotation, free, seed)


def sure_cells(annotation: Annotation, free: np.ndarray, seed: int) -> np.ndarray:
    """Return positions, ascending, of the free cells, bool (cells,), that are surely of known types; see above."""
    sure = free & (annotation.columns["status"] == "known") & (annotation.confidence >= SURE)
    chosen = [np.zeros(0, dtype=np.int64)]
    for name in sorted(set(annotation.cell_type[sure].tolist())):
        rows = np.flatnonzero(sure & (annotation.cell_type == name))
        if len(rows) > 1:
            chosen.append(numpy_generator(seed, f"sure:{name}").permutation(rows)[:MOST_SURE])
    return np.sort(np.concatenate(chosen))


def _read_batches(data: "str | Path | ad.AnnData", options: FindOptions) -> "pd.Series | None":
    """Return the batch of each cell, ``None`` where no column was asked for and none is found."""
    with open_stream(data, gene_key=options.gene_key) as stream:
        obs, column = stream.obs, batch_column(stream, options.batch)
    return None if column is None else obs[column].astype(str).rename(column)


def _verdicts_to_group(options: FindOptions) -> tuple[str, ...]:
    """Return the verdicts for which a cell is grouped whatever its neighbours are."""
    return ("novel", "uncertain") if options.uncertain else ("novel",)


def _group_cells(
    data: "str | Path | ad.AnnData", annotation: Annotation, options: FindOptions, seed: int, progress: Progress
) -> Groups:
    """Select the cells to group, cluster them, and keep known cells to compare them with."""
    # 1. Candidates: the novel cells and a sample of all others.
    status = annotation.columns["status"]
    candidates = choose_candidates(status, _verdicts_to_group(options), seed)
    if not candidates.by_verdict.any():
        return _no_groups(seed)
    expression, genes = _read_expression(data, candidates.rows, options.gene_key)
    progress.advance(2)
    if len(candidates.rows) > 1:
        points = principal_components(expression, seed)
    else:
        points = np.zeros((len(candidates.rows), 1), np.float32)
    # 2. The cells to group come first, known cells after them; uncertain cells that are not grouped are left out.
    grouped = select_cells_to_group(candidates, points)
    known = ~grouped & (status[candidates.rows] == "known")
    order = np.concatenate([np.flatnonzero(grouped), np.flatnonzero(known)])
    rows, expression, points = candidates.rows[order], expression[order], points[order]
    best = annotation.columns["best_known"][rows]
    progress.advance(2)
    # 3. The clusters of the former.
    n = int(grouped.sum())
    clusters = cluster_cells(
        expression[:n],
        points[:n],
        annotation.representation[rows[:n]],
        resolution=options.resolution,
        min_size=options.min_size,
        seed=seed,
    )
    progress.advance(5)
    # 4. Those that stand apart from the known cells get the first numbers; within both kinds the larger come first.
    apart = {}
    for name in set(clusters.tolist()) - {ASIDE}:
        apart[name] = separation(points[:n][clusters == name], points[n:], best[n:], seed).apart
    by_evidence = sorted(apart, key=lambda name: (not apart[name], int(name)))
    names = np.concatenate([renumbered(clusters, by_evidence), np.full(len(rows) - n, KNOWN, dtype=object)])
    return Groups(rows=rows, groups=names, best=best, expression=expression, genes=genes, points=points, seed=seed)


# A cell is grouped for its neighbours if this share of them is novel or uncertain. Chosen on the test files of the
# immune stream with one type left out, by benchmarks/novel_find.py (docs/novelty.md).
NOVEL_NEIGHBOURS = 0.6
ROUNDS = 10  # a cell that was selected counts as novel in the next round
MOST_OTHERS = 3_000  # cells of the file that stand for all whose own verdict is not enough


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Cells of a file that may be grouped.

    Attributes
    ----------
    rows
        Their positions in the file: first those whose own verdict is enough, then the others, (n,).
    by_verdict
        Whether the cell's own verdict is enough, bool (n,).
    doubtful
        Whether it is novel or uncertain, bool (n,).
    weight
        How many cells of the file it stands for, (n,).
    """

    rows: np.ndarray
    by_verdict: np.ndarray
    doubtful: np.ndarray
    weight: np.ndarray


def choose_candidates(status: np.ndarray, verdicts: tuple[str, ...], seed: int) -> Candidates:
    """Return all cells whose own verdict is enough and up to `MOST_OTHERS` of the others.

    Parameters
    ----------
    status
        Verdict on each cell of the file, (cells,).
    verdicts
        Those that are enough.
    seed
        Draws the others.
    """
    by_verdict = np.isin(status, verdicts)
    own, others = np.flatnonzero(by_verdict), np.flatnonzero(~by_verdict)
    stands_for = max(len(others) / MOST_OTHERS, 1.0)
    if len(others) > MOST_OTHERS:
        others = np.sort(numpy_generator(seed, "known cells").choice(others, MOST_OTHERS, replace=False))
    rows = np.concatenate([own, others])
    return Candidates(
        rows=rows,
        by_verdict=by_verdict[rows],
        doubtful=status[rows] != "known",
        weight=np.where(by_verdict[rows], 1.0, stands_for),
    )


def select_cells_to_group(cells: Candidates, points: np.ndarray) -> np.ndarray:
    """Return which cells are grouped: by their own verdict, or for their neighbours, bool (n,).

    Parameters
    ----------
    cells
        The candidates.
    points
        Their principal components, (n, d).
    """
    from sklearn.neighbors import NearestNeighbors

    k = min(NEAREST, len(points) - 1)
    if k < 1 or not cells.by_verdict.any():
        return cells.by_verdict
    # The neighbours of each cell, (n, k), and how many cells of the file each of them stands for.
    index: Any = NearestNeighbors(n_neighbors=k + 1).fit(points)
    neighbours = index.kneighbors(points, return_distance=False)[:, 1:]  # the first is the cell itself
    weight = cells.weight[neighbours]
    # Cells among novel ones are selected, and count as novel themselves, until nothing changes any more.
    selected, doubtful = cells.by_verdict, cells.doubtful
    # Where much of the file is novel, that many neighbours are novel by chance: few known cells must not be absorbed.
    by_chance = float((cells.weight * doubtful).sum() / cells.weight.sum())
    enough = max(NOVEL_NEIGHBOURS, (1 + by_chance) / 2)
    for _ in range(ROUNDS):
        among_novel = (weight * doubtful[neighbours]).sum(axis=1) / weight.sum(axis=1) >= enough
        before = doubtful
        selected, doubtful = selected | among_novel, doubtful | among_novel
        if (doubtful == before).all():
            break
    return np.asarray(selected)


def _no_groups(seed: int) -> Groups:
    nothing = np.zeros(0, dtype=object)
    return Groups(
        rows=np.zeros(0, dtype=np.int64),
        groups=nothing,
        best=nothing,
        expression=sp.csr_matrix((0, 0), dtype=np.float32),
        genes=(),
        points=np.zeros((0, 1), dtype=np.float32),
        seed=seed,
    )


def _read_expression(
    data: "str | Path | ad.AnnData", rows: np.ndarray, gene_key: str | None
) -> tuple[sp.csr_matrix, tuple[str, ...]]:
    """Return some cells of a file in the given order, log-normalised (n, G), and the genes; it is read by blocks."""
    # The file is read from its first row to its last, so the cells are taken in the order of their rows ...
    ascending = np.sort(rows)
    blocks, start = [], 0
    with open_stream(data, gene_key=gene_key) as stream:
        for block in stream.chunks():
            stop = start + block.shape[0]
            inside = ascending[(ascending >= start) & (ascending < stop)]
            blocks.append(block[inside - start])
            start = stop
        # ... and brought into the order that was asked for.
        return sp.vstack(blocks, format="csr")[np.searchsorted(ascending, rows)], stream.genes.names


def _calibration_warning(annotation: Annotation) -> tuple[str, ...]:
    """Return a warning where the verdicts are not calibrated for the file."""
    facts = annotation.facts
    if facts.get("calibrated_for") != "no":
        return ()
    warning = (
        f"Novelty is not calibrated for this file: {facts['unlike']:.0%} of its cells look unlike those that were "
        "taught, where 5% would. More known cells are among the novel ones than alpha allows."
    )
    return (warning,) if "adapted" in facts else (f"{warning} Try --adapt.",)


def _count_status(annotation: Annotation) -> dict[str, int]:
    status = annotation.columns["status"]
    return {name: int((status == name).sum()) for name in ("known", "uncertain", "novel")}


def _count_for_neighbours(annotation: Annotation, groups: Groups, options: FindOptions) -> int:
    """Return how many grouped cells were selected for their neighbours, not for their own verdict."""
    status = annotation.columns["status"][groups.rows[~groups.known]]
    return int((~np.isin(status, _verdicts_to_group(options))).sum())


MOST_MARKERS = 10  # genes of a table
MOST_NEAREST = 3  # known types of a table


def _describe_clusters(cells: Groups, annotation: Annotation, batches: "pd.Series | None") -> tuple[NovelCluster, ...]:
    # Marker genes against the known cells, and against the other clusters.
    in_cluster = (cells.groups != ASIDE) & ~cells.known
    against_known = _find_markers(cells, in_cluster | cells.known, KNOWN)
    against_others = _find_markers(cells, in_cluster, "rest")
    clusters = []
    for name in cells.clusters:
        own = cells.groups == name
        rows = cells.rows[own]
        # How far it stands from the known cells, and which of their types are nearest.
        separated = separation(cells.points[own], cells.points[cells.known], cells.best[cells.known], cells.seed)
        nearest = _nearest_types(annotation, rows)
        markers = against_known.get(name, ())
        cells_of_batch: dict[str, int] = {}
        if batches is not None:
            cells_of_batch = dict(Counter(batches.to_numpy()[rows].tolist()).most_common())
        clusters.append(
            NovelCluster(
                name=name,
                cells=len(rows),
                suggested=_suggested_name(nearest[0].name, separated, (*markers, *against_others.get(name, ()))),
                apart=separated.apart,
                silhouette=separated.silhouette,
                own_share=separated.own_share,
                batches=cells_of_batch,
                markers=markers,
                markers_others=against_others.get(name, ()),
                near=nearest,
                novelty=float(annotation.columns["novelty"][rows].mean()),
                p_value=float(annotation.columns["p_value"][rows].mean()),
                confidence=float(annotation.confidence[rows].mean()),
            )
        )
    return tuple(clusters)


NAMED_MARKERS = 3  # of a suggested name
HOUSEKEEPING = re.compile(r"(MT-|RP[SL]\d|MALAT1$|NEAT1$)", re.IGNORECASE)  # genes that tell of no type


def _suggested_name(nearest: str, separated: Separation, markers: Sequence[MarkerGene]) -> str:
    """Return a name to work with: the nearest known type and the first marker genes that tell of a type."""
    genes = []
    for marker in markers:
        if not HOUSEKEEPING.match(marker.gene) and marker.gene not in genes:
            genes.append(marker.gene)
    # Where there is nothing to compare with it is no edge either.
    edge = separated.comparable and not separated.apart
    listed = f" ({', '.join(genes[:NAMED_MARKERS])})" if genes else ""
    return f"{'edge of' if edge else 'near'} {nearest}{listed}"


def _find_markers(cells: Groups, used: np.ndarray, reference: str) -> dict[str, tuple[MarkerGene, ...]]:
    """Return the marker genes of each cluster among the cells that are used, bool (cells,)."""
    return find_markers(cells.expression[used], cells.groups[used], cells.genes, reference=reference, top=MOST_MARKERS)


def _nearest_types(annotation: Annotation, rows: np.ndarray) -> tuple[NearestType, ...]:
    """Return the known types that most cells come nearest to."""
    best, known = annotation.columns["best_known"], annotation.columns["status"] == "known"
    centre = annotation.representation[rows].mean(axis=0)
    nearest = []
    for name, count in Counter(best[rows].tolist()).most_common(MOST_NEAREST):
        # The distance to the centre of the type's known cells; a file may have none.
        of_type = annotation.representation[known & (best == name)]
        distance = float(np.linalg.norm(of_type.mean(axis=0) - centre)) if len(of_type) else None
        nearest.append(NearestType(name=str(name), share=count / len(rows), distance=distance))
    return tuple(nearest)
