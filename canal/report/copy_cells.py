"""Copying cells from zarr to an h5ad file with a few chunks in memory: both have AnnData's elements in them."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

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
