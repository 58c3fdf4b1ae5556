"""Files of cells that somebody made to do harm, or to look like what they are not."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.make import make_adata
from tests.unit.data.containers import write

Spoil = Callable[[Path], None]


def toy(folder: Path, container: str = "csr") -> Path:
    """Write toy cells and return their file."""
    folder.mkdir(parents=True, exist_ok=True)
    return write(make_adata(40, types=("B", "NK"), seed=1, n_genes=30), container, folder)


def _external_matrix(path: Path) -> None:
    other = toy(path.parent / "other")
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink(str(other), "X")


def _external_obs(path: Path) -> None:
    other = toy(path.parent / "other")
    with h5py.File(path, "r+") as file:
        del file["obs"]
        file["obs"] = h5py.ExternalLink(str(other), "obs")


def _soft_loop(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = h5py.SoftLink("/layers/a")
        file.require_group("layers")["a"] = h5py.SoftLink("/X")


def _group_in_itself(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["obs/again"] = file["obs"]
        file["uns/again"] = file["/"]


def _dangling(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = h5py.SoftLink("/nowhere")


def _virtual(path: Path) -> None:
    other = toy(path.parent / "other", "dense")
    with h5py.File(path, "r+") as file:
        del file["X"]
        layout = h5py.VirtualLayout((10**6, 10**6), dtype="float32")
        layout[:40, :30] = h5py.VirtualSource(str(other), "X", (40, 30))
        made = file.create_virtual_dataset("X", layout)
        made.attrs["encoding-type"], made.attrs["encoding-version"] = "array", "0.2.0"


def _huge_dense(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["X"]
        made = file.create_dataset("X", (40, 2**40), "float32", chunks=(1, 1024))
        made.attrs["encoding-type"], made.attrs["encoding-version"] = "array", "0.2.0"


def _huge_obs(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["obs/_index"]
        file["obs"].create_dataset("_index", (2**40,), h5py.string_dtype(), chunks=(1024,))


def _huge_sparse(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["X/data"], file["X/indices"]
        for name, dtype in (("data", "float32"), ("indices", "int32")):
            file["X"].create_dataset(name, (2**40,), dtype, chunks=(1024,))
        pointers = file["X/indptr"][:].astype(np.int64)
        pointers[-1] = 2**40
        del file["X/indptr"]
        file["X/indptr"] = pointers


def _longer_obs(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        names = [*file["obs/_index"].asstr()[:], "one more"]
        del file["obs/_index"]
        file["obs"].create_dataset("_index", data=names, dtype=h5py.string_dtype())


def _short_codes(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        codes = file["obs/cell_type/codes"][:3]
        del file["obs/cell_type/codes"]
        file["obs/cell_type/codes"] = codes


def _wrong_codes(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["obs/cell_type/codes"][:] = 100


def _labels_are_a_matrix(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["obs/cell_type"]
        file["obs/cell_type"] = np.zeros((40, 3))


def _labels_are_a_group(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["obs/cell_type"]
        file["obs"].create_group("cell_type").create_group("codes")


def _matrix_of_text(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["X"]
        made = file.create_dataset("X", data=np.full((40, 30), "x", dtype=object), dtype=h5py.string_dtype())
        made.attrs["encoding-type"], made.attrs["encoding-version"] = "string-array", "0.2.0"


def _matrix_of_complex(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["X"]
        made = file.create_dataset("X", data=np.ones((40, 30), dtype=complex))
        made.attrs["encoding-type"], made.attrs["encoding-version"] = "array", "0.2.0"


def _unknown_encoding(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["X"].attrs["encoding-type"] = "pickle"
        file["obs"].attrs["encoding-version"] = "99.0"


def _genes_of_bytes(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["var/_index"]
        file["var/_index"] = np.array([b"\xff\xfe" + bytes([k]) for k in range(1, 31)])


FILES: dict[str, Spoil] = {
    "external matrix": _external_matrix,
    "external obs": _external_obs,
    "soft loop": _soft_loop,
    "group in itself": _group_in_itself,
    "dangling": _dangling,
    "virtual": _virtual,
    "huge dense": _huge_dense,
    "huge obs": _huge_obs,
    "huge sparse": _huge_sparse,
    "longer obs": _longer_obs,
    "short codes": _short_codes,
    "wrong codes": _wrong_codes,
    "labels are a matrix": _labels_are_a_matrix,
    "labels are a group": _labels_are_a_group,
    "matrix of text": _matrix_of_text,
    "matrix of complex": _matrix_of_complex,
    "unknown encoding": _unknown_encoding,
    "genes of bytes": _genes_of_bytes,
}
