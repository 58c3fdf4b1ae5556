"""From a file or folder to what a review needs: the cells, the model's answers, the first groups, expression by genes.

What was computed stands in ``cache/`` of the review's folder, with `BASIS` saying of what; it is computed anew where it
is missing or the file is another.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from canal.data.formats import open_file, read_adata
from canal.data.source import CellSource, StoredTable, read_element
from canal.data.stream import open_stream
from canal.errors import CanalError, DataError, StageError
from canal.files import file_stamp, write_file_whole
from canal.model.record import StageRecord
from canal.progress import Progress
from canal.report.annotation import KEY, Annotation
from canal.report.h5ad import write_adata
from canal.review.expression import (
    FREE_FACTOR,
    Expression,
    GeneColumns,
    estimated_bytes,
    write_gene_columns,
)
from canal.review.groups import label_groups, novel_groups, uncertain_groups
from canal.review.maps import check_size
from canal.review.values import Group
from canal.workspace import Workspace

BASIS, ANSWERS, CLUSTERS, REPORT, GENES, CELLS = (
    "basis.json",
    "answers-{}.h5ad",
    "clusters.npy",
    "novel.json",
    "genes",
    "cells.h5ad",
)
# Novel cells above which they are not clustered: exact neighbours take a time that grows with the square of their
# number. 25,000 of them, of 1,000 genes, take 36 s of a core, of two cores that others use, too, a minute.
MOST_CLUSTERED = 50_000
CLUSTER = f"{KEY}_cluster"  # column of a result of `canal novel find`


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a review stands on disk.

    Attributes
    ----------
    reviewed
        The file or folder that was named.
    decisions
        The file of decisions.
    folder
        Folder of the review.
    """

    reviewed: Path
    decisions: Path
    folder: Path

    @property
    def cache(self) -> Path:
        """Folder of what was computed; it may be deleted."""
        return self.folder / "cache"

    @property
    def taught(self) -> Path:
        """Folder of the cells that were taught, which stages are tested on later: it has to be kept."""
        return self.folder / "taught"

    @property
    def is_folder(self) -> bool:
        """Whether a result of `canal novel find` is reviewed."""
        return self.reviewed.is_dir()

    @property
    def cells(self) -> Path:
        """The file with the cells."""
        return self.cache / CELLS if self.is_folder else self.reviewed


def places_of(path: Path) -> Places:
    """Return where the review of a file or folder stands.

    Raises
    ------
    DataError
        If it is neither an h5ad file nor a result of `canal novel find`.
    """
    path = path.absolute()
    if path.is_dir():
        from canal.novel.folder import read_summary

        read_summary(path)  # says what is wrong with a folder of another kind
        return Places(reviewed=path, decisions=path / "review.jsonl", folder=path / "review")
    if not path.exists():
        message = f"There is no file {path}. Expected an .h5ad file, or the folder of a result of `canal novel find`."
        raise DataError(message)
    if path.suffix != ".h5ad":
        message = (
            f"{path} is no .h5ad file. Write one with `canal annotate --data {path.name} --out cells.h5ad`, and review "
            "that."
        )
        raise DataError(message)
    beside = path.with_name(f"{path.name}.review")
    return Places(reviewed=path, decisions=beside.with_name(f"{beside.name}.jsonl"), folder=beside)


@contextmanager
def alone(places: Places, lock: str = "lock") -> Iterator[None]:
    """Be the only process that prepares a review, or does whatever else a lock is for.

    Parameters
    ----------
    places
        Where the review stands.
    lock
        Name of the file that is locked.

    Raises
    ------
    DataError
        If nothing can be written there.
    """
    try:
        places.cache.mkdir(parents=True, exist_ok=True)
        handle = os.open(places.folder / lock, os.O_RDWR | os.O_CREAT, 0o664)
    except OSError as error:
        message = (
            f"{places.folder} cannot be written: {error.strerror}. A review keeps its decisions beside what is "
            "reviewed: ask for the right to write in that folder, or copy what is reviewed to one of your own."
        )
        raise DataError(message) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def put_aside(places: Places) -> Path | None:
    """Move the decisions to a name with the next free number; return it, ``None`` where there are none."""
    if not places.decisions.exists():
        return None
    number = 1
    while (aside := places.decisions.with_suffix(f".{number}.jsonl")).exists():
        number += 1
    places.decisions.rename(aside)
    return aside


