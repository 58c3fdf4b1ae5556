"""A failing disk: `canal annotate --out` leaves the right file or what was there, every command the stages."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors import SafetensorError

from canal.data.threads import RowSpool
from canal.errors import DataError
from canal.files import tensors_written, write_file_whole
from canal.report.annotation import write_h5ad
from canal.report.h5ad import write_adata
from canal.report.written import hdf5_errors
from tests.faults.sweep import WAYS
from tests.make import make_adata
from tests.unit.report.test_annotation import make_annotation, make_file

SHIM = Path(__file__).parents[1] / "faults" / "shim.c"
FEW = 8  # faults of each way to annotate; the sweep by hand tries all: each place, two errors, once and for good


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes the faults."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler: the faults are made by a preloaded library")
    library = tmp_path_factory.mktemp("shim") / "fault.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(SHIM), "-ldl"], check=True)
    return library


@pytest.fixture(scope="module")
def outcomes(made: Path, library: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a sample of faults led to; one process imports, and has a fork for each."""
    folder = tmp_path_factory.mktemp("faults")
    command = [sys.executable, "-m", "tests.faults.sweep", "--workspace", str(made / "ws"), "--folder", str(folder)]
    environment = os.environ | {"LD_PRELOAD": str(library)}
    subprocess.run([*command, "--few", str(FEW)], check=True, env=environment, stdout=subprocess.DEVNULL)
    found: list[dict[str, Any]] = json.loads((folder / "outcomes.json").read_text())
    return found


@pytest.mark.parametrize("way", WAYS)
def test_no_fault_of_the_disk_is_lost(way: str, outcomes: list[dict[str, Any]]) -> None:
    """In place, to a new file, from zarr and from memory: whichever write, once or for good."""
    mine = [outcome for outcome in outcomes if outcome["way"] == way]

    assert len(mine) >= FEW
    assert [outcome for outcome in mine if outcome["wrong"]] == []
    assert {outcome["code"] for outcome in mine} <= {0, 2}
    assert 2 in {outcome["code"] for outcome in mine}


def test_no_fault_of_the_disk_loses_a_stage(library: Path, tmp_path: Path) -> None:
    """A few writes of a few commands: stages as before or as after, and the command can be run again."""
    command = [sys.executable, "-m", "tests.faults.commands", "--folder", str(tmp_path / "faults"), "--few", "2"]
    environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--commands", "add", "promote", "labels"],
        check=True, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    outcomes = json.loads((tmp_path / "faults" / "outcomes.json").read_text())

    assert {outcome["way"] for outcome in outcomes} == {"add", "promote", "labels"}
    assert [outcome for outcome in outcomes if outcome["wrong"]] == [], done.stdout
    assert 2 in {outcome["code"] for outcome in outcomes}


@pytest.mark.parametrize("number", [errno.ENOSPC, None])
def test_what_safetensors_cannot_write_is_an_error_of_the_system(number: int | None, tmp_path: Path) -> None:
    """With its number, so that a full disk is told as such; what is no error of the system stays as it is."""
    words = "Error while serializing: I/O error" if number else "no tensor"
    told = f"{words}: No space left on device (os error {number})" if number else words
    with pytest.raises(OSError if number else SafetensorError) as caught, tensors_written(tmp_path / "a.safetensors"):
        raise SafetensorError(told)
    if number:
        assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / "a.safetensors"))


