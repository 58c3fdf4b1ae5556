"""Cell Ranger's own formats: ``.h5`` of version 2 and 3, and folders of Matrix Market files.

Open a file of cells: h5ad, zarr, 10x HDF5 or a folder of 10x Matrix Market files.
"""

import csv
import gzip
import mmap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from canal.data.blosc_checks import check_blosc_chunks
from canal.data.genes import EXPRESSION
from canal.data.soma import is_soma, open_soma, read_soma
from canal.data.source import CellSource, Matrix, StoredTable, from_adata, stated_base
from canal.data.sparse_checks import BadSparseError, check_all_matrices, check_parts, check_shape, csr_of
from canal.data.stored import is_sparse, rows_of
from canal.errors import DataError

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


_Features = tuple[list[str], list[str], list[str]]  # ids, symbols, kinds


def genome_groups(file: Any) -> list[str]:
    """Return the groups of an open HDF5 file that hold a Cell Ranger matrix."""
    groups = {name: item for name, item in file.items() if hasattr(item, "keys")}
    return [name for name, group in groups.items() if "barcodes" in group and "indptr" in group]


def open_h5(path: Path) -> CellSource:
    """Read a 10x ``.h5`` file; its matrix is held in memory.

    Raises
    ------
    DataError
        If it holds more than one genome.
    BadSparseError
        If its arrays are no sparse matrix.
    """
    import h5py

    with h5py.File(path, "r") as file:
        names = genome_groups(file)
        if len(names) > 1:
            message = (
                f"{path} holds matrices of {len(names)} genomes ({', '.join(names)}); expected "
                "one. Export the genome you want as an .h5ad file."
            )
            raise DataError(message)
        group = file[names[0]]
        # Cell Ranger stores genes x cells as CSC, which is cells x genes as CSR.
        genes, cells = check_shape(group["shape"][:])
        data, indices, indptr = group["data"], group["indices"], group["indptr"]
        check_parts(data, indices, indptr, cells)  # before anything is read
        matrix = csr_of(data[:], indices[:], indptr[:], (cells, genes))
        barcodes = _text(group["barcodes"])
        features = group.get("features", group)
        ids = _text(features["id" if "id" in features else "genes"])
        symbols = _text(features["name" if "name" in features else "gene_names"])
        kinds = _text(features["feature_type"]) if "feature_type" in features else [EXPRESSION] * len(ids)
    return _source(path, matrix, barcodes, (ids, symbols, kinds))


def open_mtx(path: Path) -> CellSource:
    """Read a folder of ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv``, gzipped or not.

    Raises
    ------
    DataError
        If one of the three is missing, or they do not fit together.
    """
    matrix = sp.csr_matrix(_read_mtx(_one_of(path, "matrix.mtx")).T)
    barcodes = [row[0] for row in _tenx_table(_one_of(path, "barcodes.tsv"))]
    features = _tenx_table(_one_of(path, "features.tsv", "genes.tsv"))
    if matrix.shape != (len(barcodes), len(features)):
        message = (
            f"{path}: the matrix is {matrix.shape[1]} genes x {matrix.shape[0]} cells, but there "
            f"are {len(features)} features and {len(barcodes)} barcodes. The three files do not "
            "belong together; export them again."
        )
        raise DataError(message)
    ids = [row[0] for row in features]
    symbols = [row[1] if len(row) > 1 else row[0] for row in features]
    kinds = [row[2] if len(row) > 2 else EXPRESSION for row in features]
    return _source(path, matrix, barcodes, (ids, symbols, kinds))


def _source(path: Path, matrix: sp.csr_matrix, barcodes: list[str], features: _Features) -> CellSource:
    import pandas as pd

    ids, symbols, kinds = features
    _check_fits(matrix.shape, len(barcodes), len(ids), str(path), "the matrix")
    if not len(ids) == len(symbols) == len(kinds):
        message = (
            f"{path} has {len(ids)} ids, {len(symbols)} names and {len(kinds)} types of features; expected one of each "
            "for every feature. Export it again."
        )
        raise DataError(message)
    keep = np.flatnonzero(np.array(kinds) == EXPRESSION)
    if len(keep) == 0:
        message = f"{path} has no features of type {EXPRESSION!r}; found {', '.join(sorted(set(kinds))) or 'none'}."
        raise DataError(message)
    if len(keep) < len(kinds):
        matrix = matrix[:, keep]
    var = pd.DataFrame(
        {"gene_symbols": np.array(symbols, dtype=object)[keep]},
        index=np.array(ids, dtype=object)[keep],
    )
    obs = pd.DataFrame(index=np.array(barcodes, dtype=object))
    source = str(path)
    return CellSource(source=source, obs=obs, var=var, places={"X": Matrix(matrix, source, "X")})


def _check_fits(shape: tuple[int, int], cells: int, genes: int, source: str, where: str) -> None:
    """Refuse a matrix that is not of the cells and genes of the file's tables.

    Raises
    ------
    DataError
        If so.
    """
    if tuple(shape) != (cells, genes):
        message = (
            f"{source}: {where} is {shape[0]} cells x {shape[1]} genes, but the tables of the file have {cells} cells "
            f"and {genes} genes. They do not belong together: write the file anew."
        )
        raise DataError(message)


def _read_mtx(path: Path) -> Any:
    """Return a Matrix Market file as SciPy reads it; its reader checks every index, but breaks down at a NUL byte.

    Raises
    ------
    ValueError
        If it is no such text.
    """
    from scipy.io import mmread

    if path.suffix == ".gz":
        with gzip.open(path, "rb") as packed:
            return mmread(_TextFile(packed))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _refuse_nul(content.find(b"\0") >= 0)
    return mmread(path)