# Which stage's answers are reviewed.


def stored_facts(source: CellSource) -> dict[str, Any] | None:
    """Return what ``uns["canal"]`` of an open file says, ``None`` where canal did not annotate it."""
    uns = source.handles[0].get("uns") if source.handles else None
    if uns is None or KEY not in uns or "model" not in uns[KEY] or f"{KEY}_cell_type" not in source.obs:
        return None
    facts = read_element(uns[KEY])
    return dict(facts) if isinstance(facts, Mapping) else None


def stage_that(workspace: Workspace, facts: Mapping[str, Any], what: str) -> StageRecord:
    """Return the record of the stage that gave some answers.

    Parameters
    ----------
    workspace
        Where the stage is looked for.
    facts
        ``stage``, ``model`` and ``model_digest``, as an annotated file has them.
    what
        Begins the message, such as ``"cells.h5ad was annotated"``.

    Raises
    ------
    StageError
        If the workspace has no such stage (any more).
    """
    records = workspace.stages()
    digest = str(facts.get("model_digest", ""))
    for record in records:
        same = not digest or digest == record.artifacts.get("weights.safetensors", "")
        if str(facts.get("stage", "")) == str(record.number) and same:
            return record
    kept = ", ".join(f"{record.number} ({record.name})" for record in records) or "none yet"
    message = (
        f"{what} by stage {facts.get('stage', '?')} of model {facts.get('model', '?')!r}, which {workspace.root} does "
        f"not have; its stages: {kept}. Name the workspace that annotated it with --workspace, or begin anew with a "
        "stage that is there: `canal annotate --overwrite`."
    )
    raise StageError(message)


