"""Adding an annotation to a copy of an h5ad file without reading what is in it."""

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.data.spool import row_blocks
from canal.report.naming import check_names_free, storable

if TYPE_CHECKING:
    import pandas as pd


def can_be_added_to(path: Path) -> bool:
    """Tell whether this is an h5ad file whose tables are groups (anndata 0.7 and later)."""
    import h5py

    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        return "obs" in file and "column-order" in file["obs"].attrs


def copy_and_add(
    source: Path,
    target: Path,
    *,
    columns: "pd.DataFrame",
    representation: np.ndarray,
    facts: Mapping[str, Any],
    key: str,
) -> None:
    """Copy an h5ad file byte for byte and add columns, representation and facts to the copy.

    Parameters
    ----------
    source, target
        The file of the cells, and the file to make.
    columns
        One row a cell in the order of the file; names without the key.
    representation
        Float32 of shape (cells, D), for ``obsm[X_key]``.
    facts
        For ``uns[key]``.
    key
        Begins every name that is added.

    Raises
    ------
    DataError
        If a name is taken by something that canal did not write.
    """
    import h5py
    from anndata.io import write_elem

    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's notices on its own future defaults
        for name in ("obsm", "uns"):
            if name not in file:
                write_elem(file, name, {})
        obs, obsm, uns = file["obs"], file["obsm"], file["uns"]
        order = [_text(name) for name in obs.attrs["column-order"]]
        check_names_free(columns.columns, key, obs=order, obsm=obsm, uns=uns)
        for name in columns.columns:
            values = columns[name]
            categorical = values.dtype.name == "category"
            stored = values.array if categorical else values.to_numpy()
            write_elem(obs, f"{key}_{name}", stored)
        order += [n for n in (f"{key}_{name}" for name in columns.columns) if n not in order]
        obs.attrs["column-order"] = np.array(order, dtype=h5py.string_dtype())
        _write_rows(obsm, f"X_{key}", representation)
        write_elem(uns, key, storable(facts))


def _write_rows(group: Any, name: str, rows: np.ndarray) -> None:
    """Write a matrix as anndata does, a block at a time: it may be larger than memory."""
    if name in group:
        del group[name]
    stored = group.create_dataset(name, shape=rows.shape, dtype=rows.dtype)
    stored.attrs["encoding-type"], stored.attrs["encoding-version"] = "array", "0.2.0"
    for start, block in row_blocks(rows):
        stored[start : start + len(block)] = block


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
