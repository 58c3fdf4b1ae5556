"""Under which names an annotation is stored in an AnnData, and in which form.

Copying cells from zarr to an h5ad file with a few chunks in memory: both have AnnData's elements in them.

Adding an annotation to a copy of an h5ad file without reading what is in it.
"""

import re
import shutil
import warnings
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from canal.data.source import write_element
from canal.data.threads import row_blocks
from canal.errors import DataError
from canal.report.written import (
    SCHEMA_COLUMNS,
    check_added,
    check_same_objects,
    check_written,
    hdf5_errors,
    is_among,
    objects_of,
    stored_name,
)

if TYPE_CHECKING:
    import anndata as ad
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
    names, obs = set(names), set(obs)
    written = set(earlier.keys()) if hasattr(earlier, "keys") else set()
    # Columns of a schema may be somebody's work: canal replaces them only where it wrote them.
    curated = sorted(SCHEMA_COLUMNS & names & obs)
    if curated and "format" not in written:
        message = (
            f"The file already has obs[{curated[0]!r}], not written by canal. Take the column out of the file, or "
            "annotate without --format."
        )
        raise DataError(message)
    if "model" in written:
        return
    taken = [f"obs[{name!r}]" for name in sorted({stored_name(key, name) for name in names} & obs)]
    taken += [f"obsm[{name!r}]" for name in sorted({f"X_{key}", probability_place(key)} & set(obsm))]
    taken += [] if earlier is None else [f"uns[{key!r}]"]
    if taken:
        message = f"The file already has {', '.join(taken)}, not written by canal. Choose other names with --key-added."
        raise DataError(message)


def probability_place(key: str) -> str:
    """Return the name in ``obsm`` under which the probabilities of all types stand."""
    return f"{key}_probabilities"


# Columns that an annotation has or has not, as it was asked for.
OPTIONAL = re.compile(
    r"second_type|second_confidence|best_known|status|novelty|p_value|cell_type_sure|cell_type_sure_id|cell_type_sure--\w+"
    r"|source|neighbor_\d+(_\w+)?"
)


def columns_left(obs: Iterable[str], key: str, columns: Iterable[str], uns: Any) -> list[str]:
    """Return the columns that an earlier annotation with the same key wrote and this one does not.

    Parameters
    ----------
    obs
        Names that the file has.
    key
        Begins every name that is added.
    columns
        Names of the new columns, without the key.
    uns
        Of the file: a mapping or an HDF5 group.
    """
    earlier: Any = uns.get(key)
    if not hasattr(earlier, "keys") or "model" not in set(earlier.keys()):
        return []
    own, start = set(columns), f"{key}_"
    left = []
    for name in obs:
        plain = str(name).removeprefix(start)
        if str(name).startswith(start) and plain not in own and OPTIONAL.fullmatch(plain):
            left.append(str(name))
    return left


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


class Copier(Protocol):
    """Copies cells to a new h5ad file, and can tell whether the copy is one."""

    def write(self, target: Path) -> None:
        """Make the file."""

    def check(self, file: Any, replaced: Collection[str]) -> None:
        """Look at the copy, open for reading; OSError if it is none. ``replaced``: places that were written since."""


class H5adCopier:
    """Copies an h5ad file byte for byte.

    Parameters
    ----------
    source
        The file.
    """

    def __init__(self, source: Path) -> None:
        self._source = source

    def write(self, target: Path) -> None:
        """Make the file."""
        shutil.copyfile(self._source, target)

    def check(self, file: Any, replaced: Collection[str]) -> None:
        """Compare the objects of both files; OSError if they differ."""
        import h5py

        with h5py.File(self._source, "r") as before:
            check_same_objects(objects_of(before), objects_of(file), replaced)