class _TextFile:
    """A file that is read on as long as it is text."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        block = self._file.read(size)
        _refuse_nul(b"\0" in block)
        return block


def _refuse_nul(found: bool) -> None:
    if found:
        message = "it holds NUL bytes and is no text"
        raise ValueError(message)


def _text(dataset: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in dataset[:]]


def _one_of(folder: Path, *names: str) -> Path:
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.exists():
                return path
    message = (
        f"{folder} has no {' or '.join(names)} (gzipped or not). Expected Cell Ranger's three "
        "files: matrix.mtx, barcodes.tsv and features.tsv (or genes.tsv)."
    )
    raise DataError(message)


def _tenx_table(path: Path) -> list[list[str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    return [row for row in csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE) if row]


KINDS = "an .h5ad file, a zarr folder, a 10x .h5 file, a 10x folder with matrix.mtx or a SOMA experiment"


def open_file(path: str | Path) -> CellSource:
    """Open a file of cells without reading its matrices.

    Parameters
    ----------
    path
        An h5ad file (any layout and compression), a zarr folder, a 10x ``.h5`` file, a 10x
        folder with ``matrix.mtx``, barcodes and features, or a SOMA experiment.

    Raises
    ------
    DataError
        If there is no such file, or it is none of these, or it is damaged.
    """
    path = Path(path)
    if not path.exists():
        message = f"There is no file {path}. Expected {KINDS}; check the spelling and the folder."
        raise DataError(message)
    with _damage_as_data_error(path):
        reader = _folder_reader(path) if path.is_dir() else _file_reader(path)
        return reader(path)


@contextmanager
def _damage_as_data_error(path: Path) -> Iterator[None]:
    """Raise whatever reading a damaged file raises as one message; notices about old formats are no user's concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (DataError, ModuleNotFoundError):  # a library that is not installed is no fault of the file
            raise
        except BadSparseError as error:
            message = f"{path} is damaged: {error}. Copy it again, or write it anew."
            raise DataError(message) from error
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
    if is_soma(path):  # opening one reads it whole
        with _damage_as_data_error(path):
            return read_soma(path)
    with open_file(path) as source, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.is_dir() and not _is_mtx(path):
            return _checked(ad.read_zarr(path), path)
        if not path.is_dir() and not _is_tenx(path):
            return _checked(ad.read_h5ad(path), path)
        x = source.places["X"]
        return ad.AnnData(X=x.rows(0, x.shape[0]), obs=source.obs, var=source.var)


def _checked(adata: "ad.AnnData", path: Path) -> "ad.AnnData":
    """Return an AnnData that anndata read, which does not look at what its sparse matrices hold."""
    try:
        check_all_matrices(adata)
    except BadSparseError as error:
        message = f"{path} is damaged: {error}. Copy it again or write it anew with a current anndata."
        raise DataError(message) from error
    return adata


def _folder_reader(path: Path) -> Callable[[Path], CellSource]:
    if is_soma(path):
        return open_soma
    if any((path / mark).exists() for mark in (".zgroup", ".zattrs", "zarr.json")):
        return _open_zarr
    if _is_mtx(path):
        return open_mtx
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
    with h5py.File(path, "r") as file:
        _refuse_other_files(file, path)
        return open_h5 if genome_groups(file) else _open_h5ad


def _refuse_other_files(file: Any, path: Path) -> None:
    """Refuse an HDF5 file whose content lies in other files: opening it would read whatever they name.

    Raises
    ------
    DataError
        If a link, a virtual dataset or a dataset with storage of its own leads out of the file.
    """
    import h5py

    def leads_out(_: str, link: Any) -> str | None:
        return link.filename if isinstance(link, h5py.ExternalLink) else None

    def lies_outside(_: str, element: Any) -> str | None:
        if not isinstance(element, h5py.Dataset):
            return None
        if element.is_virtual:
            return str(element.virtual_sources()[0].file_name)
        return str(element.external[0][0]) if element.external else None

    # Neither follows a link out of the file, and each looks at an object once, however the links run.
    other = file.visititems_links(leads_out) or file.visititems(lies_outside)
    if other is not None:
        message = (
            f"{path} keeps a part of its cells in another file ({other}); expected one file with all of them. Write it "
            "anew with anndata where both are: adata.write_h5ad."
        )
        raise DataError(message)


def _is_mtx(path: Path) -> bool:
    return (path / "matrix.mtx").exists() or (path / "matrix.mtx.gz").exists()


def _is_tenx(path: Path) -> bool:
    import h5py

    with h5py.File(path, "r") as file:
        return bool(genome_groups(file))


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

    check_blosc_chunks(path)
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
    stored = {where: _lazy(group[key], source, where) for where, key in elements.items() if key in group}
    obs, var = _table(group["obs"], source), _frame(group["var"], source)
    raw_var = _frame(group["raw/var"], source) if "raw/var" in group else None
    for where, matrix in stored.items():
        if matrix is not None:
            genes = raw_var if where == "raw.X" and raw_var is not None else var
            _check_fits(matrix.shape, obs.shape[0], genes.shape[0], source, where)
    return CellSource(
        source=source,
        obs=obs,
        var=var,
        raw_var=raw_var,
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


def _lazy(element: Any, source: str, where: str) -> Any:
    """Return a matrix on disk that gives its rows, or None for an element that is no matrix."""
    if is_sparse(element):
        try:
            return rows_of(element)
        except BadSparseError as error:
            message = f"{source}: {where} is damaged: {error}. Copy the file again, or write it anew."
            raise DataError(message) from error
    return element if len(getattr(element, "shape", ())) == 2 else None
