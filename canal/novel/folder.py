"""The folder of `canal novel find`: what is in it, and how it comes to be whole or not at all.

The files of `canal novel find`: its page, its pictures and the novel cells.

`canal novel name`: clusters with their names become cells to teach.
"""

import csv
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.data.formats import read_adata
from canal.data.labels import NO_LABEL
from canal.data.sparse_checks import BadSparseError, check_all_matrices
from canal.errors import DataError, StageError
from canal.files import refuse_newer, sync_tree, write_file_whole
from canal.novel.groups import KNOWN, Groups
from canal.novel.page import dot_plot, novel_page, umap_picture
from canal.novel.report import FORMAT, KIND, NovelReport
from canal.report.annotation import KEY, Annotation
from canal.report.h5ad import write_adata
from canal.stages.clusters import umap_coordinates
from canal.text import csv_row, text_of_csv

if TYPE_CHECKING:
    import anndata as ad


SUMMARY, NAMES, CELLS, NAMED = "novel.json", "names.csv", "novel.h5ad", "named.h5ad"
SURE_CELLS = "known.h5ad"  # cells that are surely of known types
PAGE, MAP, DOTS = "index.html", "umap.png", "dotplot.png"
OURS = frozenset({SUMMARY, NAMES, CELLS, NAMED, SURE_CELLS, PAGE, MAP, DOTS})
HEAD = ("cluster", "cells", "suggested name", "name")


def check_folder(out: Path) -> Path:
    """Return the folder if a result can be written there: new, empty, or with an earlier result that nobody named.

    Raises
    ------
    DataError
        If it is a file, its parent does not exist, or it holds anything else.
    StageError
        If the names of an earlier result would be lost.
    """
    out = Path(os.path.abspath(out))  # noqa: PTH100 - a link stays a link
    if out.exists() and not out.is_dir():
        message = f"{out} is a file; the result is a folder. Name a new folder with --out."
        raise DataError(message)
    if not out.parent.is_dir():
        message = f"There is no folder {out.parent} to make {out.name} in. Make it, or name another with --out."
        raise DataError(message)
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    strange = [name for name in found if name not in OURS]
    if strange or (found and SUMMARY not in found):
        message = (
            f"{out} is not empty and no earlier result of canal novel find: found {', '.join((strange or found)[:5])}. "
            "Name a new folder with --out."
        )
        raise DataError(message)
    if found and _has_names(out):
        message = f"{out} holds clusters that were named, which would be lost. Name a new folder with --out."
        raise StageError(message)
    return out


def write_folder(out: Path, report: NovelReport, files: dict[str, Callable[[Path], object]]) -> None:
    """Write the result beside its place, then move it there; an earlier one is replaced.

    Parameters
    ----------
    out
        As `check_folder` returned it.
    report
        For `novel.json` and `names.csv`.
    files
        What writes each further file, by name.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    fresh = out.parent / f".{out.name}.{os.getpid()}.tmp"
    old = out.parent / f".{out.name}.{os.getpid()}.old"
    try:
        fresh.mkdir()
        (fresh / SUMMARY).write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
        _write_names(fresh / NAMES, report)
        for name, write in files.items():
            write(fresh / name)
        sync_tree(fresh)
        if out.exists():
            out.rename(old)
        fresh.rename(out)
    except OSError as error:
        message = f"{out} cannot be written: {error}. Check the free space and your rights there."
        raise DataError(message) from error
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)


def read_summary(folder: Path) -> dict[str, Any]:
    """Return what `novel.json` of a result says.

    Raises
    ------
    DataError
        If the folder holds no result, or a newer canal wrote it.
    """
    path = folder / SUMMARY
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{folder} is no result of canal novel find ({path.name}: {error}). Name the folder of its --out."
        raise DataError(message) from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        message = f"{path} was not written by canal novel find. Name the folder of its --out."
        raise DataError(message)
    refuse_newer(path, found.get("format"), FORMAT, DataError)
    return found


def read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a filled CSV with their line numbers; commas, semicolons or tabs stand between columns.

    Raises
    ------
    DataError
        If it is missing, no such text, or lacks a column.
    """
    if not path.is_file():
        message = f"There is no file {path}. Expected the filled {NAMES} of canal novel find; name it with --names."
        raise DataError(message)
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte-order mark
        first = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=first.count)
        reader = csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True)
        head = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = head
        # Rows that hold anything, with their line numbers; values beyond the last column are left out.
        rows = []
        for line in reader:
            row = {name: text_of_csv((line[name] or "").strip()) for name in head}
            if any(row.values()):
                rows.append((reader.line_num, row))
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"{path} is not a CSV text in UTF-8 ({error}). Save it as CSV (UTF-8)."
        raise DataError(message) from error
    missing = [name for name in ("cluster", "name") if name not in head]
    if missing:
        message = (
            f"{path} has no column {' and no column '.join(map(repr, missing))}; found {', '.join(head) or 'nothing'}. "
            f"Keep the columns of {NAMES}: {', '.join(HEAD)}."
        )
        raise DataError(message)
    return rows


