"""`canal novel name`: clusters with their names become cells to teach."""

import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.data.labels import NO_LABEL
from canal.data.sparse_checks import BadSparseError, check_all_matrices
from canal.errors import DataError, StageError
from canal.files import write_file_whole as write_whole
from canal.novel.folder import CELLS, NAMED, NAMES, read_summary, read_table
from canal.report.h5ad import write_adata

if TYPE_CHECKING:
    import anndata as ad


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
    """

    out: Path
    labels: str
    types: dict[str, int]
    names: dict[str, str]
    unnamed: tuple[str, ...] = field(default=())


def name_novel(
    folder: str | Path, *, names: Path | None = None, labels: str = "cell_type", known_ok: bool = False
) -> Naming:
    """Write the cells of the named clusters as a file that a stage can be learned from.

    Parameters
    ----------
    folder
        Result of `find_novel`.
    names
        The filled table; `names.csv` of the folder by default.
    labels
        Column for the names. Where the file has one, it is kept as ``<labels>_given``.
    known_ok
        Whether a name may be that of a type the model knows: its cells then teach that type.

    Raises
    ------
    DataError, StageError
        If the folder is no result, the table does not fit to it, no cluster has a name, or a type is known already.
        Nothing is written then.
    """
    import anndata as ad

    folder = Path(folder)
    summary = read_summary(folder)
    path = folder / NAMES if names is None else Path(names)
    clusters = [cluster["name"] for cluster in summary["clusters"]]
    given = _read_names(path, clusters)
    if not known_ok:
        _refuse_known(path, given, summary)
    if not labels.strip() or labels.startswith("canal_"):
        message = f"{labels!r} cannot be the column of the names: it is empty or one of canal's. Choose another."
        raise DataError(message)
    cells = folder / CELLS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's notices on its own future defaults
        try:
            adata = ad.read_h5ad(cells)
            check_all_matrices(adata)
        except (OSError, KeyError, BadSparseError) as error:
            message = f"{cells} cannot be read ({error}). Run canal novel find again."
            raise DataError(message) from error
        named = _named(adata, given, labels, cells)
    write_whole(folder / NAMED, partial(write_adata, named))
    values, counts = np.unique(named.obs[labels].astype(str), return_counts=True)
    return Naming(
        out=folder / NAMED,
        labels=labels,
        types={str(k): int(n) for k, n in zip(values, counts, strict=True)},
        names=given,
        unnamed=tuple(name for name in clusters if name not in given),
    )


def _read_names(path: Path, clusters: list[str]) -> dict[str, str]:
    """Return the name of each named cluster."""
    given: dict[str, str] = {}
    seen: dict[str, int] = {}
    for line, row in read_table(path):
        cluster, name = row["cluster"], row["name"]
        if cluster not in clusters:
            message = f"{path}, line {line}: there is no cluster {cluster!r}. Expected one of {', '.join(clusters)}."
            raise DataError(message)
        if cluster in seen:
            message = f"{path}, line {line}: cluster {cluster} stands in line {seen[cluster]} already. Keep one row."
            raise DataError(message)
        seen[cluster] = line
        if name and name.lower() in NO_LABEL:
            message = (
                f"{path}, line {line}: {name!r} means that a type is not known. Leave the name empty, or write a name."
            )
            raise DataError(message)
        if name:
            given[cluster] = name
    if not given:
        message = f"{path} names no cluster. Fill its column 'name' for at least one."
        raise StageError(message)
    return given


def _refuse_known(path: Path, given: dict[str, str], summary: dict[str, Any]) -> None:
    known = {name.casefold(): name for name in summary["known_types"]}
    taken = sorted({known[name.casefold()] for name in given.values() if name.casefold() in known})
    if taken:
        message = (
            f"{path}: the model knows {', '.join(map(repr, taken))} already (stage {summary['stage']}). "
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
