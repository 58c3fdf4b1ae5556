"""No damaged or crafted sparse matrix comes to SciPy's compiled code: each is told in one sentence."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from canal.data.formats import read_adata
from canal.data.sparse_checks import BadSparseError, check_matrix, csr_of
from canal.data.stream import read_cells
from canal.errors import DataError, RegistryError
from canal.model.bank import load_bank
from tests.make import make_adata
from tests.unit.data.containers import write
from tests.unit.data.damaged import CASES, CONTAINERS, cases_of, made


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """How reading ended, by container and case; a crash would end another process alone."""
    folder = tmp_path_factory.mktemp("damaged")
    subprocess.run([sys.executable, "-m", "tests.unit.data.damaged", str(folder)], check=True)
    found: dict[str, dict[str, str]] = json.loads((folder / "outcomes.json").read_text())
    return found


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_damage_is_told(container: str, outcomes: dict[str, dict[str, str]]) -> None:
    """What was found, in which file; no crash, no other error, and nothing that is read as something else."""
    assert set(outcomes[container]) == set(cases_of(container))
    kind = {"bank": "RegistryError", "csc_dealt": "BadSparseError"}.get(container, "DataError")
    for case, text in outcomes[container].items():
        assert text.startswith(f"{kind}: "), (case, text)
        # The zarr that anndata 0.13 writes has checksums, which tell first.
        checked = container.startswith("zarr") and "checksum do not match" in text
        assert checked or re.search(CASES[case][1], text), (case, text)
        assert container == "csc_dealt" or re.search(r"(cells|csr|csc|old_h5ad|bank)\.\w+", text), (case, text)


@pytest.mark.parametrize("container", [c for c in CONTAINERS if c != "csc_dealt"])
def test_what_is_not_damaged_is_read(container: str, tmp_path: Path) -> None:
    """The files of the table before they are spoiled."""
    path = made(container, tmp_path / "case")

    if container == "bank":
        assert len(load_bank(path)) == 40
    else:
        assert len(read_cells(path, labels=None)) == 40
        assert read_adata(path).shape == (40, 30)


BROKEN = sp.csr_matrix(np.eye(4, dtype=np.float32))
BROKEN.indices[2] = 2**31 - 1


@pytest.mark.parametrize("place", ["X", "layers", "raw", "obsm", "obsp"])
def test_a_damaged_matrix_anywhere_is_told(place: str, tmp_path: Path) -> None:
    """Where a file is read whole to be written again, with matrices that canal itself does not look at."""
    adata = make_adata(4, n_genes=4)
    if place == "raw":
        adata.raw = adata
    elif place != "X":
        getattr(adata, place)["more"] = sp.csr_matrix(np.eye(4, dtype=np.float32))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "a") as file:
        at = {"X": "X", "raw": "raw/X"}.get(place, f"{place}/more")
        file[f"{at}/indices"][2] = 2**31 - 1

    with pytest.raises(DataError, match=r"cells\.h5ad is damaged: .*outside of the 4 columns"):
        read_adata(tmp_path / "cells.h5ad")


def test_a_damaged_matrix_in_memory_is_told() -> None:
    """As anndata leaves it that was asked to read a damaged file; by columns, too."""
    adata = make_adata(4, n_genes=4)
    adata.X = BROKEN
    with pytest.raises(DataError, match="outside of the 4 columns"):
        read_cells(adata, labels=None)
    adata.X = BROKEN.T
    with pytest.raises(DataError, match="outside of the 4 rows"):
        read_cells(adata, labels=None)
    with pytest.raises(BadSparseError, match="outside of the 4 columns"):
        check_matrix(BROKEN)


def test_good_arrays_are_taken_as_they_are() -> None:
    """Of any integer type, also where there is nothing at all."""
    expected = sp.random(9, 7, 0.4, format="csr", rng=np.random.default_rng(0))
    for kind in (np.int32, np.int64, np.uint16, np.uint64):
        parts = (expected.data, expected.indices.astype(kind), expected.indptr.astype(kind))
        assert (csr_of(*parts, expected.shape) != expected).nnz == 0
    none = np.zeros(0, dtype=np.int64)
    assert csr_of(none, none, np.zeros(4, dtype=np.int64), (3, 0)).shape == (3, 0)


HEAD = "%%MatrixMarket matrix coordinate integer general\n"
MTX = {
    "a row too many": HEAD + "4 3 2\n1 1 5\n9 2 3\n",
    "row 0": HEAD + "4 3 2\n0 1 5\n2 2 3\n",
    "a column below 0": HEAD + "4 3 2\n1 -1 5\n2 2 3\n",
    "an index of 33 bits": HEAD + "4 3 2\n1 4294967297 5\n2 2 3\n",
    "an index with a fraction": HEAD + "4 3 2\n1.5 1 5\n2 2 3\n",
    "10^11 columns": HEAD + "4 99999999999 2\n1 1 5\n2 2 3\n",
    "fewer lines than told": HEAD + "4 3 9\n1 1 5\n2 2 3\n",
    "a NUL at the end": HEAD + "4 3 2\n1 1 5\n2 2 3\0\n",
}


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
def test_a_damaged_matrix_market_file_is_told(tmp_path: Path, *, zipped: bool) -> None:
    """Each case in a process of its own: SciPy's reader breaks down at a NUL byte."""
    folder = write(make_adata(3, n_genes=4), "mtx", tmp_path)
    read = (
        "import os, resource, sys\nfrom canal.data.stream import read_cells\nfrom canal.errors import DataError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))\n"
        "for path in sys.argv[1:]:\n"
        "    sys.stdout.flush()\n"
        "    if os.fork() == 0:\n"
        "        try:\n            read_cells(path, labels=None)\n"
        "        except DataError as error:\n            os.write(1, f'told {path}\\n'.encode())\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    folders = []
    for k, text in enumerate(MTX.values()):
        folders.append(tmp_path / f"case{k}")
        folders[-1].mkdir()
        for name in ("barcodes.tsv", "features.tsv"):
            (folders[-1] / name).write_bytes((folder / name).read_bytes())
        name, content = "matrix.mtx", text.encode()
        if zipped:
            name, content = "matrix.mtx.gz", gzip.compress(content)
        (folders[-1] / name).write_bytes(content)

    found = subprocess.run([sys.executable, "-c", read, *map(str, folders)], capture_output=True, text=True, check=True)

    told = found.stdout.split("\n")
    assert [name for name, path in zip(MTX, folders, strict=True) if f"told {path}" not in told] == []


@pytest.mark.parametrize(
    ("codes", "match"),
    [
        pytest.param(lambda v: v + 0.5, "integers", id="fractions"),
        pytest.param(lambda v: v.astype(np.float64), "integers", id="whole numbers as floats"),
        pytest.param(lambda v: v.astype(np.int64) + 2**32, "between -1 and", id="more than 32 bits"),
        pytest.param(lambda v: v.astype(np.uint64) + 2**63, "between -1 and", id="64 bits without sign"),
        pytest.param(lambda v: v - 5, "between -1 and", id="below -1"),
    ],
)
def test_codes_of_labels_are_not_cut(codes, match: str, tmp_path: Path) -> None:
    """A label is never one that another number stands for."""
    path = write(make_adata(20), "csr", tmp_path)
    with h5py.File(path, "a") as file:
        column = file["obs/cell_type"]
        values = codes(column["codes"][...])
        del column["codes"]
        column["codes"] = values

    with pytest.raises(DataError, match=match):
        read_cells(path, labels="cell_type")


@pytest.mark.parametrize("container", ["csr", "csc", "dense", "zarr", "tenx_h5"])
@pytest.mark.parametrize("axis", ["cells", "genes"])
def test_a_matrix_of_other_cells_or_genes_is_told(container: str, axis: str, tmp_path: Path) -> None:
    """Of which the table has fewer: no gene or cell gets the values of another."""
    path = write(make_adata(20, n_genes=12), container, tmp_path)
    if container == "zarr":
        import zarr

        for left in path.rglob(".zmetadata"):
            left.unlink()
        table = zarr.open_group(str(path), mode="a", use_consolidated=False)["obs" if axis == "cells" else "var"]
        for name in list(table.array_keys()):
            values = table[name][:-1]
            attributes = dict(table[name].attrs)
            del table[name]
            table.create_array(name, data=values).attrs.update(attributes)
        if axis == "cells":
            for name in list(table.group_keys()):
                del table[name]
            table.attrs["column-order"] = []
    else:
        with h5py.File(path, "a") as file:
            tenx = {"cells": ["matrix/barcodes"], "genes": ["id", "name", "feature_type"]}[axis]
            tenx = [n if "/" in n else f"matrix/features/{n}" for n in tenx]
            tables = {"cells": ["obs/_index"], "genes": ["var/_index"]}[axis]
            for name in tenx if container == "tenx_h5" else tables:
                values, attributes = file[name][:-1], dict(file[name].attrs)
                del file[name]
                file[name] = values
                file[name].attrs.update(attributes)

    with pytest.raises(DataError, match=r"do not belong together|checksum do not match"):
        read_cells(path, labels=None)


def test_a_bank_whose_columns_do_not_fit_is_told(tmp_path: Path) -> None:
    """A source that is none, other lengths, other kinds."""
    from safetensors.numpy import load_file, save_file

    arrays = load_file(made("bank", tmp_path / "case"))
    bad = {
        "sources 0 to 7": {"source": arrays["source"] + np.arange(40) % 8},
        "sources -1 to -1": {"source": arrays["source"] - 1},
        "39 sources": {"source": arrays["source"][:-1].copy()},
        "expected integers": {"stage": arrays["stage"] + 0.5},
        "expected bool": {"measured": arrays["measured"][:, :-1].copy()},
        "it has no indptr, source": {"indptr": None, "source": None},
    }
    for match, changed in bad.items():
        values = {name: part for name, part in (arrays | changed).items() if part is not None}
        save_file(values, tmp_path / "bank.safetensors")
        with pytest.raises(RegistryError, match=f"bank.safetensors is not an example bank: .*{match}"):
            load_bank(tmp_path / "bank.safetensors")
