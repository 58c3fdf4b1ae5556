"""From named groups to a type that the model knows."""

import json
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import CanalError, DataError
from canal.novel.find import SURE
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
    naming = name_novel(found, with_known=False)
    named = ad.read_h5ad(naming.out)
    workspace = canal.open_workspace(shutil.copytree(lab / "ws", tmp_path / "ws"))

    workspace.add_stage(naming.out, labels="cell_type", overrides=QUICK)
    query = ad.read_h5ad(lab / "query.h5ad")
    answer = workspace.annotate(query)

    assert naming.types == {"dendritic": named.n_obs}
    assert set(named.obs["cell_type"]) == {"dendritic"}
    assert (named.obs["cell_type_given"] == "DC").mean() >= 0.8
    assert (answer.cell_type[query.obs["cell_type"] == "DC"] == "dendritic").mean() >= 0.9


def test_the_surely_known_cells_are_taught_along(lab: Path, found: Path) -> None:
    """The stage is balanced: named cells as they were, known ones under the model's name, nearly all right."""
    naming = name_novel(found, names={"1": "dendritic"})
    alone = name_novel(found, names={"1": "dendritic"}, with_known=False)

    named = ad.read_h5ad(name_novel(found, names={"1": "dendritic"}).out)
    query = ad.read_h5ad(lab / "query.h5ad")
    known = named[named.obs["cell_type"] != "dendritic"]
    assert naming.types == alone.types == {"dendritic": named.n_obs - known.n_obs}
    assert naming.known == known.obs["cell_type"].value_counts().sort_index().to_dict()
    assert set(naming.known) == {"B", "NK"}
    assert alone.known == {}
    assert (known.obs["cell_type"] == known.obs["cell_type_given"]).mean() >= 0.95
    # Everything that a cell had in its file is there still.
    np.testing.assert_array_equal(named.X.toarray(), query[named.obs_names].X.toarray())
    np.testing.assert_array_equal(named.layers["counts"].toarray(), query[named.obs_names].X.toarray())
    assert set(known.obs["canal_status"]) == {"known"}
    assert known.obs["canal_confidence"].min() >= SURE


def test_without_a_surely_known_cell_it_says_so(found: Path) -> None:
    """A result of an older version, or of a file of new types alone: named all the same, with a warning."""
    (found / "known.h5ad").unlink()

    naming = name_novel(found, names={"1": "dendritic"})

    assert naming.known == {}
    assert any("No cell of the file is surely of a known type" in text for text in naming.warnings)


def test_names_without_a_table(lab: Path, found: Path) -> None:
    """On the command line and in Python; both are checked like the table."""
    answer = CliRunner().invoke(app, ["novel", "name", str(found), "--name", "1=dendritic", "--json"])

    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["names"] == {"1": "dendritic"}
    workspace = canal.open_workspace(lab / "ws")
    assert workspace.name_novel(found, names={"1": "dendritic"}).names == {"1": "dendritic"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "99=X"], "there is no cluster '99'"),
        (["--name", "1"], "expected N=TYPE"),
        (["--name", "1=X", "--name", "1=Y"], "names cluster 1 twice"),
        (["--name", "1=unknown"], "'unknown' means that a type is not known"),
        (["--name", "1="], "names no cluster"),
        (["--name", "1=b"], "knows 'B' already"),
        (["--name", "1=X", "--names", "names.csv"], "in one place"),
    ],
)
def test_bad_names_on_the_command_line_write_nothing(found: Path, options: list[str], message: str) -> None:
    """One clear sentence, exit 2, no file."""
    answer = CliRunner().invoke(app, ["novel", "name", str(found), *options])

    assert answer.exit_code == 2
    assert message in " ".join(answer.output.split())
    assert not (found / "named.h5ad").exists()


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