class ZarrCopier:
    """Writes every element of a zarr store of cells to a new h5ad file.

    Parameters
    ----------
    source
        Folder of the store.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        self._objects: dict[str, Any] = {}  # kind and size of all that was written, by place
        self._sums: dict[str, int] = {}  # of the values of each array that was copied in pieces, by place

    def write(self, target: Path) -> None:
        """Make the file."""
        import h5py
        import zarr

        with h5py.File(target, "w") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anndata's notices on its own future defaults
            self._copy_mapping(zarr.open_group(str(self._source), mode="r"), file)
            file.flush()
            self._objects = objects_of(file)

    def check(self, file: Any, replaced: Collection[str]) -> None:
        """Look for every object, and read back all that was copied in pieces; OSError if something differs."""
        check_same_objects(self._objects, objects_of(file), replaced)
        for place, expected in self._sums.items():
            if is_among(place, replaced):
                continue
            found = 0
            for _, piece in _pieces(file[place]):
                found = _summed(piece, found)
            if found != expected:
                message = f"{place} holds other values than were written"
                raise OSError(message)

    def _copy_mapping(self, source: Any, target: Any) -> None:
        _copy_facts(source, target)
        for name in source:
            self._copy(source[name], target, name)

    def _copy(self, element: Any, target: Any, name: str) -> None:
        from anndata.io import read_elem, write_elem

        kind = str(element.attrs.get("encoding-type", ""))
        if hasattr(element, "shape"):
            if element.dtype.kind in "biuf" and element.size > AT_ONCE:
                self._copy_array(element, target, name)
            else:
                write_elem(target, name, read_elem(element))
        elif kind in MAPPINGS:
            self._copy_mapping(element, target.create_group(name))
        elif kind in SPARSE:
            group = target.create_group(name)
            _copy_facts(element, group)
            for part in ("data", "indices", "indptr"):
                self._copy_array(element[part], group, part)
        else:
            write_elem(target, name, read_elem(element))

    def _copy_array(self, array: Any, target: Any, name: str) -> None:
        """Copy a numerical array a piece of rows at a time, compressed where it was."""
        squeezed = "gzip" if array.size > AT_ONCE and getattr(array, "compressors", ()) else None
        made = target.create_dataset(name, array.shape, array.dtype, compression=squeezed, chunks=squeezed and True)
        _copy_facts(array, made)
        found = 0
        for rows, piece in _pieces(array):
            made[rows] = piece
            found = _summed(piece, found)
        self._sums[str(made.name).strip("/")] = found


def _pieces(array: Any) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield an array's rows a piece at a time, with their position."""
    if not array.shape:
        yield (), np.asarray(array[()])
        return
    rows = max(1, AT_ONCE // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, array.shape[0], rows):
        part = slice(start, start + rows)
        yield part, np.asarray(array[part])


def _summed(piece: np.ndarray, before: int) -> int:
    return zlib.crc32(np.ascontiguousarray(piece).tobytes(), before)


def _copy_facts(source: Any, target: Any) -> None:
    for key, value in source.attrs.items():
        target.attrs[key] = value


def copier(source: Path) -> Copier | None:
    """Return what copies cells to a new h5ad file without reading them whole; ``None`` where that cannot be done.

    It can be done for h5ad files whose tables are groups (anndata 0.7 and later) and for zarr stores.
    """
    import h5py

    if any((source / mark).exists() for mark in (".zgroup", ".zattrs", "zarr.json")):
        return ZarrCopier(source)
    if not source.is_file() or not h5py.is_hdf5(source):
        return None
    with h5py.File(source, "r") as file:
        plain = "obs" in file and "column-order" in file["obs"].attrs
    return H5adCopier(source) if plain else None


def write_adata(adata: "ad.AnnData", target: Path) -> None:
    """Write an AnnData as a new h5ad file, and read its matrices back.

    Raises
    ------
    OSError
        If it cannot be written, or is not there as it is in memory.
    """
    import h5py

    with hdf5_errors():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anndata's notices on its own future defaults
            adata.write_h5ad(target)
        with h5py.File(target, "r") as file:
            check_written(adata, file)


def copy_and_add(
    copy: Copier,
    target: Path,
    *,
    columns: "pd.DataFrame",
    matrices: Mapping[str, np.ndarray],
    facts: Mapping[str, Any],
    key: str,
) -> None:
    """Copy cells to an h5ad file, add columns, matrices and facts to the copy, and read them back.

    Parameters
    ----------
    copy
        Copies the cells to a file; see `copier`.
    target
        The file to make.
    columns
        One row a cell in the order of the file; names without the key.
    matrices
        Float32 of shape (cells, D) by name in ``obsm``: the representation, and all probabilities where asked for.
    facts
        For ``uns[key]``.
    key
        Begins every name that is added.

    Raises
    ------
    DataError
        If a name is taken by something that canal did not write.
    OSError
        If the copy cannot be written, or is not there as it was written.
    """
    import h5py

    stored = storable(facts)
    replaced = {f"obs/{stored_name(key, name)}" for name in columns.columns} | {f"obsm/{name}" for name in matrices}
    replaced |= {f"obsm/{probability_place(key)}", f"uns/{key}"}
    with hdf5_errors():
        copy.write(target)
        with h5py.File(target, "r+") as file:
            removed = _add(file, columns, matrices, stored, key)
            file.flush()
        replaced |= {f"obs/{name}" for name in removed}
        with h5py.File(target, "r") as file:
            copy.check(file, replaced)
            check_added(file, columns, matrices, stored, key)


def _add(
    file: Any, columns: "pd.DataFrame", matrices: Mapping[str, np.ndarray], facts: Mapping[str, Any], key: str
) -> list[str]:
    """Add an annotation to an open h5ad file; return the columns of an earlier one that were removed."""
    import h5py

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's notices on its own future defaults
        for name in ("obsm", "uns"):
            if name not in file:
                write_element(file, name, {})
        obs, obsm, uns = file["obs"], file["obsm"], file["uns"]
        order = [_text(name) for name in obs.attrs["column-order"]]
        check_names_free(columns.columns, key, obs=order, obsm=obsm, uns=uns)
        # What an earlier answer had and this one has not does not belong to it.
        removed = columns_left(order, key, columns.columns, uns)
        for name in removed:
            del obs[name]
        order = [name for name in order if name not in removed]
        for name in columns.columns:
            values = columns[name]
            categorical = values.dtype.name == "category"
            stored = values.array if categorical else values.to_numpy()
            write_element(obs, stored_name(key, name), stored)
        order += [n for n in (stored_name(key, name) for name in columns.columns) if n not in order]
        obs.attrs["column-order"] = np.array(order, dtype=h5py.string_dtype())
        # Probabilities of an earlier answer do not belong to this one.
        if probability_place(key) in obsm:
            del obsm[probability_place(key)]
        for name, matrix in matrices.items():
            _write_rows(obsm, name, matrix)
        write_element(uns, key, facts)
    return removed


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
