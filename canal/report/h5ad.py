"""Adding an annotation to a copy of an h5ad file without reading what is in it."""

import shutil
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.data.elements import write_element
from canal.data.spool import row_blocks
from canal.report.copy_cells import zarr_to_h5ad
from canal.report.naming import check_names_free, storable

if TYPE_CHECKING:
    import pandas as pd


def copier(source: Path) -> Callable[[Path], object] | None:
    """Return what copies cells to a new h5ad file without reading them whole; ``None`` where that cannot be done.

    It can be done for h5ad files whose tables are groups (anndata 0.7 and later) and for zarr stores.
    """
    import h5py

    if any((source / mark).exists() for mark in (".zgroup", ".zattrs", "zarr.json")):
        return partial(zarr_to_h5ad, source)
    if not source.is_file() or not h5py.is_hdf5(source):
        return None
    with h5py.File(source, "r") as file:
        plain = "obs" in file and "column-order" in file["obs"].attrs
    return partial(shutil.copyfile, source) if plain else None


def copy_and_add(
    copy: Callable[[Path], object],
    target: Path,
    *,
    columns: "pd.DataFrame",
    representation: np.ndarray,
    facts: Mapping[str, Any],
    key: str,
) -> None:
    """Copy cells to an h5ad file and add columns, representation and facts to the copy.

    Parameters
    ----------
    copy
        Copies the cells to a file; see `copier`.
    target
        The file to make.
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

    copy(target)
    with h5py.File(target, "r+") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's notices on its own future defaults
        for name in ("obsm", "uns"):
            if name not in file:
                write_element(file, name, {})
        obs, obsm, uns = file["obs"], file["obsm"], file["uns"]
        order = [_text(name) for name in obs.attrs["column-order"]]
        check_names_free(columns.columns, key, obs=order, obsm=obsm, uns=uns)
        for name in columns.columns:
            values = columns[name]
            categorical = values.dtype.name == "category"
            stored = values.array if categorical else values.to_numpy()
            write_element(obs, f"{key}_{name}", stored)
        order += [n for n in (f"{key}_{name}" for name in columns.columns) if n not in order]
        obs.attrs["column-order"] = np.array(order, dtype=h5py.string_dtype())
        _write_rows(obsm, f"X_{key}", representation)
        write_element(uns, key, storable(facts))


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