# What is computed once.


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that a review begins with.

    Attributes
    ----------
    source
        The open file of cells.
    annotation
        What the model says of all cells.
    expression
        Of all cells.
    groups
        The first groups.
    given
        Label of each cell, text (cells,), ``None`` where there is no column of labels.
    labels
        Name of that column, ``""`` where there is none.
    notes
        What to mind.
    """

    source: CellSource
    annotation: Annotation
    expression: Expression
    groups: tuple[Group, ...]
    given: np.ndarray | None
    labels: str
    notes: tuple[str, ...]

    def close(self) -> None:
        """Close the files."""
        self.expression.close()
        self.source.close()


def prepare(
    workspace: Workspace,
    places: Places,
    record: StageRecord,
    *,
    labels: str | None,
    gene_key: str | None,
    progress: Progress,
) -> Prepared:
    """Compute what a review begins with, or read what was computed before.

    Parameters
    ----------
    workspace, places
        The workspace and where the review stands.
    record
        Of the stage whose answers are reviewed.
    labels, gene_key
        As for `canal.review.review.open_review`.
    progress
        Told how far it is.

    Raises
    ------
    DataError, StageError, RegistryError
        If the file cannot be reviewed.
    """
    _check_cache(places, record, gene_key)
    if places.is_folder:
        _join_cells(places)
    source = open_file(places.cells)
    try:
        check_size(len(source.obs.index), str(places.reviewed))
        annotation = _answers(workspace, places, source, record, gene_key, progress)
        notes = [str(text) for text in annotation.facts.get("warnings", ())]
        clusters, report, note = _novel(workspace, places, source, annotation, gene_key, progress)
        notes += note
        column, given = _given_labels(source, labels, workspace.labels)
        groups, left_out = _first_groups(annotation, clusters, report, given, record.types)
        if left_out:
            notes.append(f"{left_out} further cells disagree with the model by few cells of a label: not in the queue.")
        if "status" not in annotation.columns:
            notes.append("The model of this stage cannot tell novel cells: no group is novel or uncertain.")
        expression = _expression(places, gene_key, progress, notes)
    except BaseException:
        source.close()
        raise
    return Prepared(
        source=source,
        annotation=annotation,
        expression=expression,
        groups=tuple(groups),
        given=given,
        labels=column,
        notes=tuple(dict.fromkeys(notes)),
    )


def _check_cache(places: Places, record: StageRecord, gene_key: str | None) -> None:
    """Empty the cache where it is of another file, stage or column of genes."""
    files = [places.reviewed]
    if places.is_folder:
        files = [path for name in ("novel.h5ad", "known.h5ad") if (path := places.reviewed / name).exists()]
    stamps = [file_stamp(path) for path in files]
    basis = {"files": stamps, "stage": record.number, "artifacts": dict(record.artifacts), "gene_key": gene_key}
    text = json.dumps(basis, sort_keys=True)
    kept = places.cache / BASIS
    if kept.is_file() and kept.read_text(encoding="utf-8") == text:
        return
    shutil.rmtree(places.cache)
    places.cache.mkdir()
    write_file_whole(kept, lambda path: path.write_text(text, encoding="utf-8"))


def _join_cells(places: Places) -> None:
    """Write the novel cells of a result and those that are surely known as one file."""
    import anndata as ad

    target = places.cells
    if target.is_file():
        return
    parts = [read_adata(path) for name in ("novel.h5ad", "known.h5ad") if (path := places.reviewed / name).is_file()]
    if not parts:
        message = (
            f"{places.reviewed} holds no cells: none was novel when `canal novel find` ran. Review the file of cells "
            "itself: it shows uncertain cells and labels that disagree, too."
        )
        raise DataError(message)
    both = ad.concat(parts, merge="first", uns_merge="first") if len(parts) > 1 else parts[0]
    write_file_whole(target, partial(write_adata, both))


def _answers(
    workspace: Workspace,
    places: Places,
    source: CellSource,
    record: StageRecord,
    gene_key: str | None,
    progress: Progress,
) -> Annotation:
    """Return what the model of a stage says of the cells: from the file itself, from the cache, or now."""
    facts = stored_facts(source)
    if facts is not None and str(facts.get("stage")) == str(record.number):
        same = str(facts.get("model_digest", "")) == record.artifacts.get("weights.safetensors", "")
        if same and f"X_{KEY}" in source.handles[0].get("obsm", {}):
            return read_annotation(source, facts)
    kept = places.cache / ANSWERS.format(record.number)
    if kept.is_file():
        with open_file(kept) as stored:
            return read_annotation(stored, stored_facts(stored) or {})
    annotation = workspace.annotate(places.cells, stage=record.number, gene_key=gene_key, progress=progress)
    _keep_answers(annotation, kept)
    return annotation


def reviewed_answers(
    workspace: Workspace, places: Places, record: StageRecord, gene_key: str | None, progress: Progress
) -> Annotation:
    """Return what the model of a stage says of the reviewed cells; what is in the file or the cache is not asked again.

    Parameters
    ----------
    workspace, places, record, gene_key, progress
        As for `prepare`.
    """
    with open_file(places.cells) as source:
        return _answers(workspace, places, source, record, gene_key, progress)


def _keep_answers(annotation: Annotation, kept: Path) -> None:
    import anndata as ad
    import pandas as pd

    # A file needs a matrix to be one of cells: an empty one.
    empty = ad.AnnData(
        X=np.zeros((len(annotation), 1), dtype=np.float32),
        obs=pd.DataFrame(index=annotation.cell_names.astype(object)),
        var=pd.DataFrame(index=["none"]),
    )
    write_file_whole(kept, partial(write_adata, annotation.to_adata(empty, copy=False)))


def read_annotation(source: CellSource, facts: Mapping[str, Any]) -> Annotation:
    """Return the annotation that stands in an open file."""
    obs, start = source.obs, f"{KEY}_"
    columns: dict[str, np.ndarray] = {}
    for name in map(str, obs.columns):
        if name.startswith(start) and name != CLUSTER:
            columns[name.removeprefix(start)] = plain_values(obs[name])
    cell_type, confidence = columns.pop("cell_type"), columns.pop("confidence")
    return Annotation(
        cell_names=np.asarray(obs.index.astype(str), dtype=object),
        cell_type=cell_type,
        confidence=np.asarray(confidence, dtype=np.float32),
        representation=np.asarray(source.handles[0]["obsm"][f"X_{KEY}"][...], dtype=np.float32),
        facts=facts,
        columns=columns,
    )


def plain_values(values: Any) -> np.ndarray:
    """Return a column as numbers, or as text with ``""`` for what is missing."""
    if values.dtype.kind in "iufb":
        return np.asarray(values)
    text = values.astype(object)
    return np.asarray(text.where(text.notna(), "").map(str), dtype=object)


def _novel(
    workspace: Workspace,
    places: Places,
    source: CellSource,
    annotation: Annotation,
    gene_key: str | None,
    progress: Progress,
) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """Return the novel cluster of each cell (``""`` for none), what is reported of the clusters, and what to mind."""
    nothing = np.full(len(annotation), "", dtype=object)
    if places.is_folder:
        from canal.novel.folder import read_summary

        report = read_summary(places.reviewed)
        clusters = plain_values(source.obs[CLUSTER]) if CLUSTER in source.obs else nothing
        return clusters, report, [str(text) for text in report["warnings"]]
    if "status" not in annotation.columns:
        return nothing, {"clusters": []}, []
    novel = annotation.columns["status"] == "novel"
    if novel.sum() > MOST_CLUSTERED:
        note = (
            f"{int(novel.sum())} cells are novel, more than the {MOST_CLUSTERED} that are clustered here: they are "
            "grouped by the known type that they come nearest to. Part them on the map, or run `canal novel find` on "
            "a part of the file and review its result."
        )
        return *by_nearest_type(annotation, novel), [note]
    kept, summary = places.cache / CLUSTERS, places.cache / REPORT
    if not (kept.is_file() and summary.is_file()):
        try:
            clusters, report = _grouped(workspace, places, annotation, gene_key, progress)
        except CanalError as error:  # such as a model that keeps no cells to judge by
            return nothing, {"clusters": []}, [f"Novel cells are not grouped: {error}"]
        text = json.dumps(report)
        write_file_whole(summary, lambda path: path.write_text(text, encoding="utf-8"))
        np.save(kept, clusters.astype(str))
    report = json.loads(summary.read_text(encoding="utf-8"))
    return np.load(kept).astype(object), report, [str(text) for text in report["warnings"]]


def by_nearest_type(annotation: Annotation, novel: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the novel cells, bool (cells,), grouped by the known type they come nearest to, as clusters would be.

    Returns
    -------
    Number of the group of each cell, ``""`` for none, and the part of a report that a queue needs.
    """
    nearest = annotation.columns.get("best_known", annotation.cell_type)
    of_cell = np.full(len(annotation), "", dtype=object)
    clusters = []
    types, counts = np.unique(nearest[novel].astype(str), return_counts=True)
    for number, place in enumerate(np.argsort(-counts, kind="stable").tolist(), start=1):
        rows = novel & (nearest == types[place])
        of_cell[rows] = str(number)
        facts: dict[str, Any] = {"apart": False, "silhouette": None, "own_share": None}
        facts["novelty"] = float(annotation.columns["novelty"][rows].mean())
        facts["confidence"] = float(annotation.confidence[rows].mean())
        facts["near"] = [{"name": str(types[place]), "share": 1.0, "distance": None}]
        clusters.append({"name": str(number), "suggested": f"novel, near {types[place]}", **facts})
    return of_cell, {"clusters": clusters}


