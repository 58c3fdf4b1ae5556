"""Which cells of a file are grouped: the novel ones, and those that lie among them.

A cell is judged by itself, so that of a type near a known one many cells pass for known. In the file they lie among
the others of their type: a cell most of whose neighbours are novel or uncertain is grouped with them. Its own verdict
stays what it was.

Shapes: n cells that are looked at, d principal components.

`canal novel find`: novel cells of a file in groups, with what speaks for each.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

import canal
from canal.data.stream import open_stream
from canal.errors import DataError, StageError
from canal.model.model import Model
from canal.model.novelty.calibration import check_alpha
from canal.novel.folder import check_folder, result_files, write_folder
from canal.novel.groups import ASIDE, KNOWN, Groups, cluster_cells, find_markers, renamed, separation
from canal.novel.report import MarkerGene, NearType, NovelCluster, NovelReport
from canal.progress import Progress
from canal.report.annotation import Annotation
from canal.seeds import derived_seed, numpy_generator
from canal.stages.annotate import AnnotateOptions, annotate
from canal.stages.clusters import NEAREST, principal_components
from canal.stages.novelty_rules import NoveltyOptions

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


AROUND = 0.6  # share of a cell's neighbours that must be novel or uncertain
ROUNDS = 10  # a cell that was taken counts as one of them in the next round
LOOKED_AT = 3_000  # cells of the file that stand for all whose own verdict is not enough


@dataclass(frozen=True, kw_only=True)
class LookedAt:
    """Cells of a file that are looked at together.

    Attributes
    ----------
    rows
        Their positions in the file: those taken for their own verdict, then the others, (n,).
    own
        Whether the cell's own verdict is enough, bool (n,).
    doubtful
        Whether it is novel or uncertain, bool (n,).
    weight
        How many cells of the file it stands for, (n,).
    """

    rows: np.ndarray
    own: np.ndarray
    doubtful: np.ndarray
    weight: np.ndarray


def cells_to_look_at(status: np.ndarray, *, uncertain: bool, seed: int) -> LookedAt:
    """Return all cells whose own verdict is enough and up to `LOOKED_AT` of the others.

    Parameters
    ----------
    status
        Verdict on each cell of the file, (cells,).
    uncertain
        Whether to be uncertain is enough.
    seed
        Draws the others.
    """
    wanted = np.isin(status, ("novel", "uncertain") if uncertain else ("novel",))
    own, others = np.flatnonzero(wanted), np.flatnonzero(~wanted)
    stands_for = max(len(others) / LOOKED_AT, 1.0)
    if len(others) > LOOKED_AT:
        others = np.sort(numpy_generator(seed, "known cells").choice(others, LOOKED_AT, replace=False))
    rows = np.concatenate([own, others])
    return LookedAt(
        rows=rows,
        own=wanted[rows],
        doubtful=status[rows] != "known",
        weight=np.where(wanted[rows], 1.0, stands_for),
    )


def taken_cells(cells: LookedAt, points: np.ndarray) -> np.ndarray:
    """Return which cells are grouped: by their own verdict, or for their neighbours, bool (n,).

    Parameters
    ----------
    cells
        The cells.
    points
        Their principal components, (n, d).
    """
    from sklearn.neighbors import NearestNeighbors

    k = min(NEAREST, len(points) - 1)
    if k < 1 or not cells.own.any():
        return cells.own
    index: Any = NearestNeighbors(n_neighbors=k + 1).fit(points)
    near = index.kneighbors(points, return_distance=False)[:, 1:]  # the first is the cell itself
    weight = cells.weight[near]
    taken, doubtful = cells.own, cells.doubtful
    for _ in range(ROUNDS):
        around = (weight * doubtful[near]).sum(axis=1) / weight.sum(axis=1) >= AROUND
        taken, before, doubtful = taken | around, doubtful, doubtful | around
        if (doubtful == before).all():
            break
    return np.asarray(taken)


BATCHES = ("batch", "donor_id", "donor", "sample")
MARKERS = 10
NEAR = 3


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
    """

    alpha: float = 0.05
    min_size: int = 10
    resolution: float = 1.0
    batch: str | None = None
    gene_key: str | None = None
    uncertain: bool = False