def test_what_hdf5_cannot_say_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in a destructor of h5py, which Python ignores; others go where they went before."""
    others: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", others.append)
    error = OSError("Can't write data")
    ours = SimpleNamespace(object="h5py._objects.ObjectID.__dealloc__", err_msg=None, exc_value=error)
    foreign = SimpleNamespace(object="another", err_msg=None, exc_value=ValueError())

    def write() -> None:
        with hdf5_errors():
            sys.unraisablehook(ours)
            sys.unraisablehook(foreign)

    with pytest.raises(OSError, match="Can't write data") as caught:
        write()

    assert caught.value.__cause__ is error
    assert others == [foreign]
    assert sys.unraisablehook == others.append


@pytest.mark.parametrize("lost", ["obs/canal_confidence", "obsm/X_canal", "uns/canal/model", "X/data", "obs/batch"])
@pytest.mark.parametrize("source", ["file", "zarr", "adata"])
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_what_is_not_there_when_it_is_read_back_is_told(
    lost: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was there stays, also where it is the source."""
    adata = make_file(tmp_path / "in.h5ad")
    adata.write_zarr(tmp_path / "in.zarr")
    (tmp_path / "out.h5ad").write_text("before")
    before = (tmp_path / "in.h5ad").read_bytes()
    close = h5py.File.close

    def lose(file: h5py.File) -> None:
        """Close a file that was written as a failing disk may leave it: without a part of it."""
        if file.id.valid and file.mode == "r+" and lost in file:
            if lost == "X/data":
                file[lost].resize((3,)) if file[lost].chunks else file.move(lost, "lost")
            else:
                del file[lost]
        close(file)

    monkeypatch.setattr(h5py.File, "close", lose)
    monkeypatch.setattr(h5py.File, "__exit__", lambda file, *_: file.close())
    data = {"file": tmp_path / "in.h5ad", "zarr": tmp_path / "in.zarr", "adata": adata}[source]

    with pytest.raises(DataError, match=r"out\.h5ad cannot be written"):
        write_h5ad(data, make_annotation(adata.obs_names), tmp_path / "out.h5ad")

    assert (tmp_path / "out.h5ad").read_text() == "before"
    assert (tmp_path / "in.h5ad").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "in.zarr", "out.h5ad"]


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_other_values_than_those_of_the_store_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is copied from zarr in pieces is read back: zeros in place of counts are found."""
    adata = make_file(tmp_path / "in.h5ad")
    adata.write_zarr(tmp_path / "in.zarr")
    close = h5py.File.close

    def spoil(file: h5py.File) -> None:
        if file.id.valid and file.mode == "r+":
            file["layers/counts/data"][5:9] = 0
        close(file)

    monkeypatch.setattr(h5py.File, "close", spoil)
    monkeypatch.setattr(h5py.File, "__exit__", lambda file, *_: file.close())

    with pytest.raises(DataError, match="layers/counts/data holds other values than were written"):
        write_h5ad(tmp_path / "in.zarr", make_annotation(adata.obs_names), tmp_path / "out.h5ad")
    with pytest.raises(OSError, match="layers/counts was not written as it should be"):
        write_adata(adata, tmp_path / "direct.h5ad")


def test_an_unknown_file_system_need_not_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it has no such thing; any other error is one, and the name of the folder does not matter."""
    monkeypatch.setattr("canal.files.os.fsync", _failing(22))
    write_file_whole(tmp_path / "out.csv", lambda path: path.write_text("new"))
    assert (tmp_path / "out.csv").read_text() == "new"

    monkeypatch.setattr("canal.files.os.fsync", _failing(5))
    with pytest.raises(DataError, match="Input/output error"):
        write_file_whole(tmp_path / "out.csv", lambda path: path.write_text("newer"))
    assert (tmp_path / "out.csv").read_text() == "new"


def _failing(number: int) -> Any:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_folder_for_what_is_needed_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions of many cells lie on disk until they are written."""

    def full(**_: object) -> Any:
        return Path("/dev/full").open("r+b")

    monkeypatch.setattr("canal.data.threads.tempfile.TemporaryFile", full)
    large, small = (RowSpool(rows, 10, tmp_path, in_memory=0) for rows in (50_000, 5))
    match = rf"{tmp_path} cannot hold what is needed meanwhile: .*No space left"

    with pytest.raises(DataError, match=match):
        large.append(np.ones((50_000, 10), dtype=np.float32))
    small.append(np.ones((5, 10), dtype=np.float32))  # waits to be written
    with pytest.raises(DataError, match=match):
        small.finish()


def test_toy_cells_are_written_as_they_are(tmp_path: Path) -> None:
    """What is read back is what anndata writes: no good file is refused."""
    for k, layout in enumerate(("csr", "csc", "dense")):
        adata = make_adata(30, 12, layout=layout)
        adata.obsm["nan"] = np.full((30, 2), np.nan)
        adata.layers["none"] = adata.X * 0
        write_adata(adata, tmp_path / f"{k}.h5ad")
        write_h5ad(adata, make_annotation(adata.obs_names), tmp_path / f"{k}-annotated.h5ad")
