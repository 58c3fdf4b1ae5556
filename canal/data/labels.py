"""The cell types that a file gives its cells."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from canal.data.label_map import read_label_map
from canal.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from canal.data.table import StoredTable

NO_LABEL = frozenset(
    {"", "-", "?", "na", "n/a", "<na>", "nan", "none", "null", "not available", "unknown"}
    | {"unassigned", "unlabelled", "unlabeled", "unannotated", "undefined", "undetermined"}
)
FEWEST = 2
SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class TakenLabels:
    """Cell types of a file's cells.

    Attributes
    ----------
    labels
        Cell type of each cell of the file, ``""`` where it is left out; object of shape (cells in
        the file,).
    unlabelled
        Cells without a label.
    dropped_types
        Types left out because they have too few cells, and their number of cells.
    """

    labels: np.ndarray
    unlabelled: int
    dropped_types: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def take_labels(
    obs: "pd.DataFrame | StoredTable",
    column: str,
    *,
    source: str,
    label_map: Path | None = None,
    drop_rare: bool = False,
    require_two: bool = False,
    keep_rare: bool = False,
) -> TakenLabels:
    """Take the cell types of a column of ``obs``.

    Parameters
    ----------
    label_map
        CSV of two columns: their name, our name. A name mapped to nothing is left out as
        unlabelled.
    drop_rare
        Leave out types with a single cell instead of refusing the file.
    require_two
        Refuse a file with one type only.
    keep_rare
        Take types with a single cell as they are, where nothing is trained.

    Raises
    ------
    DataError
        If there is no such column, it holds no text, no cell has a label, a type has a single cell,
        or there is one type where two are needed.
    """
    values = _column(obs, column, source)
    warnings: list[str] = []
    if label_map is not None:
        values = _mapped(values, label_map, source, warnings)
    labels = np.array(["" if v.lower() in NO_LABEL else v for v in values], dtype=object)
    counts = Counter(labels.tolist())
    unlabelled = counts.pop("", 0)
    if not counts:
        message = (
            f"{source}: all {len(labels)} labels in {column!r} are missing or unknown. Choose "
            f"another column{_likely(obs, besides=column)}."
        )
        raise DataError(message)
    rare = {name: n for name, n in sorted(counts.items()) if n < FEWEST and not keep_rare}
    if rare and not drop_rare:
        message = (
            f"{source}: {len(rare)} types in {column!r} have a single cell: {_listed(list(rare))}. "
            f"A type needs {FEWEST} cells at least: add cells, map the type to another one with "
            "--label-map, or leave such types out with --drop-rare."
        )
        raise DataError(message)
    labels[np.isin(labels, list(rare))] = ""
    if all(name.isdigit() for name in counts):
        warnings.append(
            f"The labels in {column!r} of {source} look like cluster numbers, not names: {_listed(list(counts))}."
        )
    _require_types(
        len(counts) - len(rare),
        sorted(set(counts) - set(rare)),
        column,
        source,
        require_two=require_two,
    )
    return TakenLabels(labels=labels, unlabelled=unlabelled, dropped_types=rare, warnings=tuple(warnings))


def _require_types(n: int, names: list[str], column: str, source: str, *, require_two: bool) -> None:
    if n == 0:
        message = f"{source}: every type in {column!r} has a single cell. Expected types with {FEWEST} cells at least."
        raise DataError(message)
    if n == 1 and require_two:
        message = (
            f"{source}: all labelled cells in {column!r} are of one type, {names[0]!r}. The first "
            "stage needs two types at least: add cells of another type, or choose another column."
        )
        raise DataError(message)


def _column(obs: "pd.DataFrame | StoredTable", column: str, source: str) -> list[str]:
    if column not in obs.columns:
        message = f"{source} has no column {column!r} in obs{_likely(obs)}. Name the column with the cell types."
        raise DataError(message)
    if (obs.columns == column).sum() > 1:
        message = f"{source} has several columns named {column!r} in obs. Rename all but one."
        raise DataError(message)
    plain = obs[column].astype(object)
    present = plain[plain.notna()]
    if len(present) and not all(isinstance(value, str) for value in present.unique()):
        found = ", ".join(repr(v) for v in present.unique()[:3].tolist())
        message = (
            f"{source}: the labels in {column!r} are numbers or other values ({found}), not names. "
            f"Choose a column of names{_likely(obs, besides=column)}, or turn it into text first: "
            f"adata.obs[{column!r}] = adata.obs[{column!r}].astype(str)."
        )
        raise DataError(message)
    return [value.strip() for value in plain.where(plain.notna(), "")]


def _mapped(values: list[str], path: Path, source: str, warnings: list[str]) -> list[str]:
    mapping = read_label_map(path)
    unused = sorted(set(mapping) - set(values))
    if unused:
        warnings.append(f"{len(unused)} names in the label map {path} do not occur in {source}: {_listed(unused)}.")
    return [mapping.get(value, value) for value in values]


def _likely(obs: "pd.DataFrame | StoredTable", besides: str = "") -> str:
    """Return a clause that lists the columns of 2 to 200 texts, which may be cell types."""
    found = []
    for name in obs.columns:
        series = obs[name]
        if name == besides or getattr(series, "ndim", 2) != 1 or series.dtype.kind in "fiubmMc":
            continue
        present = series.astype(object).dropna()
        if 2 <= present.nunique() <= 200 and all(isinstance(v, str) for v in present.unique()):
            found.append(str(name))
    return f"; columns that may hold cell types: {', '.join(found)}" if found else "; no column looks like cell types"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
