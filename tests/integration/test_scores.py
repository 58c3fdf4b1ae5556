"""The probabilities of an annotation: those of the best two types always, those of every type where asked for."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.cluster.shards import Shard, ShardAnnotator, join_annotations
from canal.errors import ConfigError, DataError
from canal.stages.annotate import AnnotateOptions
from tests.labs import write
from tests.make import make_adata

TYPES = ["B", "CD4 T", "NK"]  # those of the lab, in the model's order


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of cells of all types of the lab."""
    return write(tmp_path_factory.mktemp("query"), "query", tuple(TYPES), 60, seed=7)


def test_the_second_type_is_the_second_most_probable(lab, query):
    """Of every cell: another type than the first, with the next probability, and all others have less."""
    annotation = canal.open_workspace(lab / "ws").annotate(query, scores="all")

    probabilities = annotation.to_probabilities()
    assert sorted(probabilities.columns) == TYPES
    ranked = np.sort(probabilities.to_numpy(), axis=1)[:, ::-1]
    first, second = annotation.cell_type, annotation.columns["second_type"]
    assert (first != second).all()
    np.testing.assert_array_equal(annotation.confidence, ranked[:, 0])
    np.testing.assert_array_equal(annotation.columns["second_confidence"], ranked[:, 1])
    names = probabilities.columns.to_numpy()
    np.testing.assert_array_equal(first, names[probabilities.to_numpy().argmax(axis=1)])
    for cell in range(len(annotation)):
        assert probabilities.iloc[cell][second[cell]] == ranked[cell, 1]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_second_types_are_among_those_that_may_be_answered(lab, query):
    """With --types the other types have no probability; of one type alone there is no second."""
    workspace = canal.open_workspace(lab / "ws")

    two = workspace.annotate(query, types=["B", "NK"], scores="all")
    one = workspace.annotate(query, types="NK")

    assert set(two.columns["second_type"]) <= {"B", "NK"}
    assert (two.to_probabilities()["CD4 T"] == 0).all()
    assert "second_type" not in one.columns
    assert "second_confidence" not in one.to_frame()


def test_all_scores_stand_in_the_file(lab, query, tmp_path):
    """In obsm, with the names of the types in uns; and as columns of a table."""
    for out in ("a.h5ad", "a.csv"):
        words = ["annotate", "--data", str(query), "--out", str(tmp_path / out), "--scores", "all", "--json"]
        result = CliRunner().invoke(app, ["-C", str(lab / "ws"), *words])
        assert result.exit_code == 0, result.output

    cells, table = ad.read_h5ad(tmp_path / "a.h5ad"), pd.read_csv(tmp_path / "a.csv", index_col=0)
    names = list(cells.uns["canal"]["probability_types"])
    assert sorted(names) == TYPES
    assert json.loads(result.stdout)["probability_types"] == names
    assert cells.obsm["canal_probabilities"].shape == (60, 3)
    np.testing.assert_array_equal(cells.obsm["canal_probabilities"].max(axis=1), cells.obs["canal_confidence"])
    shown = table[[f"probability_{name}" for name in names]]
    np.testing.assert_allclose(shown, cells.obsm["canal_probabilities"], rtol=1e-5)
    assert list(table["second_type"]) == list(cells.obs["canal_second_type"])


@pytest.mark.parametrize("kind", ["file", "adata"])
def test_earlier_probabilities_do_not_stay(lab, query, tmp_path, kind):
    """A file that is annotated again without them has none of the model before."""
    workspace = canal.open_workspace(lab / "ws")
    workspace.annotate(query, out=tmp_path / "a.h5ad", scores="all")
    again = tmp_path / "a.h5ad" if kind == "file" else ad.read_h5ad(tmp_path / "a.h5ad")

    workspace.annotate(again, out=tmp_path / "b.h5ad")

    cells = ad.read_h5ad(tmp_path / "b.h5ad")
    assert "canal_probabilities" not in cells.obsm
    assert "probability_types" not in cells.uns["canal"]


@pytest.mark.parametrize("kind", ["file", "adata"])
def test_earlier_columns_do_not_stay(lab, query, tmp_path, kind):
    """A second type of the answer before would stand beside a first one of this; columns of others stay."""
    workspace = canal.open_workspace(lab / "ws")
    first = workspace.annotate(query, neighbors=1).to_adata(ad.read_h5ad(query))
    first.obs["canal_second_look"] = "mine"
    first.write_h5ad(tmp_path / "a.h5ad")
    again = tmp_path / "a.h5ad" if kind == "file" else first

    workspace.annotate(again, out=tmp_path / "b.h5ad", types="NK")

    obs = ad.read_h5ad(tmp_path / "b.h5ad").obs
    assert set(obs["canal_cell_type"]) == {"NK"}
    assert not {"canal_second_type", "canal_second_confidence", "canal_neighbor_1"} & set(obs)
    assert set(obs["canal_second_look"]) == {"mine"}


def test_somebody_elses_matrix_is_not_replaced(lab, tmp_path):
    """What canal did not write stays."""
    cells = make_adata(30, types=("B", "NK"))
    cells.obsm["canal_probabilities"] = np.ones((30, 2))
    with pytest.raises(DataError, match=r"obsm\['canal_probabilities'\], not written by canal"):
        canal.open_workspace(lab / "ws").annotate(cells, out=tmp_path / "a.h5ad", scores="all")


def test_scores_are_best_or_all(lab, query, tmp_path):
    """Another word is refused before the work; without all scores there is no table of them."""
    workspace = canal.open_workspace(lab / "ws")
    with pytest.raises(ConfigError, match=r"expected 'best' .* or 'all'"):
        workspace.annotate(query, out=tmp_path / "a.h5ad", scores="al")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="--scores all"):
        workspace.annotate(query).to_probabilities()


def test_parts_of_a_file_are_joined(lab, query):
    """What workers of a cluster found of parts of a file is that of the file."""
    options = AnnotateOptions(scores="all")
    answer = ShardAnnotator(workspace=lab / "ws", registry=None, stage=2, options=options)
    parts = []
    for rows in ((0, 20), (20, 60)):
        parts.append(answer(Shard(file=query, rows=rows, cells=rows[1] - rows[0])))

    joined = join_annotations(parts)

    whole = canal.open_workspace(lab / "ws").annotate(query, scores="all")
    np.testing.assert_allclose(joined.probabilities, whole.probabilities, atol=1e-6)
