"""Write toy cells to every container that can be read."""

import gzip
import warnings
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import scipy.io
import scipy.sparse as sp

CONTAINERS = (
    "csr",
    "csc",
    "dense",
    "gzip",
    "zarr",
    "zarr_csc",
    "tenx_h5",
    "tenx_h5_v2",
    "mtx",
    "mtx_gz",
    "old_h5ad",
)


def write(adata: ad.AnnData, container: str, folder: Path) -> Path:
    """Write cells to a container and return its path."""
    adata = adata.copy()
    if container.startswith("zarr"):
        adata.X = sp.csc_matrix(adata.X) if container.endswith("csc") else sp.csr_matrix(adata.X)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adata.write_zarr(folder / "cells.zarr")
        return folder / "cells.zarr"
    if container.startswith("tenx"):
        return _write_tenx(adata, folder / "cells.h5", legacy=container.endswith("v2"))
    if container.startswith("mtx"):
        return _write_mtx(adata, folder / "cells", zipped=container.endswith("gz"))
    layout = {"csc": sp.csc_matrix, "dense": lambda x: sp.csr_matrix(x).toarray()}.get(container, sp.csr_matrix)
    adata.X = layout(adata.X)
    path = folder / f"{container}.h5ad"
    adata.write_h5ad(path, compression="gzip" if container == "gzip" else None)
    if container == "old_h5ad":
        _make_old(path)
    return path


def _write_tenx(adata: ad.AnnData, path: Path, *, legacy: bool) -> Path:
    matrix = sp.csr_matrix(adata.X)
    with h5py.File(path, "w") as file:
        group = file.create_group("GRCh38" if legacy else "matrix")
        group["barcodes"] = adata.obs_names.to_numpy().astype("S")
        group["shape"] = np.array(matrix.shape[::-1])
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(matrix, part)
        ids = np.array([f"ENSG{g:011d}" for g in range(adata.n_vars)], dtype="S")
        names = adata.var_names.to_numpy().astype("S")
        if legacy:
            group["genes"], group["gene_names"] = ids, names
        else:
            features = group.create_group("features")
            features["id"], features["name"] = ids, names
            features["feature_type"] = np.full(adata.n_vars, b"Gene Expression")
    return path


def _write_mtx(adata: ad.AnnData, folder: Path, *, zipped: bool) -> Path:
    folder.mkdir()
    scipy.io.mmwrite(folder / "matrix.mtx", sp.coo_matrix(adata.X).T)
    rows = [f"ENSG{g:011d}\t{name}\tGene Expression\n" for g, name in enumerate(adata.var_names)]
    (folder / "features.tsv").write_text("".join(rows))
    (folder / "barcodes.tsv").write_text("".join(f"{name}\n" for name in adata.obs_names))
    if zipped:
        for path in list(folder.iterdir()):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    return folder


def _make_old(path: Path) -> None:
    """Take the encoding marks off, and store tables as records, as anndata 0.6 did."""
    with h5py.File(path, "a") as file:
        for table in ("obs", "var"):
            group = file[table]
            names = group[group.attrs["_index"]][:]
            columns = {"index": np.array(names, dtype="S")}
            for column in group.attrs["column-order"]:
                stored = group[column]
                values = stored["categories"][:][stored["codes"][:]] if "codes" in stored else stored[:]
                columns[column] = np.array(values, dtype="S")
            records = np.rec.fromarrays(list(columns.values()), names=list(columns))
            del file[table]
            file[table] = records
        for mark in ("encoding-type", "encoding-version"):
            del file["X"].attrs[mark]
        file["X"].attrs["h5sparse_format"] = "csr"
        file["X"].attrs["h5sparse_shape"] = file["X"].attrs["shape"]
        for empty in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
            if empty in file:
                del file[empty]
        for mark in list(file.attrs):
            del file.attrs[mark]