def _has_names(folder: Path) -> bool:
    if (folder / NAMED).exists():
        return True
    try:
        return any(row["name"] for _, row in read_table(folder / NAMES))
    except DataError:  # something is there that we cannot read: a person's work
        return (folder / NAMES).exists()


def _write_names(path: Path, report: NovelReport) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEAD)
        for cluster in report.clusters:
            writer.writerow(csv_row((cluster.name, cluster.cells, cluster.suggested, "")))


SHOWN_MARKERS = 6  # of each cluster in the dot plot


def result_files(
    data: "str | Path | ad.AnnData", annotation: Annotation, cells: Groups, report: NovelReport, sure: np.ndarray
) -> dict[str, Callable[[Path], object]]:
    """Return what writes each file of the result, by name: the page, and pictures and cells where there are any.

    Parameters
    ----------
    data, annotation
        The file and what the model says of it.
    cells, report
        The cells that were grouped, and what is reported of them.
    sure
        Positions in the file of cells that are surely of known types, (cells,).
    """
    umap, dots = (_map(cells), _dots(cells, report)) if report.taken else (None, None)
    text = novel_page(report, umap, dots)
    files: dict[str, Callable[[Path], object]] = {PAGE: lambda path: path.write_text(text, encoding="utf-8")}
    if umap is not None:
        files[MAP] = lambda path: path.write_bytes(umap)
    if dots is not None:
        files[DOTS] = lambda path: path.write_bytes(dots)
    if report.taken:
        rows, groups = cells.rows[~cells.known], cells.groups[~cells.known]
        files[CELLS] = partial(_write_cells, data, annotation, rows, groups)
    if report.taken and len(sure):
        files[SURE_CELLS] = partial(_write_cells, data, annotation, sure, np.full(len(sure), KNOWN, dtype=object))
    return files


def _map(cells: Groups) -> bytes:
    names = np.where(cells.known, cells.best, cells.groups)
    return umap_picture(umap_coordinates(cells.points, cells.seed), names, cells.clusters, cells.known)


def _dots(cells: Groups, report: NovelReport) -> bytes | None:
    """Draw the best markers of each cluster, each gene once."""
    # The genes, and their expression in all cells.
    genes: list[str] = []
    for cluster in report.clusters:
        for marker in cluster.markers[:SHOWN_MARKERS]:
            if marker.gene not in genes:
                genes.append(marker.gene)
    if not genes:
        return None
    values = cells.expression[:, list(map(cells.genes.index, genes))].toarray()
    # The rows: each cluster, then the known types beside it.
    masks = {}
    for name in cells.clusters:
        masks[f"cluster {name}"] = cells.groups == name
    for name in sorted(set(cells.best[cells.known].tolist())):
        masks[name] = cells.known & (cells.best == name)
    # The size of a dot is the share of cells that express the gene, its colour the mean.
    share, mean, titles = [], [], {}
    for name, mask in masks.items():
        share.append((values[mask] > 0).mean(axis=0))
        mean.append(values[mask].mean(axis=0))
        titles[name] = f"{name} ({int(mask.sum())})"
    return dot_plot(genes, list(masks), np.array(share), np.array(mean), titles)


