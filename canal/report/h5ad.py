"""Under which names an annotation is stored in an AnnData, and in which form.

Copying cells from zarr to an h5ad file with a few chunks in memory: both have AnnData's elements in them.

Adding an annotation to a copy of an h5ad file without reading what is in it.
"""

import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canal.data.source import write_element
from canal.data.threads import row_blocks
from canal.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def check_names_free(names: Iterable[str], key: str, *, obs: Iterable[str], obsm: Iterable[str], uns: Any) -> None:
    """Let an annotation replace only what an earlier one with the same key has written.

    Parameters
    ----------
    names
        Names of the columns, without the key.
    key
        Begins every name that is added.
    obs, obsm
        Names that the file has.
    uns
        Its ``uns``: a mapping or an HDF5 group.

    Raises
    ------
    DataError
        If a name is taken by something else.
    """
    earlier: Any = uns.get(key)
    if hasattr(earlier, "keys") and "model" in set(earlier.keys()):
        return
    taken = [f"obs[{name!r}]" for name in sorted({f"{key}_{name}" for name in names} & set(obs))]
    taken += [f"obsm[{name!r}]" for name in sorted({f"X_{key}"} & set(obsm))]
    taken += [] if earlier is None else [f"uns[{key!r}]"]
    if taken:
        message = f"The file already has {', '.join(taken)}, not written by canal. Choose other names with --key-added."
        raise DataError(message)


def storable(value: Any) -> Any:
    """Return facts as h5ad can keep them: no ``None``, lists as arrays, paths as text."""
    if isinstance(value, Mapping):
        return {str(k): storable(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        if value and all(isinstance(v, bool | int | float) for v in value):
            return np.array(value)
        return np.array([str(v) for v in value], dtype=object)
    return str(value) if isinstance(value, Path) else value


AT_ONCE = 4_000_000  # values; larger arrays are copied a piece at a time
MAPPINGS = {"anndata", "raw", "dict", ""}
SPARSE = {"csr_matrix", "csc_matrix"}


def zarr_to_h5ad(source: Path, target: Path) -> None:
    """Write every element of a zarr store of cells to a new h5ad file.

    Parameters
    ----------
    source, target
        Folder of the store, and the file to make.
    """
    import h5py
    import zarr

    with h5py.File(target, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's notices on its own future defaults
        _copy_mapping(zarr.open_group(str(source), mode="r"), file)


def _copy_mapping(source: Any, target: Any) -> None:
    _copy_facts(source, target)
    for name in source:
        _copy(source[name], target, name)


def _copy(element: Any, target: Any, name: str) -> None:
    from anndata.io import read_elem, write_elem

    kind = str(element.attrs.get("encoding-type", ""))
    if hasattr(element, "shape"):
        if element.dtype.kind in "biuf" and element.size > AT_ONCE:
            _copy_array(element, target, name)
        else:
            write_elem(target, name, read_elem(element))
    elif kind in MAPPINGS:
        _copy_mapping(element, target.create_group(name))
    elif kind in SPARSE:
        group = target.create_group(name)
        _copy_facts(element, group)
        for part in ("data", "indices", "indptr"):
            _copy_array(element[part], group, part)
    else:
        write_elem(target, name, read_elem(element))


def _copy_array(array: Any, target: Any, name: str) -> None:
    """Copy a numerical array a piece of rows at a time, compressed where it was."""
    squeezed = "gzip" if array.size > AT_ONCE and getattr(array, "compressors", ()) else None
    made = target.create_dataset(name, array.shape, array.dtype, compression=squeezed, chunks=squeezed and True)
    _copy_facts(array, made)
    if not array.shape:
        made[()] = array[()]
        return
    rows = max(1, AT_ONCE // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, array.shape[0], rows):
        made[start : start + rows] = array[start : start + rows]


def _copy_facts(source: Any, target: Any) -> None:
    for key, value in source.attrs.items():
        target.attrs[key] = value


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
