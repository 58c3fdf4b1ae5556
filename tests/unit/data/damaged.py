"""Sparse matrices whose arrays are none, in every container; read in processes of their own, for they may crash.

``python -m tests.unit.data.damaged FOLDER`` makes each file, reads it in a forked process, and writes how each ended to
``outcomes.json`` in the folder.
"""

import json
import os
import resource
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from safetensors.numpy import load_file, save_file

from canal.data.cells import CellPool
from canal.data.formats import read_adata
from canal.data.stored import StoredColumns
from canal.data.stream import read_cells
from canal.errors import CanalError
from canal.model.bank import load_bank, save_bank
from tests.make import make_adata
from tests.unit.data.containers import write

Arrays = dict[str, np.ndarray]  # data, indices, indptr, and as shape (rows, columns) of the layout: majors, minors
Change = Callable[[Arrays], None]
CONTAINERS = ("csr", "csc", "csc_dealt", "zarr", "zarr_csc", "tenx_h5", "old_h5ad", "bank")
MEMORY, SECONDS = 8 * 2**30, 60


def _set(name: str, place: int, value: int, dtype: Any = None) -> Change:
    def change(arrays: Arrays) -> None:
        arrays[name] = arrays[name].astype(dtype or np.int64)
        arrays[name][place] = value

    return change


def _with(name: str, make: Callable[[np.ndarray], Any]) -> Change:
    def change(arrays: Arrays) -> None:
        arrays[name] = np.asarray(make(arrays[name]))

    return change


OUTSIDE, POINTERS, SHAPE = "outside of the", "pointers", "its shape is"
# What is wrong, and what the message says of it. Those of the shape are of containers that keep one.
CASES: dict[str, tuple[Change, str]] = {
    "index one too large": (lambda a: _set("indices", 5, int(a["shape"][1]))(a), OUTSIDE),
    "index 2^31 - 1": (_set("indices", 5, 2**31 - 1), OUTSIDE),
    "index -1": (_set("indices", 5, -1), OUTSIDE),
    "index -2^31": (_set("indices", 5, -(2**31)), OUTSIDE),
    "index 2^32, of which 32 bits are 0": (_set("indices", 5, 2**32), OUTSIDE),
    "index 2^64 - 1": (_set("indices", 5, 2**64 - 1, np.uint64), OUTSIDE),
    "indices with fractions": (_with("indices", lambda v: v + 0.25), "type float64; expected integers"),
    "indices as text": (_with("indices", lambda v: v.astype("S5")), "expected integers"),
    "indices of two dimensions": (_with("indices", lambda v: v.reshape(-1, 1)), "no list of numbers"),
    "fewer indices": (_with("indices", lambda v: v[:-3]), "values, but"),
    "fewer values": (_with("data", lambda v: v[:-3]), "values, but"),
    "pointers begin at 3": (_set("indptr", 0, 3), POINTERS),
    "pointers begin below 0": (_set("indptr", 0, -4), POINTERS),
    "pointers go back": (_set("indptr", 7, 0), "go back"),
    "pointers go far on and back": (_set("indptr", 7, 2**40), "go back"),
    "pointers go below 0": (_set("indptr", 7, -(2**40)), "go back"),
    "pointers end too late": (_set("indptr", -1, 2**31), POINTERS),
    "pointers end too early": (lambda a: _set("indptr", -1, int(a["indptr"][-2]) - 1)(a), POINTERS),
    "pointer 2^63 in the middle": (_set("indptr", 7, 2**63, np.uint64), "go back"),
    "pointers with fractions": (_with("indptr", lambda v: v + 0.25), "type float64; expected integers"),
    "one pointer less": (_with("indptr", lambda v: np.delete(v, 9)), "pointers; expected"),
    "one pointer more": (_with("indptr", lambda v: np.append(v, v[-1])), "pointers; expected"),
    "no pointers": (_with("indptr", lambda v: v[:0]), "pointers; expected"),
    "fewer columns than indices": (_with("shape", lambda v: v - [0, 2]), "tables of the file|outside of the"),
    "one row more": (_with("shape", lambda v: v - [-1, 0]), "pointers; expected"),
    "2^40 columns": (_with("shape", lambda v: v - [0, -(2**40)]), SHAPE),
    "2^40 rows": (_with("shape", lambda v: v - [-(2**40), 0]), SHAPE),
    "columns below 0": (_with("shape", lambda v: v * [1, -1]), SHAPE),
    "a shape with fractions": (_with("shape", lambda v: v + 0.5), SHAPE),
    "a shape of three": (_with("shape", lambda v: [*v, 1]), SHAPE),
}
OF_SHAPE = {name for name in CASES if name.endswith(("columns", "three")) or "shape" in name}
OF_SHAPE |= {"fewer columns than indices", "one row more", "2^40 rows", "columns below 0"}