def _grouped(
    workspace: Workspace, places: Places, annotation: Annotation, gene_key: str | None, progress: Progress
) -> tuple[np.ndarray, dict[str, Any]]:
    from canal.novel.find import FindOptions, group_novel

    # Answers by another rule have no p-values: the cells are judged anew then.
    by_memory = annotation if "p_value" in annotation.columns else None
    options = FindOptions(alpha=float(annotation.facts.get("alpha", FindOptions.alpha)), gene_key=gene_key)
    novel = group_novel(
        workspace.model(int(annotation.facts["stage"])), places.cells, options, progress, annotation=by_memory
    )
    clusters = np.full(len(annotation), "", dtype=object)
    clusters[novel.cells.rows] = np.where(
        np.isin(novel.cells.groups.astype(str), novel.cells.clusters), novel.cells.groups, ""
    )
    return clusters, novel.report.to_dict()


def _given_labels(source: CellSource, asked: str | None, usual: str) -> tuple[str, np.ndarray | None]:
    """Return name and values of the column of given labels: the one that was asked for, or the workspace's."""
    if asked is None:
        return (usual, plain_values(source.obs[usual])) if usual in source.obs else ("", None)
    if asked and asked not in source.obs:
        message = (
            f"{source.source} has no column obs[{asked!r}]. It has {', '.join(map(str, source.obs.columns))}. Name one "
            "of these as the given labels."
        )
        raise DataError(message)
    return (asked, plain_values(source.obs[asked])) if asked else ("", None)