def find_novel(
    model: Model,
    data: "str | Path | ad.AnnData",
    out: Path,
    options: FindOptions,
    progress: Progress | None = None,
) -> NovelReport:
    """Group the novel cells of a file and write what speaks for each group.

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
    # 1. Whatever can be refused before the cells are read.
    _check(options)
    target = check_folder(out)
    batches = _batches(data, options)
    # 2. Which cells are novel, and which groups they form.
    asked = AnnotateOptions(gene_key=options.gene_key, novelty=NoveltyOptions(alpha=options.alpha))
    annotation = annotate(model, data, asked, progress)
    seed = derived_seed(model.stage.seed, "novel")
    groups = _grouped(data, annotation, options, seed)
    # 3. What speaks for each group, as values and as files.
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
        cells_by_status=_by_status(annotation),
        taken=int((~groups.known).sum()),
        for_neighbours=_for_neighbours(annotation, groups, options.uncertain),
        aside=int((groups.groups == ASIDE).sum()),
        batch="" if batches is None else str(batches.name),
        known_types=tuple(model.stage.types),
        clusters=_evidence(groups, annotation, batches),
        warnings=tuple(annotation.facts.get("warnings", ())),
    )
    write_folder(target, report, result_files(data, annotation, groups, report))
    return report


def _check(options: FindOptions) -> None:
    check_alpha(options.alpha)
    if options.min_size < 2 or not 0 < options.resolution < np.inf:
        message = (
            f"min-size is {options.min_size} and resolution {options.resolution:g}; expected 2 cells at least and a "
            "positive number."
        )
        raise StageError(message)


def _batches(data: "str | Path | ad.AnnData", options: FindOptions) -> "pd.Series | None":
    column = options.batch
    with open_stream(data, gene_key=options.gene_key) as stream:
        obs = stream.obs
        if column is not None and column not in obs:
            found = ", ".join(map(str, obs.columns)) or "nothing"
            message = f"{stream.report.path} has no column obs[{column!r}]. It has {found}. Name one with --batch."
            raise DataError(message)
    chosen = next((name for name in BATCHES if name in obs), None) if column is None else column
    return None if chosen is None else obs[chosen].astype(str).rename(chosen)


def _by_status(annotation: Annotation) -> dict[str, int]:
    status = annotation.columns["status"]
    return {name: int((status == name).sum()) for name in ("known", "uncertain", "novel")}


def _for_neighbours(annotation: Annotation, groups: Groups, uncertain: bool) -> int:
    status = annotation.columns["status"][groups.rows[~groups.known]]
    return int((~np.isin(status, ("novel", "uncertain") if uncertain else ("novel",))).sum())


def _grouped(data: "str | Path | ad.AnnData", annotation: Annotation, options: FindOptions, seed: int) -> Groups:
    status = annotation.columns["status"]
    cells = cells_to_look_at(status, uncertain=options.uncertain, seed=seed)
    if not cells.own.any():
        return _no_groups(seed)
    expression, genes = _expression(data, cells.rows, options.gene_key)
    points = (
        principal_components(expression, seed) if len(cells.rows) > 1 else np.zeros((len(cells.rows), 1), np.float32)
    )
    taken = taken_cells(cells, points)
    kept = np.concatenate([np.flatnonzero(taken), np.flatnonzero(~taken & (status[cells.rows] == "known"))])
    n, rows, expression, points = int(taken.sum()), cells.rows[kept], expression[kept], points[kept]
    best = annotation.columns["best_known"][rows]
    found = cluster_cells(
        expression[:n], points[:n], annotation.representation[rows[:n]],
        resolution=options.resolution, min_size=options.min_size, seed=seed,
    )  # fmt: skip
    how = {k: separation(points[:n][found == k], points[n:], best[n:], seed) for k in set(found.tolist()) - {ASIDE}}
    order = sorted(how, key=lambda k: (not how[k].apart, int(k)))
    clusters = np.concatenate([renamed(found, order), np.full(len(rows) - n, KNOWN, dtype=object)])
    return Groups(rows=rows, groups=clusters, best=best, expression=expression, genes=genes, points=points, seed=seed)


def _no_groups(seed: int) -> Groups:
    none = np.zeros(0, dtype=object)
    return Groups(
        rows=np.zeros(0, dtype=np.int64), groups=none, best=none, expression=sp.csr_matrix((0, 0), dtype=np.float32),
        genes=(), points=np.zeros((0, 1), dtype=np.float32), seed=seed,
    )  # fmt: skip


def _expression(
    data: "str | Path | ad.AnnData", rows: np.ndarray, gene_key: str | None
) -> tuple[sp.csr_matrix, tuple[str, ...]]:
    """Return some cells of a file in the given order, log-normalised; it is read block by block."""
    order = np.sort(rows)
    kept, start = [], 0
    with open_stream(data, gene_key=gene_key) as stream:
        for block in stream.chunks():
            stop = start + block.shape[0]
            kept.append(block[order[(order >= start) & (order < stop)] - start])
            start = stop
        return sp.vstack(kept, format="csr")[np.searchsorted(order, rows)], stream.genes.names


def _evidence(cells: Groups, annotation: Annotation, batches: "pd.Series | None") -> tuple[NovelCluster, ...]:
    used = cells.groups != ASIDE
    inside = used & ~cells.known
    against_known = find_markers(cells.expression[used], cells.groups[used], cells.genes, reference=KNOWN, top=MARKERS)
    against_others = find_markers(
        cells.expression[inside], cells.groups[inside], cells.genes, reference="rest", top=MARKERS
    )
    return tuple(
        _cluster(cells, name, annotation, batches, against_known.get(name, ()), against_others.get(name, ()))
        for name in cells.clusters
    )


def _cluster(
    cells: Groups, name: str, annotation: Annotation, batches: "pd.Series | None",
    markers: tuple[MarkerGene, ...], markers_others: tuple[MarkerGene, ...],
) -> NovelCluster:  # fmt: skip
    own = cells.groups == name
    rows = cells.rows[own]
    near = _near(annotation, rows)
    how = separation(cells.points[own], cells.points[cells.known], cells.best[cells.known], cells.seed)
    genes = ", ".join(m.gene for m in markers[:3])
    place = "near" if how.apart else "edge of"
    return NovelCluster(
        name=name, cells=len(rows), suggested=f"{place} {near[0].name}" + (f" ({genes})" if genes else ""),
        apart=how.apart, silhouette=how.silhouette, own_share=how.own_share,
        batches={} if batches is None else dict(Counter(batches.to_numpy()[rows].tolist()).most_common()),
        markers=markers, markers_others=markers_others, near=near,
        novelty=float(annotation.columns["novelty"][rows].mean()),
        p_value=float(annotation.columns["p_value"][rows].mean()), confidence=float(annotation.confidence[rows].mean()),
    )  # fmt: skip


def _near(annotation: Annotation, rows: np.ndarray) -> tuple[NearType, ...]:
    """Return the known types that most cells come nearest to."""
    best, known = annotation.columns["best_known"], annotation.columns["status"] == "known"
    centre = annotation.representation[rows].mean(axis=0)
    found = []
    for name, count in Counter(best[rows].tolist()).most_common(NEAR):
        there = annotation.representation[known & (best == name)]
        distance = float(np.linalg.norm(there.mean(axis=0) - centre)) if len(there) else None
        found.append(NearType(name=str(name), share=count / len(rows), distance=distance))
    return tuple(found)
