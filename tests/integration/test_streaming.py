"""A file is annotated block by block: the answer of the whole, in memory that does not grow with it."""

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import canal
from canal.data.source import CellSource, Matrix
from canal.data.stream import CellStream, open_stream
from canal.errors import DataError
from canal.progress import Silent
from canal.report.annotation import write_annotation
from canal.stages import annotate as module
from canal.stages.predictions import Wanted, answer_stream
from canal.workspace import Workspace
from tests.make import make_adata
from tests.products import assert_same

QUICK = ("training.epochs=2", "training.min_steps=10", "bank.size=24", "analytic.pseudo_cells=40")
pytestmark = pytest.mark.filterwarnings("ignore:zarr v3 autosharding", "ignore:Writing zarr v2")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace of one stage; no test adds to it."""
    made = canal.open_workspace(tmp_path_factory.mktemp("lab") / "ws", create=True)
    made.add_stage(make_adata(160, types=("B", "NK")), labels="cell_type", overrides=QUICK)
    return made


def query(layout: str = "csr") -> ad.AnnData:
    """Return cells with layers, raw and more, of a type that was taught and of one that was not."""
    adata = make_adata(150, types=("B", "HSC"), seed=3, prefix="q", layout=layout)
    adata.obs["score"] = np.linspace(0, 1, 150)
    adata.obs["cluster"] = pd.Categorical(np.arange(150) % 3)
    adata.obs["text"] = [f"note {k}" for k in range(150)]
    adata.raw = adata
    adata.obsm["X_pca"] = np.ones((150, 3))
    adata.obsp["distances"] = sp.identity(150, format="csr")
    adata.uns["neighbors"] = {"params": {"n": 3}, "names": np.array(["a", "b"], dtype=object)}
    return adata


@pytest.mark.parametrize("chunk", [1, 37, 64, 149])
def test_the_answer_does_not_depend_on_the_blocks(workspace: Workspace, chunk: int, monkeypatch, tmp_path) -> None:
    """Types, confidences, novelties, neighbours and digest are the same to the bit, whatever the size of the blocks."""
    query().write_h5ad(tmp_path / "q.h5ad")
    whole = workspace.annotate(tmp_path / "q.h5ad", neighbors=2)
    monkeypatch.setattr(module, "open_stream", partial(open_stream, chunk=chunk))

    parts = workspace.annotate(tmp_path / "q.h5ad", neighbors=2)

    found, expected = parts.to_frame(), whole.to_frame()
    assert list(found.columns) == list(expected.columns)
    for name in expected.columns:
        if expected[name].dtype.kind == "f":
            assert_same(found[name].to_numpy(), expected[name].to_numpy())
        else:
            assert found[name].equals(expected[name])
    assert_same(parts.representation, whole.representation)
    assert parts.facts["data_digest"] == whole.facts["data_digest"]


@pytest.mark.parametrize("container", ["h5ad", "gzip", "zarr"])
@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
def test_any_file_gives_the_same_answer(
    workspace: Workspace, container: str, layout: str, tmp_path, monkeypatch
) -> None:
    """By rows, by columns, dense, compressed, h5ad or zarr: the answer is that for the cells in memory."""
    monkeypatch.setattr("canal.data.stored.StoredColumns.__init__.__defaults__", (0, 500))
    adata = query(layout)
    path = tmp_path / ("q.zarr" if container == "zarr" else "q.h5ad")
    if container == "zarr":
        adata.write_zarr(path)
    else:
        adata.write_h5ad(path, compression="gzip" if container == "gzip" else None)

    workspace.annotate(path, out=tmp_path / "out.h5ad")

    found = ad.read_h5ad(tmp_path / "out.h5ad")
    expected = workspace.annotate(query("csr"))
    assert found.obs["canal_cell_type"].tolist() == expected.cell_type.tolist()
    assert np.array_equal(found.obs["canal_confidence"], expected.confidence)
    assert np.array_equal(found.obsm["X_canal"], expected.representation)
    assert found.uns["canal"]["data_digest"] == expected.facts["data_digest"]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_zarr_store_is_whole_in_the_h5ad(workspace: Workspace, tmp_path, monkeypatch) -> None:
    """Copied a few values at a time, every element of the store is in the file as it was."""
    monkeypatch.setattr("canal.report.h5ad.AT_ONCE", 40)
    before = query()
    before.write_zarr(tmp_path / "q.zarr")

    workspace.annotate(tmp_path / "q.zarr", out=tmp_path / "out.h5ad")

    after = ad.read_h5ad(tmp_path / "out.h5ad")
    assert abs(after.X - before.X).max() == 0
    assert abs(after.raw.X - before.raw.X).max() == 0
    assert (after.obsp["distances"] != before.obsp["distances"]).nnz == 0
    assert np.array_equal(after.obsm["X_pca"], before.obsm["X_pca"])
    assert after.uns["neighbors"]["params"]["n"] == 3
    assert after.uns["neighbors"]["names"].tolist() == ["a", "b"]
    pd.testing.assert_frame_equal(after.obs[list(before.obs)], before.obs, check_categorical=False, check_dtype=False)
    pd.testing.assert_frame_equal(after.var, before.var)


def test_a_failed_copy_leaves_nothing(workspace: Workspace, tmp_path, monkeypatch) -> None:
    """A disk that is full in the midst of it leaves no half file, and what was there stays."""
    query().write_h5ad(tmp_path / "q.h5ad")
    (tmp_path / "out.h5ad").write_bytes(b"before")

    def full(*_: object) -> Iterator[None]:
        message = "No space left on device"
        raise OSError(message)

    monkeypatch.setattr("canal.report.h5ad.row_blocks", full)
    with pytest.raises(DataError, match="No space left"):
        workspace.annotate(tmp_path / "q.h5ad", out=tmp_path / "out.h5ad", overwrite=True)

    assert (tmp_path / "out.h5ad").read_bytes() == b"before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5ad", "q.h5ad"]


class Endless:
    """Rows that are made when they are asked for."""

    def __init__(self, n: int) -> None:
        self.shape, self.dtype = (n, 60), np.dtype(np.float32)
        self._rows = sp.csr_matrix(make_adata(512, types=("B", "HSC"), seed=3).X)

    def __getitem__(self, rows: slice) -> sp.csr_matrix:
        return self._rows[np.arange(rows.start, rows.stop) % 512]


def peak_of(workspace: Workspace, n: int, folder: Path) -> int:
    """Return the most bytes that Python and NumPy hold at a time while n cells are annotated and kept."""
    names = pd.RangeIndex(n).astype(str)
    genes = pd.DataFrame(index=[f"GENE{g}" for g in range(60)])
    matrix = Matrix(Endless(n), "made", "X")
    source = CellSource(source="made", obs=pd.DataFrame(index=names), var=genes, places={"X": matrix})
    stream = CellStream(source, chunk=512)
    model = workspace.model()
    reader = model.reader(stream.genes)
    detector = reader.novelty()
    assert detector is not None
    tracemalloc.start()
    answers = answer_stream(reader.with_novelty(detector), stream, Silent(), wanted=Wanted(folder=folder))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(answers.representation) == n
    return peak


def test_memory_does_not_grow_with_the_cells(workspace: Workspace, tmp_path, monkeypatch) -> None:
    """Eight times the cells take sixteen bytes more of each: type, confidence, novelty and p-value."""
    monkeypatch.setattr("canal.data.threads.IN_MEMORY", 0)
    monkeypatch.setattr("canal.data.threads.RowSpool.__init__.__defaults__", (None, 0))
    # How many blocks wait for a free thread depends on how busy the machine is: here none does.
    monkeypatch.setattr("canal.stages.predictions.in_order", lambda work, blocks, _workers: map(work, blocks))
    few, many = 8_192, 65_536
    peak_of(workspace, few, tmp_path)  # what is made once

    grown = peak_of(workspace, many, tmp_path) - peak_of(workspace, few, tmp_path)

    assert grown <= 16 * (many - few) + 2**20


def test_annotating_does_not_wait_for_torch(workspace: Workspace, tmp_path) -> None:
    """With the default preset, the command loads neither torch nor MLflow, scanpy, anndata or avalanche."""
    query().write_h5ad(tmp_path / "q.h5ad")
    code = (
        "import json, sys; from canal.cli.main import main\n"
        f"sys.argv = ['canal', '-C', {str(workspace.root)!r}, 'annotate', '--data', 'q.h5ad', '--out', 'out.csv']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=env
    )

    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert not loaded & {"torch", "mlflow", "scanpy", "anndata", "avalanche", "matplotlib", "sklearn"}
    assert len(pd.read_csv(tmp_path / "out.csv")) == 150


def test_what_was_spooled_is_used_as_if_it_were_in_memory(workspace: Workspace, tmp_path, monkeypatch) -> None:
    """Representations that lie on disk are added to an AnnData, and cells vote, as with those in memory."""
    adata = query()
    expected = workspace.annotate(adata, over_clustering="cluster")
    monkeypatch.setattr("canal.data.threads.RowSpool.__init__.__defaults__", (None, 0))

    found = workspace.annotate(adata, over_clustering="cluster")
    write_annotation(adata, found, tmp_path / "out.h5ad")

    assert found.cell_type.tolist() == expected.cell_type.tolist()
    assert np.array_equal(ad.read_h5ad(tmp_path / "out.h5ad").obsm["X_canal"], expected.representation)
