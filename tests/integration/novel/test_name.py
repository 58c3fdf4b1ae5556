"""From named groups to a type that the model knows."""

import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import CanalError, DataError
from canal.novel.folder import name_novel
from tests.integration.novel.conftest import QUICK, fill


def test_counts_stay_in_raw(lab: Path, tmp_path: Path) -> None:
    """Where the counts stand in raw and X is logged, the named cells have both."""
    query = ad.read_h5ad(lab / "query.h5ad")
    del query.layers["counts"]
    query.raw = query.copy()
    query.X = query.X.log1p()
    canal.open_workspace(lab / "ws").find_novel(query, tmp_path / "raw")
    fill(tmp_path / "raw", {"1": "dendritic"})

    named = ad.read_h5ad(name_novel(tmp_path / "raw").out)

    np.testing.assert_array_equal(named.raw.X.toarray(), query.raw[named.obs_names].X.toarray())
    np.testing.assert_array_equal(named.X.toarray(), query[named.obs_names].X.toarray())


def test_named_cells_teach_the_type(lab: Path, found: Path, tmp_path: Path) -> None:
    """Named and added, the type is recognised; the author's labels are kept beside."""
    fill(found, {"1": "dendritic"})
    naming = name_novel(found)
    named = ad.read_h5ad(naming.out)
    workspace = canal.open_workspace(shutil.copytree(lab / "ws", tmp_path / "ws"))

    workspace.add_stage(naming.out, labels="cell_type", overrides=QUICK)
    query = ad.read_h5ad(lab / "query.h5ad")
    answer = workspace.annotate(query)

    assert naming.types == {"dendritic": named.n_obs}
    assert set(named.obs["cell_type"]) == {"dendritic"}
    assert (named.obs["cell_type_given"] == "DC").mean() >= 0.8
    assert (answer.cell_type[query.obs["cell_type"] == "DC"] == "dendritic").mean() >= 0.9


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("cluster,name\n1,\n", "names no cluster"),
        ("cluster,name\n", "names no cluster"),
        ("cluster,name\n99,X\n", "line 2: there is no cluster '99'"),
        ("cluster,name\n1,X\n1,Y\n", "line 3: cluster 1 stands in line 2 already"),
        ("cluster,name\n1,b\n", "knows 'B' already.*--known-ok"),
        ("cluster,name\n1,unknown\n", "'unknown' means that a type is not known"),
        ("cluster,cells\n1,9\n", "no column 'name'"),
        ("", "no column 'cluster' and no column 'name'"),
        ('cluster,name\n1,"X', "not a CSV text"),
        (None, "no file"),
    ],
)
def test_bad_tables_write_nothing(found: Path, table, message) -> None:
    """Every fault of the table is named; there is no named.h5ad then, and the command leaves with 2."""
    (found / "names.csv").unlink()
    if table is not None:
        (found / "names.csv").write_text(table)

    with pytest.raises(CanalError, match=message):
        name_novel(found)
    assert CliRunner().invoke(app, ["novel", "name", str(found)]).exit_code == 2
    assert not [p for p in found.iterdir() if "named" in p.name]


def test_a_known_name_is_allowed_where_it_is_meant(found: Path) -> None:
    """With --known-ok the cells teach a known type."""
    fill(found, {"1": "B"})

    assert set(name_novel(found, known_ok=True).types) == {"B"}


def test_a_folder_that_is_no_result_is_refused(tmp_path: Path) -> None:
    """Another folder or another JSON is no result."""
    with pytest.raises(DataError, match="no result of canal novel find"):
        name_novel(tmp_path)
    (tmp_path / "novel.json").write_text("{}")
    with pytest.raises(DataError, match="not written by canal novel find"):
        name_novel(tmp_path)