def _write_cells(
    data: "str | Path | ad.AnnData", annotation: Annotation, rows: np.ndarray, clusters: np.ndarray, path: Path
) -> None:
    """Write some cells with all they have in their file, and what the model says of them.

    Parameters
    ----------
    data, annotation
        The file and what the model says of it.
    rows, clusters
        Positions in the file and cluster of each cell, (cells,).
    path
        The file to write.
    """
    adata = read_adata(data) if isinstance(data, str | Path) else data
    columns = {name: values[rows] for name, values in annotation.columns.items()}
    part = Annotation(
        cell_names=annotation.cell_names[rows],
        cell_type=annotation.cell_type[rows],
        confidence=annotation.confidence[rows],
        representation=annotation.representation[rows],
        facts=annotation.facts,
        columns=columns | {"cluster": clusters},
    )
    write_adata(part.to_adata(adata[rows].copy(), copy=False), path)


CLUSTER = "canal_cluster"


@dataclass(frozen=True, kw_only=True)
class Naming:
    """What was named.

    Attributes
    ----------
    out
        The file for `canal stage add`.
    labels
        Its column with the names.
    types
        Cells of each name.
    names
        Name of each cluster.
    unnamed
        Clusters left without a name; their cells are not in the file.
    known
        Cells that are surely of known types and stand in the file, too, by type.
    warnings
        What to mind before the file is taught.
    """

    out: Path
    labels: str
    types: dict[str, int]
    names: dict[str, str]
    unnamed: tuple[str, ...] = field(default=())
    known: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def name_novel(
    folder: str | Path,
    *,
    names: "Path | Mapping[str, str] | None" = None,
    labels: str = "cell_type",
    known_ok: bool = False,
    with_known: bool = True,
) -> Naming:
    """Write the cells of the named clusters as a file that a stage can be learned from.

    Parameters
    ----------
    folder
        Result of `find_novel`.
    names
        The filled table, or the name of each cluster; `names.csv` of the folder by default.
    labels
        Column for the names. Where the file has one, it is kept as ``<labels>_given``.
    known_ok
        Whether a name may be that of a type the model knows: its cells then teach that type.
    with_known
        Whether the file's cells that are surely of known types are written along with the named ones. Without them the
        stage holds new types alone, and nothing tells what in their profiles is the type and what the technology.

    Raises
    ------
    DataError, StageError
        If the folder is no result, the table does not fit to it, no cluster has a name, or a type is known already.
        Nothing is written then.
    """
    folder = Path(folder)
    # 1. The name of each cluster.
    summary = read_summary(folder)
    clusters = [cluster["name"] for cluster in summary["clusters"]]
    if isinstance(names, Mapping):
        source, rows = "The names", [(f"cluster {cluster!r}", str(cluster), name) for cluster, name in names.items()]
    else:
        path = folder / NAMES if names is None else Path(names)
        source = str(path)
        rows = [(f"line {line}", row["cluster"], row["name"]) for line, row in read_table(path)]
    given = _checked_names(source, rows, clusters)
    if not known_ok:
        _refuse_known(source, given, summary)
    if not labels.strip() or labels.startswith("canal_"):
        message = f"{labels!r} cannot be the column of the names: it is empty or one of canal's. Choose another."
        raise DataError(message)
    # 2. Their cells, and those that are surely of known types.
    named = _named(_read_cells(folder / CELLS), given, labels, folder / CELLS)
    values, counts = np.unique(named.obs[labels].astype(str), return_counts=True)
    known: dict[str, int] = {}
    warned = []
    if with_known:
        named, known = _with_known(named, folder, labels, set(given.values()))
        if not known:
            warned.append(
                "No cell of the file is surely of a known type: the stage holds the named types alone. In files with "
                "other genes they cannot be compared with what is known; add labelled cells of known types if you can."
            )
    # 3. Written whole.
    write_file_whole(folder / NAMED, partial(write_adata, named))
    return Naming(
        out=folder / NAMED,
        labels=labels,
        types=dict(zip(map(str, values), counts.tolist(), strict=True)),
        names=given,
        unnamed=tuple(name for name in clusters if name not in given),
        known=known,
        warnings=tuple(warned),
    )


