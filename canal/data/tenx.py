"""Cell Ranger's own formats: ``.h5`` of version 2 and 3, and folders of Matrix Market files."""

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from canal.data.source import CellSource, Matrix
from canal.errors import DataError

EXPRESSION = "Gene Expression"

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
        shape = group["shape"][:]
        # Cell Ranger stores genes x cells as CSC, which is cells x genes as CSR.
        parts = (group["data"][:], group["indices"][:], group["indptr"][:])
        matrix = sp.csr_matrix(parts, shape=(int(shape[1]), int(shape[0])))
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
    from scipy.io import mmread

    matrix = sp.csr_matrix(mmread(_one_of(path, "matrix.mtx")).T)
    barcodes = [row[0] for row in _table(_one_of(path, "barcodes.tsv"))]
    features = _table(_one_of(path, "features.tsv", "genes.tsv"))
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


def _table(path: Path) -> list[list[str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    return [row for row in csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE) if row]
