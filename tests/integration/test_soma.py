"""SOMA experiments are read as the h5ad files that they were written from."""

import shutil
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.data.formats import open_file, read_adata
from canal.data.stream import read_cells
from canal.errors import CanalError, ConfigError, DataError
from tests.make import make_adata

FILTER = "tissue == 'blood'"
# Where tiledbsoma is not installed, what needs it is not run; that it is asked for clearly is.
needs_tiledbsoma = pytest.mark.skipif(find_spec("tiledbsoma") is None, reason="tiledbsoma is not installed")


def cells_of(scale: Any = "counts") -> ad.AnnData:
    """Return toy cells of two tissues."""
    cells = make_adata(80, 60, types=("B", "NK"), prefix="soma", seed=3, scale=scale)
    cells.obs["tissue"] = np.where(np.arange(80) % 2, "blood", "lung")
    return cells


def experiment(folder: Path, cells: ad.AnnData, name: str = "cells", **options: Any) -> tuple[Path, Path]:
    """Write cells as h5ad and as SOMA, and return both paths."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tiledbsoma.io

        cells.write_h5ad(folder / f"{name}.h5ad")
        options = {"measurement_name": "RNA"} | options
        tiledbsoma.io.from_h5ad(str(folder / f"{name}.soma"), str(folder / f"{name}.h5ad"), **options)
    return folder / f"{name}.h5ad", folder / f"{name}.soma"


def with_raw(cells: ad.AnnData) -> ad.AnnData:
    """Return cells cut to half of their genes, the others in raw."""
    cut = cells[:, :30].copy()
    cut.raw = cells
    return cut


@needs_tiledbsoma
@pytest.mark.parametrize("layer", ["data", "raw", "raw measurement"])
def test_the_answer_is_that_of_the_h5ad(lab: Path, tmp_path: Path, layer: str) -> None:
    """To the bit, and so is the digest of the cells; counts as X, under another name, and in raw."""
    cells = cells_of()
    if layer == "raw measurement":
        cells = with_raw(cells)
    h5ad, soma = experiment(tmp_path, cells, X_layer_name="raw" if layer == "raw" else "data")
    workspace = canal.open_workspace(lab / "ws")

    expected, answer = workspace.annotate(h5ad), workspace.annotate(soma, out=tmp_path / "out.h5ad")

    pd.testing.assert_frame_equal(answer.to_frame(), expected.to_frame())
    assert (answer.representation == expected.representation).all()
    assert answer.facts["data_digest"] == expected.facts["data_digest"]
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    assert list(written.obs_names) == list(cells.obs_names)
    assert list(written.obs["tissue"]) == list(cells.obs["tissue"])


@needs_tiledbsoma
def test_counts_are_taken_where_the_census_has_them(tmp_path: Path) -> None:
    """The layer ``raw`` beside a normalised one; and the base that the file of the logarithms stated."""
    cells = cells_of("ln")
    cells.uns["log1p"] = {"base": 2}
    cells.layers["raw"] = cells_of().X
    _, soma = experiment(tmp_path, cells, X_layer_name="normalized")

    taken = read_cells(soma, labels=None)

    assert taken.report.where == "layers['counts']"
    assert taken.report.digest == read_cells(cells_of(), labels=None).report.digest
    with open_file(soma) as source:
        assert source.log_base == 2


@needs_tiledbsoma
def test_a_filter_chooses_cells(lab: Path, tmp_path: Path) -> None:
    """As if the file had been cut before, from the command line and in Python, to annotate and to evaluate."""
    cells = cells_of()
    cells[cells.obs["tissue"] == "blood"].copy().write_h5ad(tmp_path / "cut.h5ad")
    _, soma = experiment(tmp_path, cells)
    workspace = canal.open_workspace(lab / "ws")

    words = ["-C", str(lab / "ws"), "annotate", "--data", str(soma), "--filter", FILTER]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out.h5ad")])

    assert done.exit_code == 0, done.output
    expected = workspace.annotate(tmp_path / "cut.h5ad")
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    assert list(written.obs_names) == list(expected.cell_names)
    assert (written.obs["canal_confidence"].to_numpy() == expected.confidence).all()
    assert workspace.evaluate(soma, labels="cell_type", filter=FILTER).cells == len(expected)


@needs_tiledbsoma
def test_the_only_measurement_is_read(tmp_path: Path) -> None:
    """Whatever its name is; of several without RNA none is guessed."""
    _, soma = experiment(tmp_path, cells_of(), measurement_name="a")
    assert read_adata(soma).n_obs == 80
    import tiledbsoma

    with tiledbsoma.Collection.open(str(soma / "ms"), "w") as measurements:
        measurements.add_new_collection("b", tiledbsoma.Measurement)
    with pytest.raises(DataError, match="holds the measurements a, b; expected RNA"):
        read_adata(soma)


@needs_tiledbsoma
def test_a_stage_learns_an_experiment(tmp_path: Path) -> None:
    """The same model as of the h5ad file."""
    h5ad, soma = experiment(tmp_path, cells_of())
    assert read_adata(soma).obs_names.equals(ad.read_h5ad(h5ad).obs_names)
    quick = ["training.epochs=1", "training.min_steps=4", "analytic.pseudo_cells=10"]
    digests = []
    for name, data in (("a", h5ad), ("b", soma)):
        workspace = canal.open_workspace(tmp_path / name, create=True)
        workspace.add_stage(data, labels="cell_type", name="cells", overrides=quick)
        digests.append(workspace.annotate(h5ad).facts["data_digest"])
        digests.append(workspace.annotate(h5ad).representation.tobytes())
    assert digests[:2] == digests[2:]


def no_matrix(folder: Path) -> Path:
    """Write an experiment whose measurement has no layer."""
    import tiledbsoma

    _, soma = experiment(folder, cells_of())
    with tiledbsoma.Collection.open(str(soma / "ms/RNA/X"), "d") as layers:
        del layers["data"]
    return soma


def no_experiment(folder: Path) -> Path:
    """Write a folder of TileDB that is a part of an experiment."""
    return experiment(folder, cells_of())[1] / "ms"


def scaled(folder: Path) -> Path:
    """Write an experiment of scaled values, which are no counts and not to be undone."""
    cells = cells_of("ln")
    cells.X = cells.X.toarray() - cells.X.toarray().mean(axis=0)
    return experiment(folder, cells)[1]


@needs_tiledbsoma
@pytest.mark.parametrize(
    ("make", "where", "message"),
    [
        (no_matrix, None, r"the measurement RNA holds no matrix; expected counts"),
        (no_experiment, None, r"no SOMA experiment"),
        (scaled, None, r"negative"),
        (lambda folder: experiment(folder, cells_of())[1], "tisue == 'blood'", r"cannot be followed .*tisue"),
        (lambda folder: experiment(folder, cells_of())[1], "tissue = 'bl", r"cannot be followed"),
        (lambda folder: experiment(folder, cells_of())[1], "tissue == 'skin'", r"chooses no cell"),
    ],
    ids=["no matrix", "no experiment", "scaled", "no column", "no condition", "no cell"],
)
def test_what_cannot_be_read_is_told(lab: Path, tmp_path: Path, make: Any, where: str | None, message: str) -> None:
    """In one message, and nothing is written."""
    soma = make(tmp_path)
    workspace = canal.open_workspace(lab / "ws")
    with pytest.raises(CanalError, match=message):
        workspace.annotate(soma, filter=where, out=tmp_path / "out.h5ad")
    assert not (tmp_path / "out.h5ad").exists()


def test_without_tiledbsoma_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of TileDB is told by its marks, and what is missing by its name."""
    monkeypatch.setitem(sys.modules, "tiledbsoma", None)
    (tmp_path / "cells.soma/__group").mkdir(parents=True)
    with pytest.raises(DataError, match=r"needs tiledbsoma, which is not installed.*canal\[soma\]"):
        read_adata(tmp_path / "cells.soma")


def test_a_filter_is_for_experiments(lab: Path, tmp_path: Path) -> None:
    """Other files are not filtered silently, nor are cells that workers read."""
    workspace = canal.open_workspace(lab / "ws")
    shutil.copyfile(lab / "first.h5ad", tmp_path / "first.h5ad")
    with pytest.raises(ConfigError, match="no SOMA experiment; a filter chooses"):
        workspace.annotate(tmp_path / "first.h5ad", filter=FILTER)
    with pytest.raises(ConfigError, match="Leave --dask out"):
        workspace.annotate_files([tmp_path / "first.h5ad"], tmp_path / "o.csv", dask="local:1", filter=FILTER)