def _read_cells(path: Path) -> "ad.AnnData":
    """Return the cells of a file of the result.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    import anndata as ad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's notices on its own future defaults
        try:
            adata = ad.read_h5ad(path)
            check_all_matrices(adata)
        except (OSError, KeyError, BadSparseError) as error:
            message = f"{path} cannot be read ({error}). Run canal novel find again."
            raise DataError(message) from error
    return adata


def _with_known(named: "ad.AnnData", folder: Path, labels: str, new: set[str]) -> "tuple[ad.AnnData, dict[str, int]]":
    """Return the named cells with those that are surely of known types, and the number of these by type.

    Parameters
    ----------
    named
        The named cells.
    folder
        Result of `find_novel`; one of an older version has no such cells.
    labels
        Column for the names.
    new
        The names that were given: cells of a known type of that name are not added.
    """
    import anndata as ad
    import pandas as pd

    path = folder / SURE_CELLS
    if not path.is_file():
        return named, {}
    sure = _read_cells(path)
    types = sure.obs[f"{KEY}_cell_type"].astype(str)
    sure = sure[~types.isin(new).to_numpy()].copy()
    if not sure.n_obs:
        return named, {}
    if labels in sure.obs:
        sure.obs[f"{labels}_given"] = sure.obs[labels]
    sure.obs[labels] = sure.obs[f"{KEY}_cell_type"].astype(str)
    named.obs[labels] = named.obs[labels].astype(str)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's notices on its own future defaults
        both = ad.concat([named, sure], merge="first", uns_merge="first")
        if named.raw is not None and sure.raw is not None:
            both.raw = ad.concat([named.raw.to_adata(), sure.raw.to_adata()], merge="first")
    both.obs[labels] = pd.Categorical(both.obs[labels])
    values, counts = np.unique(sure.obs[labels], return_counts=True)
    return both, dict(zip(map(str, values), counts.tolist(), strict=True))


def _checked_names(source: str, rows: list[tuple[str, str, str]], clusters: list[str]) -> dict[str, str]:
    """Return the name of each named cluster.

    Parameters
    ----------
    source
        Where the names stand, for messages.
    rows
        Place in the source, cluster and name.
    clusters
        Those of the result.
    """
    given: dict[str, str] = {}
    seen: dict[str, str] = {}
    for place, cluster, text in rows:
        name = text.strip()
        if cluster not in clusters:
            expected = f"Expected one of {', '.join(clusters)}." if clusters else "The result has no cluster to name."
            message = f"{source}, {place}: there is no cluster {cluster!r}. {expected}"
            raise DataError(message)
        if cluster in seen:
            message = f"{source}, {place}: cluster {cluster} stands in {seen[cluster]} already. Keep one row."
            raise DataError(message)
        seen[cluster] = place
        if name and name.lower() in NO_LABEL:
            message = (
                f"{source}, {place}: {name!r} means that a type is not known. Leave the name empty, or write a name."
            )
            raise DataError(message)
        if name:
            given[cluster] = name
    if not given:
        message = f"{source} names no cluster. Fill its column 'name' for at least one, or name one with --name."
        raise StageError(message)
    return given


def _refuse_known(source: str, given: dict[str, str], summary: dict[str, Any]) -> None:
    known = {name.casefold(): name for name in summary["known_types"]}
    taken = sorted({known[name.casefold()] for name in given.values() if name.casefold() in known})
    if taken:
        message = (
            f"{source}: the model knows {', '.join(map(repr, taken))} already (stage {summary['stage']}). "
            "Choose another name, or teach these cells as more of that type with --known-ok."
        )
        raise StageError(message)


def _named(adata: "ad.AnnData", given: dict[str, str], labels: str, cells: Path) -> "ad.AnnData":
    import pandas as pd

    if CLUSTER not in adata.obs:
        message = f"{cells} has no column obs[{CLUSTER!r}]. Run canal novel find again."
        raise DataError(message)
    clusters = adata.obs[CLUSTER].astype(str).to_numpy()
    named = adata[np.isin(clusters, list(given))].copy()
    if labels in named.obs:
        named.obs[f"{labels}_given"] = named.obs[labels]
    named.obs[labels] = pd.Categorical([given[c] for c in named.obs[CLUSTER].astype(str)])
    return named
