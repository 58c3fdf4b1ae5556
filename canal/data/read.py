"""Open a file of cells: h5ad, zarr, 10x HDF5 or a folder of 10x Matrix Market files."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canal.data import tenx
from canal.data.source import CellSource, Matrix, from_adata, stated_base
from canal.data.stored import is_sparse, rows_of
from canal.data.table import StoredTable
from canal.errors import DataError

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd

KINDS = "an .h5ad file, a zarr folder, a 10x .h5 file or a 10x folder with matrix.mtx"


def open_file(path: str | Path) -> CellSource:
    """Open a file of cells without reading its matrices.

    Parameters
    ----------
    path
        An h5ad file (any layout and compression), a zarr folder, a 10x ``.h5`` file, or a 10x
        folder with ``matrix.mtx``, barcodes and features.

    Raises
    ------
    DataError
        If there is no such file, or it is none of these, or it is damaged.
    """
    path = Path(path)
    if not path.exists():
        message = f"There is no file {path}. Expected {KINDS}; check the spelling and the folder."
        raise DataError(message)
    reader = _folder_reader(path) if path.is_dir() else _file_reader(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notices about old formats are not the user's concern
        try:
            return reader(path)
        except DataError:
            raise
        except Exception as error:  # a damaged file makes h5py, zarr and anndata raise anything
            message = (
                f"{path} cannot be read ({type(error).__name__}: {error}). The file is truncated "
                "or damaged: copy it again or write it anew with a current anndata."
            )
            raise DataError(message) from error


def read_adata(path: str | Path) -> "ad.AnnData":
    """Read a whole file of cells as AnnData, for those who write one back.

    Raises
    ------
    DataError
        As `open_file`.
    """
    import anndata as ad

    path = Path(path)
    with open_file(path) as source, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.is_dir() and not _is_mtx(path):
            return ad.read_zarr(path)
        if not path.is_dir() and not _is_tenx(path):
            return ad.read_h5ad(path)
        x = source.places["X"]
        return ad.AnnData(X=x.rows(0, x.shape[0]), obs=source.obs, var=source.var)


def _folder_reader(path: Path) -> Callable[[Path], CellSource]:
    if any((path / mark).exists() for mark in (".zgroup", ".zattrs", "zarr.json")):
        return _open_zarr
    if _is_mtx(path):
        return tenx.open_mtx
    message = (
        f"The folder {path} is neither a zarr store nor a 10x folder: no .zgroup, zarr.json or "
        f"matrix.mtx in it. Expected {KINDS}; name the file or folder itself."
    )
    raise DataError(message)


def _file_reader(path: Path) -> Callable[[Path], CellSource]:
    import h5py

    if not h5py.is_hdf5(path):
        hint = f" Name its folder {path.parent} instead." if ".mtx" in path.suffixes else ""
        message = f"{path} is not an h5ad file: it is no HDF5 file at all. Expected {KINDS}.{hint}"
        raise DataError(message)
    try:
        return tenx.open_h5 if _is_tenx(path) else _open_h5ad
    except OSError as error:
        message = f"{path} is truncated or damaged ({error}). Copy it again; the download or copy was cut off."
        raise DataError(message) from error


def _is_mtx(path: Path) -> bool:
    return (path / "matrix.mtx").exists() or (path / "matrix.mtx.gz").exists()


def _is_tenx(path: Path) -> bool:
    import h5py

    with h5py.File(path, "r") as file:
        return bool(tenx.genome_groups(file))


def _open_h5ad(path: Path) -> CellSource:
    import h5py

    file = h5py.File(path, "r")
    if not {"obs", "var"} <= set(file) or not {"X", "layers", "raw"} & set(file):
        found = ", ".join(sorted(file)) or "nothing"
        file.close()
        message = (
            f"{path} is HDF5 but not an h5ad file: found {found} at its top, expected obs, var and X. Expected {KINDS}."
        )
        raise DataError(message)
    if "encoding-type" not in file["obs"].attrs:  # written before anndata 0.7
        file.close()
        return _open_old_h5ad(path)
    try:
        return _open_group(file, str(path))
    except BaseException:
        file.close()
        raise


def _open_old_h5ad(path: Path) -> CellSource:
    import anndata as ad

    return from_adata(ad.read_h5ad(path), str(path))


def _open_zarr(path: Path) -> CellSource:
    import zarr

    group = zarr.open_group(str(path), mode="r")
    found = set(group.keys())
    if not {"obs", "var"} <= found or not {"X", "layers", "raw"} & found:
        message = (
            f"{path} is a zarr store but holds no AnnData: found "
            f"{', '.join(sorted(found)) or 'nothing'} at its top, expected obs, var and X. "
            f"Expected {KINDS}."
        )
        raise DataError(message)
    return _open_group(group, str(path))


def _open_group(group: Any, source: str) -> CellSource:
    elements = {f"layers['{name}']": f"layers/{name}" for name in group.get("layers", {})}
    elements |= {"X": "X", "raw.X": "raw/X"}
    stored = {where: _lazy(group[key]) for where, key in elements.items() if key in group}
    return CellSource(
        source=source,
        obs=_table(group["obs"], source),
        var=_frame(group["var"], source),
        raw_var=_frame(group["raw/var"], source) if "raw/var" in group else None,
        places={w: Matrix(m, source, w) for w, m in stored.items() if m is not None},
        log_base=_log_base(group["uns/log1p"]) if "uns/log1p" in group else None,
        handles=(group,),
    )


def _table(group: Any, source: str) -> "StoredTable | pd.DataFrame":
    """Return a table: its index now, its columns when they are asked for, if it is of today's encoding."""
    if "_index" in group.attrs and "column-order" in group.attrs:
        return StoredTable(group, source)
    from anndata.io import read_elem

    table: pd.DataFrame = read_elem(group)
    return table


def _frame(group: Any, source: str) -> "pd.DataFrame":
    table = _table(group, source)
    return table.frame() if isinstance(table, StoredTable) else table


def _log_base(group: Any) -> float | None:
    from anndata.io import read_elem

    return stated_base(read_elem(group))


def _lazy(element: Any) -> Any:
    """Return a matrix on disk that gives its rows, or None for an element that is no matrix."""
    if is_sparse(element):
        return rows_of(element)
    return element if len(getattr(element, "shape", ())) == 2 else None
