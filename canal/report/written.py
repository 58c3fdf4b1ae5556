"""That what was written to an HDF5 file is there: every error of the disk is raised, and what was written is read back.

HDF5 writes when it likes: when a dataset is closed, which Python does when nobody holds it any more. An error then has
nobody to go to, and h5py prints that it was ignored. The file is closed without a word, and lacks what could not be
written. So such errors are collected, and the file is read again before it takes the place of another one.
"""

import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from canal.data.source import holds, layers_of
from canal.data.threads import row_blocks

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd

# Columns that a schema of others names: they stand in a file without the key before them.
SCHEMA_COLUMNS = frozenset({"cell_type_ontology_term_id"})


def stored_name(key: str, name: str) -> str:
    """Return the name in ``obs`` of a column of an annotation."""
    return name if name in SCHEMA_COLUMNS else f"{key}_{name}"


_AT_ONCE = 4_000_000  # values that are compared at a time


@contextmanager
def hdf5_errors() -> Iterator[None]:
    """Raise every error of HDF5 as OSError, also those in destructors, which Python otherwise ignores.

    Raises
    ------
    OSError
        If anything could not be written, when the block ends at the latest.
    """
    ignored: list[BaseException] = []
    unraisable: Callable[[Any], object] = sys.unraisablehook
    printed: Callable[..., object] = sys.excepthook

    # h5py's destructors hand an error to both hooks: to the second one to be printed, to the first to be ignored.
    def collect(facts: Any) -> None:
        if "h5py" in f"{facts.object} {facts.err_msg}" and facts.exc_value is not None:
            ignored.append(facts.exc_value)
        else:
            unraisable(facts)

    def keep_silent(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if trace is None or "h5py" not in trace.tb_frame.f_code.co_filename:
            printed(kind, error, trace)

    sys.unraisablehook, sys.excepthook = collect, keep_silent
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        # What h5py makes of an error that HDF5 does not explain. Whatever of the file these frames hold is closed now.
        traceback.clear_frames(error.__traceback__)
        raise OSError(_reason(error)) from error
    finally:
        sys.unraisablehook, sys.excepthook = unraisable, printed
    if ignored:
        raise OSError(_reason(ignored[0])) from ignored[0]


def check_added(
    file: Any, columns: "pd.DataFrame", matrices: Mapping[str, np.ndarray], facts: Mapping[str, Any], key: str
) -> None:
    """Read an annotation back from an open h5ad file.

    Parameters
    ----------
    file
        The file, opened anew.
    columns, matrices, facts, key
        What was written; see `canal.report.h5ad.copy_and_add`.

    Raises
    ------
    OSError
        If something is not there as it was written.
    """
    listed = [_text(name) for name in file["obs"].attrs["column-order"]]
    for name in columns.columns:
        values = columns[name]
        stored = values.array if values.dtype.name == "category" else values.to_numpy()
        there = stored_name(key, name)
        _require(there in listed and holds(file["obs"], there, stored), f"obs[{there}]")
    for name, matrix in matrices.items():
        _require(_same_rows(file["obsm"], name, matrix), f"obsm[{name}]")
    _require(holds(file["uns"], key, facts), f"uns[{key}]")


def objects_of(file: Any) -> dict[str, tuple[Any, ...]]:
    """Return of every object of an open HDF5 file its kind, its attributes and, of a dataset, all but the values.

    Where the values stand and how many bytes they take is told, too: nothing that is added to a file moves them.
    """
    found: dict[str, tuple[Any, ...]] = {}

    def note(place: str, item: Any) -> None:
        names = sorted(item.attrs)
        if hasattr(item, "dtype"):
            found[place] = (names, item.shape, item.dtype, item.id.get_storage_size(), item.id.get_offset())
        else:
            found[place] = (names,)

    file.visititems(note)
    return found


def check_same_objects(
    before: Mapping[str, tuple[Any, ...]], after: Mapping[str, tuple[Any, ...]], replaced: Collection[str]
) -> None:
    """Compare what a copy holds beside what was added to it with its source.

    Parameters
    ----------
    before, after
        `objects_of` the source, and of the copy that was added to.
    replaced
        Places of the copy that were written anew.

    Raises
    ------
    OSError
        If something is missing, or is another than in the source.
    """
    for place, facts in before.items():
        _require(is_among(place, replaced) or after.get(place) == facts, place)


def is_among(place: str, places: Collection[str]) -> bool:
    """Tell whether a place of a file is one of some places, or lies below one."""
    return any(place == one or place.startswith(f"{one}/") for one in places)


def check_written(adata: "ad.AnnData", file: Any) -> None:
    """Compare the matrices in a file that anndata wrote with those in memory, and look for every column of the tables.

    Parameters
    ----------
    adata
        What was written.
    file
        The file, opened anew.

    Raises
    ------
    OSError
        If one is not there as it is in memory.
    """
    for name, table in (("obs", adata.obs), ("var", adata.var)):
        columns = {str(column) for column in table.columns} | {_text(file[name].attrs.get("_index", ""))}
        _require(columns <= set(file[name]), name)
    places = {"X": adata.X} | {f"layers/{name}": matrix for name, matrix in layers_of(adata).items()}
    places |= {f"obsm/{name}": matrix for name, matrix in adata.obsm.items()}
    if adata.raw is not None:
        places["raw/X"] = adata.raw.X
    for place, matrix in places.items():
        if sp.issparse(matrix):
            for part in ("data", "indices", "indptr"):
                _require(_same_rows(file, f"{place}/{part}", getattr(matrix, part)), place)
        elif isinstance(matrix, np.ndarray) and matrix.dtype.kind in "biuf":
            _require(_same_rows(file, place, matrix), place)


def _reason(error: BaseException) -> str:
    """Return why the disk failed, without the addresses and times that HDF5 puts beside it."""
    told = re.search(r"error message = '([^']*)'", str(error))
    return told[1] if told else str(error).split("\n", 1)[0]


def _same_rows(group: Any, name: str, rows: np.ndarray) -> bool:
    """Tell whether a dataset holds an array, compared a block at a time."""
    if name not in group or group[name].shape != rows.shape:
        return False
    stored, size = group[name], max(1, _AT_ONCE // max(1, int(np.prod(rows.shape[1:]))))
    return all(
        np.array_equal(stored[start : start + len(block)], block, equal_nan=block.dtype.kind == "f")
        for start, block in row_blocks(rows, size)
    )


def _require(there: bool, place: str) -> None:
    if not there:
        message = f"{place} was not written as it should be"
        raise OSError(message)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