def _first_groups(
    annotation: Annotation,
    clusters: np.ndarray,
    report: Mapping[str, Any],
    given: np.ndarray | None,
    types: tuple[str, ...],
) -> tuple[list[Group], int]:
    """Return the first groups, and how many cells disagree by too few to be a group."""
    groups = novel_groups(report["clusters"], clusters, annotation.cell_names)
    free = np.ones(len(annotation), dtype=bool)
    for group in groups:
        free[group.rows] = False
    uncertain = uncertain_groups(annotation, free)
    for group in uncertain:
        free[group.rows] = False
    disagreeing, left_out = ([], 0) if given is None else label_groups(annotation, given, types, free)
    return [*groups, *uncertain, *disagreeing], left_out


def _expression(places: Places, gene_key: str | None, progress: Progress, notes: list[str]) -> Expression:
    """Open the expression, and store it by genes where it is not yet and there is room."""
    stream = open_stream(places.cells, gene_key=gene_key)
    folder = places.cache / GENES
    try:
        if not folder.is_dir():
            needed, free = estimated_bytes(stream), shutil.disk_usage(places.cache).free
            if FREE_FACTOR * needed > free:
                notes.append(
                    f"Colouring by a gene is slow: storing expression by genes takes {needed / 1e9:.1f} GB, and "
                    f"{places.cache} has {free / 1e9:.1f} GB free."
                )
                return Expression(stream, None)
            write_gene_columns(stream, folder, progress)
        return Expression(stream, GeneColumns(folder))
    except OSError as error:
        stream.__exit__(None, None, None)
        message = f"{folder} cannot be written: {error}. Check the free space and your rights there."
        raise DataError(message) from error
    except BaseException:
        stream.__exit__(None, None, None)
        raise


def obs_kind(source: CellSource, name: str) -> tuple[str, int] | None:
    """Return how a column of ``obs`` is shown, and its number of categories; ``None`` for one that cannot be.

    The column is not read: what kind it is of stands in its attributes.
    """
    if isinstance(source.obs, StoredTable):
        element = source.handles[0]["obs"][name]
        if str(element.attrs.get("encoding-type", "")) == "categorical":
            return "category", int(element["categories"].shape[0])
        kind = getattr(getattr(element, "dtype", None), "kind", "")
    else:
        values = source.obs[name]
        if values.dtype.name == "category":
            return "category", len(values.cat.categories)
        kind = values.dtype.kind
    if kind in "iuf":
        return "number", 0
    return ("category", 0) if kind in "OSUb" else None