# Of containers that take longer and come to the same gate.
FEW = (
    "index 2^31 - 1",
    "index -1",
    "index 2^32, of which 32 bits are 0",
    "indices with fractions",
    "fewer values",
    "pointers go far on and back",
    "pointers end too late",
    "one pointer less",
)


def cases_of(container: str) -> list[str]:
    """Return the cases to try in a container."""
    if container == "bank":
        # Its shape follows from genes and labels; safetensors has no text.
        return [name for name in CASES if name not in OF_SHAPE | {"indices as text"}]
    if container.startswith("zarr"):
        return [*FEW, "fewer columns than indices", "2^40 columns"]
    return list(FEW) if container == "old_h5ad" else list(CASES)  # anndata reads the shape of old ones


def made(container: str, folder: Path) -> Path:
    """Write cells to a container."""
    folder.mkdir(parents=True)
    if container == "bank":
        cells = read_cells(write(make_adata(40, n_genes=30), "csr", folder), labels="cell_type")
        save_bank(CellPool.of(cells, 1), folder / "bank.safetensors")
        return folder / "bank.safetensors"
    path = write(make_adata(40, n_genes=30), "csc" if container == "csc_dealt" else container, folder)
    if container.startswith("zarr"):
        for left in path.rglob(".zmetadata"):
            left.unlink()  # holds the facts of all arrays a second time
    return path


def spoiled(container: str, good: Path, case: str) -> Path:
    """Return a copy of a file whose matrix is damaged."""
    path = good.with_name(f"bad-{good.name}")
    shutil.rmtree(path, ignore_errors=True)
    change = CASES[case][0]
    if container.startswith("zarr"):
        shutil.copytree(good, path)
        _spoil(zarr.open_group(str(path), mode="a", use_consolidated=False)["X"], container, change)
    elif container == "bank":
        _spoil_bank(change, good, path)
    else:
        shutil.copyfile(good, path)
        kind = "csc" if container == "csc_dealt" else container
        with h5py.File(path, "a") as file:
            _spoil(file["matrix" if kind == "tenx_h5" else "X"], kind, change)
    return path


def _spoil(group: Any, container: str, change: Change) -> None:
    tenx, old = container == "tenx_h5", container == "old_h5ad"
    key = "h5sparse_shape" if old else "shape"
    shape = np.asarray(group["shape"][:] if tenx else group.attrs[key], dtype=np.int64)
    by_columns = container.endswith("csc") or tenx
    arrays: Arrays = {name: group[name][...] for name in ("data", "indices", "indptr")}
    arrays["shape"] = shape[::-1].copy() if by_columns else shape
    change(arrays)
    for name in ("data", "indices", "indptr"):
        del group[name]
        if isinstance(group, h5py.Group):
            group[name] = arrays[name]
        else:
            group.create_array(name, data=arrays[name])
    shape = arrays["shape"]
    if by_columns:
        shape = np.concatenate([shape[1::-1], shape[2:]])
    if tenx:
        del group["shape"]
        group["shape"] = shape
    else:
        group.attrs[key] = shape if isinstance(group, h5py.Group) else shape.tolist()


def _spoil_bank(change: Change, good: Path, path: Path) -> None:
    arrays = load_file(good)
    arrays["shape"] = np.array([40, 30])
    change(arrays)
    del arrays["shape"]
    save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, path)


def read(container: str, path: Path) -> None:
    """Read all of a file, in every way it is read."""
    if container == "bank":
        load_bank(path)
    elif container == "csc_dealt":
        with h5py.File(path, "r") as file:
            stored = StoredColumns(file["X"], in_memory=0, at_a_time=50)
            for start in range(0, stored.shape[0], 7):
                stored[start : start + 7].sum()
    else:
        try:
            adata = read_adata(path)
        except CanalError:
            read_cells(path, labels="cell_type")
            raise
        adata[::2].copy().X.tocsc().tocsr()


def outcome(container: str, path: Path, note: Path) -> str:
    """Read a file in a process of its own; return what it raised, or how it died."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        signal.alarm(SECONDS)
        text = "nothing was told"
        try:
            read(container, path)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test is told
            text = f"{type(error).__name__}: {error}"
        note.write_text(text)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return note.read_text() if status == 0 else f"died with status {status}"


def main(folder: Path) -> None:
    """Write the outcome of every case, by container."""
    warnings.simplefilter("ignore")
    found: dict[str, dict[str, str]] = {}
    for container in CONTAINERS:
        good = made(container, folder / container)
        found[container] = {}
        for case in cases_of(container):
            path = spoiled(container, good, case)
            (folder / "note").write_text("")
            found[container][case] = outcome(container, path, folder / "note")
    (folder / "outcomes.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
