"""Annotation on a Dask cluster with real workers: the answer of one machine, whatever happens to a worker."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.cluster import dask_cluster, shards
from canal.cluster import shards as many
from canal.cluster.dask_cluster import connect, map_on_workers
from canal.cluster.shards import Shard, ShardAnnotator, cut_shards, join_annotations
from canal.errors import ConfigError, DataError
from canal.progress import Silent
from canal.report.annotation import Annotation
from canal.stages.annotate import AnnotateOptions
from canal.workspace import Workspace
from tests.labs import QUICK
from tests.make import make_adata

BLOCK = 40


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace of one stage beside files to annotate."""
    folder = tmp_path_factory.mktemp("lab")
    workspace = canal.open_workspace(folder / "ws", create=True)
    make_adata(80, types=("B", "NK")).write_h5ad(folder / "first.h5ad")
    workspace.add_stage(folder / "first.h5ad", labels="cell_type", overrides=QUICK)
    make_adata(150, types=("B", "NK"), prefix="new", seed=3).write_h5ad(folder / "new.h5ad")
    make_adata(50, types=("NK",), prefix="more", seed=4).write_h5ad(folder / "more.h5ad")
    return workspace


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Return a client of a cluster of two workers."""
    with connect("local:2") as client:
        yield client


def same(a: Annotation, b: Annotation) -> None:
    """Compare two answers bit for bit, but for the digest of the data."""
    for name in ("cell_names", "cell_type", "confidence", "representation"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.columns.keys() == b.columns.keys()
    for name in a.columns:
        np.testing.assert_array_equal(a.columns[name], b.columns[name], err_msg=name)
    digest = {"data_digest": ""}
    assert {**a.facts, **digest} == {**b.facts, **digest}


def parts(file: Path) -> list[Shard]:
    """Cut a file of 150 cells."""
    cuts = [(start, min(start + BLOCK, 150)) for start in range(0, 150, BLOCK)]
    return [Shard(file=file, rows=rows, cells=rows[1] - rows[0]) for rows in cuts]


def test_parts_are_the_whole(lab: Workspace) -> None:
    """Parts of a file, each on its own, joined: the answer for the file, also where all cells of one part are empty."""
    file = lab.root.parent / "empty.h5ad"
    cells = make_adata(150, types=("B", "NK"), prefix="new", seed=3)
    cells.X = sp.csr_matrix(cells.X.toarray() * (np.arange(150) >= BLOCK)[:, None])
    cells.write_h5ad(file)
    answer = ShardAnnotator(workspace=lab.root, registry=None, stage=1, options=AnnotateOptions())

    found = [answer(shard) for shard in parts(file)]
    assert not [error for error in found if isinstance(error, Exception)]
    joined = join_annotations(found)

    whole = lab.annotate(file)
    np.testing.assert_allclose(joined.confidence, whole.confidence, atol=1e-6)
    second = {"second_confidence": whole.columns["second_confidence"]}
    np.testing.assert_allclose(joined.columns["second_confidence"], second["second_confidence"], atol=1e-6)
    columns = {**joined.columns, **second}
    same(replace(joined, confidence=whole.confidence, representation=whole.representation, columns=columns), whole)


def test_shards_begin_where_blocks_begin(lab: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell is in one part; voting, which needs all cells of a file, leaves files whole."""
    monkeypatch.setattr(shards, "BLOCK", BLOCK)
    files = [lab.root.parent / "new.h5ad", lab.root.parent / "more.h5ad"]

    cut = cut_shards(files, 1, AnnotateOptions())

    assert [(s.file.stem, s.rows) for s in cut] == [("new", (0, 80)), ("new", (80, 150)), ("more", None)]
    assert shards._row_ranges(20 * BLOCK - 7, 6)[-1] == (16 * BLOCK, 20 * BLOCK - 7)
    assert sum(s.cells for s in cut) == 200
    assert [s.rows for s in cut_shards(files, 1, AnnotateOptions(majority_voting=True))] == [None, None]


def test_two_workers_give_the_answer_of_one_machine(lab: Workspace) -> None:
    """`canal annotate --dask local:2` with two files: files as without, one answer on stdout."""
    folder = lab.root.parent
    files = [folder / "new.h5ad", folder / "more.h5ad"]
    command = ["-C", str(lab.root), "annotate", "--json", "--out", str(folder / "out")]
    for file in files:
        command += ["--data", str(file)]

    result = CliRunner().invoke(app, [*command, "--dask", "local:2"])

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["cells"] == 200
    for file in files:
        lab.annotate(file, out=folder / "expected.h5ad", overwrite=True)
        got, expected = ad.read_h5ad(folder / "out" / file.name), ad.read_h5ad(folder / "expected.h5ad")
        assert got.obs.equals(expected.obs)
        np.testing.assert_array_equal(got.obsm["X_canal"], expected.obsm["X_canal"])
        assert got.uns["canal"]["data_digest"] == expected.uns["canal"]["data_digest"]


def killed_once(item: tuple[int, str]) -> int:
    """Kill the worker the first time the marked item comes."""
    number, flag = item
    if number == 3 and not Path(flag).exists():
        Path(flag).touch()
        os._exit(9)
    return number * 10


def failed_twice(item: tuple[int, str]) -> int:
    """Fail the first two times."""
    number, flag = item
    tries = len(list(Path(flag).parent.glob("try*")))
    if number == 1 and tries < 2:
        (Path(flag).parent / f"try{tries}").touch()
        message = "the disk was away"
        raise OSError(message)
    return number * 10


@pytest.mark.parametrize("work", [killed_once, failed_twice])
def test_a_lost_worker_or_a_failed_part_loses_nothing(client: Any, work: Any, tmp_path: Path) -> None:
    """A worker of two that dies in the middle, and a part that fails twice: all results, in order."""
    items = [(number, str(tmp_path / "flag")) for number in range(8)]

    assert map_on_workers(client, work, items, [1] * 8, Silent()) == [number * 10 for number in range(8)]
    assert list(tmp_path.iterdir())  # it did happen


def test_a_file_that_cannot_be_annotated_is_one_clear_error(lab: Workspace, tmp_path: Path) -> None:
    """A file with other genes is refused as on one machine; it is not tried again, and not written."""
    file = lab.root.parent / "strange.h5ad"
    make_adata(30, genes=["GENE0", *(f"OTHER{i}" for i in range(59))]).write_h5ad(file)

    with pytest.raises(DataError) as expected:
        lab.annotate(file)
    with pytest.raises(DataError) as got:
        many.annotate_on_dask(lab.layout, [file], "local:1", out=tmp_path / "out.csv")

    assert str(got.value) == str(expected.value)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("address", ["local:none", "local:0", "tcp://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback, but what was given and what works."""
    monkeypatch.setattr(dask_cluster, "ANSWERS_WITHIN", 1)
    with pytest.raises(ConfigError, match=r"local:N"), connect(address):
        pass


def test_several_files_need_a_folder_and_names(lab: Workspace, tmp_path: Path) -> None:
    """A file's name for several answers, or one name for two, is refused before anything is read."""
    a, b = tmp_path / "a.h5ad", tmp_path / "sub" / "a.h5ad"
    with pytest.raises(ConfigError, match="into a folder"):
        shards.output_paths([a, b], tmp_path / "out.h5ad")
    with pytest.raises(ConfigError, match="Several files are called a"):
        shards.output_paths([a, b], tmp_path / "out")
    assert not (tmp_path / "out").exists()
