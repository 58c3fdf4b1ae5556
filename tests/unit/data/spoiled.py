"""Files of cells that cannot be read, each for a reason of its own; all return the path to name."""

from pathlib import Path

from tests.make import make_adata
from tests.unit.data.containers import write


def missing(path: Path) -> Path:
    return path / "none.h5ad"


def not_hdf5(path: Path) -> Path:
    (path / "cells.h5ad").write_text("gene,cell\n")
    return path / "cells.h5ad"


def truncated(path: Path) -> Path:
    whole = write(make_adata(), "csr", path).read_bytes()
    (path / "cut.h5ad").write_bytes(whole[: len(whole) // 2])
    return path / "cut.h5ad"


def garbled(path: Path) -> Path:
    written = write(make_adata(), "gzip", path)
    import h5py

    with h5py.File(written, "r") as file:
        place = file["X/data"].id.get_chunk_info(0)
    raw = bytearray(written.read_bytes())
    raw[place.byte_offset : place.byte_offset + place.size] = b"\xff" * place.size
    written.write_bytes(raw)
    return written


def other_hdf5(path: Path) -> Path:
    import h5py

    with h5py.File(path / "x.h5", "w") as file:
        file["table"] = [1]
    return path / "x.h5"


def folder(path: Path) -> Path:
    (path / "empty").mkdir()
    return path / "empty"


def mtx_without_barcodes(path: Path) -> Path:
    folder = write(make_adata(), "mtx", path)
    (folder / "barcodes.tsv").unlink()
    return folder


def damaged_obs(path: Path) -> Path:
    import h5py

    written = write(make_adata(), "csr", path)
    with h5py.File(written, "a") as file:
        file["obs"].attrs["column-order"] = ["absent"]
    return written


def zarr_without_cells(path: Path) -> Path:
    import zarr

    zarr.open_group(str(path / "x.zarr"), mode="w")
    return path / "x.zarr"


def matrix_market(path: Path) -> Path:
    return write(make_adata(), "mtx", path) / "matrix.mtx"


def two_genomes(path: Path) -> Path:
    import h5py

    written = write(make_adata(), "tenx_h5_v2", path)
    with h5py.File(written, "a") as file:
        file.copy("GRCh38", "mm10")
    return written


def other_features(path: Path) -> Path:
    import h5py

    written = write(make_adata(), "tenx_h5", path)
    with h5py.File(written, "a") as file:
        file["matrix/features/feature_type"][:] = b"Peaks"
    return written


def mixed_mtx(path: Path) -> Path:
    folder = write(make_adata(), "mtx", path)
    (folder / "barcodes.tsv").write_text("one\n")
    return folder
