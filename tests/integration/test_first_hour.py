"""What a newcomer tries in the first hour: nothing is silent, and what cannot be used is refused in words."""

import json
import os
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import CanalError, ConfigError
from canal.progress import Silent
from canal.workspace import Workspace
from tests.labs import add, write
from tests.make import make_adata

WORDS = ("B", "NK", "CD4 T")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace whose stage measured enough genes to tell their levels."""
    folder = tmp_path_factory.mktemp("wide")
    workspace = canal.open_workspace(folder / "ws", create=True)
    add(workspace, make_adata(120, 300, types=WORDS, prefix="taught"))
    return workspace


def call(workspace: Path, *words: object, code: int = 0) -> str:
    """Run a command and return what it printed."""
    result = CliRunner().invoke(app, ["-C", str(workspace), *map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


def test_annotating_says_whether_the_file_fits(wide, tmp_path):
    """Share of novel cells, genes measured and their levels: on the screen, in the JSON, in the file."""
    query = make_adata(90, 300, types=WORDS, seed=7)
    query.write_h5ad(tmp_path / "q.h5ad")

    shown = call(wide.root, "annotate", "--data", tmp_path / "q.h5ad", "--out", tmp_path / "a.h5ad")
    told = json.loads(
        call(wide.root, "annotate", "--data", tmp_path / "q.h5ad", "--out", tmp_path / "b.h5ad", "--json")
    )

    stored = ad.read_h5ad(tmp_path / "a.h5ad").uns["canal"]
    share = float((ad.read_h5ad(tmp_path / "a.h5ad").obs["canal_status"] == "novel").mean())
    assert f"sanity: {share:.1%} of the cells novel; 300 of 300 genes of the model measured; gene levels" in shown
    assert told["sanity"] == stored["sanity"]
    assert told["share_novel"] == stored["share_novel"] == share
    assert told["gene_agreement"] == stored["gene_agreement"] > 0.8
    assert (told["values"], told["scale"]) == ("X", "counts")
    assert "warning" not in shown


@pytest.mark.parametrize("command", ["annotate", "evaluate", "novel find"])
def test_warnings_are_printed(wide, tmp_path, command):
    """Mouse symbols and few genes of the panel are said by every command that reads cells."""
    query = make_adata(90, 300, types=WORDS, seed=7)[:, :120].copy()
    query.var_names = [name.capitalize() for name in query.var_names]
    query.write_h5ad(tmp_path / "q.h5ad")
    words = [*command.split(), "--data", tmp_path / "q.h5ad"]
    words += (
        ["--labels", "cell_type"]
        if command == "evaluate"
        else ["--out", tmp_path / ("n" if "n" in command[:1] else "a.csv")]
    )

    shown = call(wide.root, *words)

    assert "warning: " in shown
    assert "holds mouse gene symbols" in shown
    assert "measures 120 of the 300 genes of the model (40%)" in shown
    assert "120 of 300 genes of the model measured" in shown


def test_shuffled_gene_names_are_told(wide):
    """Names that stand beside other columns match, but the genes' levels do not."""
    query = make_adata(90, 300, types=WORDS, seed=7)
    right = wide.annotate(query)
    query.var_names = np.random.default_rng(0).permutation(query.var_names)

    shuffled = wide.annotate(query)

    assert not right.facts["warnings"]
    assert "may be shuffled" in shuffled.facts["warnings"][0]
    assert shuffled.facts["gene_agreement"] < 0.25


def test_evaluate_says_which_cells_do_not_count(wide):
    """Labels that name no type are left out of the figures, unless they are asked for."""
    cells = make_adata(90, 300, types=WORDS, seed=7)
    labels = cells.obs["cell_type"].astype(str)
    labels.iloc[:10] = "Doublet"
    cells.obs["cell_type"] = labels

    found = wide.evaluate(cells)
    asked = wide.evaluate(cells, keep_labels="Doublet")
    dropped = wide.evaluate(cells, drop_labels="B")

    assert (found.cells, found.unlabelled, found.dropped_labels) == (80, 10, {"Doublet": 10})
    assert (asked.cells, asked.unknown_types) == (90, ("Doublet",))
    assert "B" not in dropped.per_type
    assert found.sanity.startswith("300 of 300 genes")


def test_a_file_that_is_there_is_not_replaced(lab, tmp_path):
    """Neither the cells themselves nor an earlier answer, unless that is asked for."""
    query = write(tmp_path, "query", ("B", "NK"), 40, seed=7)
    before = query.read_bytes()
    (tmp_path / "a.csv").write_text("mine")

    for out in (query, tmp_path / "a.csv"):
        text = call(lab / "ws", "annotate", "--data", query, "--out", out, code=2)
        assert "is there already" in text
        assert "--overwrite" in text
    assert query.read_bytes() == before
    assert (tmp_path / "a.csv").read_text() == "mine"

    call(lab / "ws", "annotate", "--data", query, "--out", query, "--overwrite")
    assert "canal_cell_type" in ad.read_h5ad(query).obs


@pytest.mark.parametrize("key", ["a/b", "", " "])
def test_names_that_no_file_can_hold_are_refused(lab, tmp_path, key):
    """A slash parts folders in h5ad: the file could not be read again."""
    query = write(tmp_path, "query", ("B", "NK"), 40, seed=7)

    with pytest.raises(CanalError, match="--key-added"):
        canal.open_workspace(lab / "ws").annotate(query, out=tmp_path / "a.h5ad", key_added=key)
    assert not (tmp_path / "a.h5ad").exists()


def test_python_takes_names_as_they_come(lab, tmp_path):
    """A text is one name, a dict is a map, an array is a column, a path may be text."""
    workspace = canal.open_workspace(lab / "ws")
    query = make_adata(60, types=WORDS, seed=7)
    query.write_h5ad(tmp_path / "q.h5ad")

    assert set(workspace.annotate(query, types="NK").cell_type) == {"NK"}
    assert set(workspace.annotate(query, types=pd.Series(["NK", "B"])).cell_type) <= {"NK", "B"}
    assert workspace.annotate(str(tmp_path / "q.h5ad"), out=str(tmp_path / "a.h5ad")) is not None
    clusters = query.obs["cell_type"].astype(str)
    for given in (clusters, clusters.to_numpy(), clusters.tolist()):
        voted = workspace.annotate(query, over_clustering=given)
        assert pd.DataFrame({"c": clusters.to_numpy(), "t": voted.cell_type}).groupby("c")["t"].nunique().max() == 1
    evaluated = workspace.evaluate(query, label_map={"CD4 T": None, "B": "NK"})
    assert set(evaluated.per_type) == {"NK"}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"data": pd.DataFrame({"a": [1]})}, "The cells are DataFrame; expected .* AnnData"),
        ({"data": np.ones((3, 3))}, "The cells are ndarray"),
        ({"data": None}, "The cells are NoneType"),
        ({"types": 3}, "types is 3; expected a name"),
        ({"types": [1, 2]}, "types is"),
        ({"over_clustering": ["1", "2"]}, "holds 2 clusters"),
        ({"out": 7}, "out is 7"),
        ({"inplace": True, "data": "q.h5ad"}, "in memory"),
    ],
)
def test_what_is_no_argument_is_refused_in_words(lab, options: dict[str, Any], match: str):
    """Every wrong kind of value is a CanalError, not a bare TypeError."""
    asked = {"data": make_adata(30, types=("B", "NK"))} | options

    with pytest.raises(CanalError, match=match):
        canal.open_workspace(lab / "ws").annotate(asked.pop("data"), **asked)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"label_map": ["a", "b"]}, "label_map is"),
        ({"label_map": {"a": 1}}, "maps 'a' to 1"),
        ({"labels": np.array(["B"] * 30)}, "labels is of type ndarray; expected the name of a column"),
        ({"drop_labels": 3}, "drop_labels is 3"),
    ],
)
def test_stages_refuse_wrong_arguments_in_words(tmp_path, options: dict[str, Any], match: str):
    """Nothing is made of a request that cannot be read."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)

    with pytest.raises(CanalError, match=match):
        workspace.add_stage(make_adata(30, types=("B", "NK")), **{"labels": "cell_type"} | options)
    assert workspace.layout.registry.is_dir() is False or not list(workspace.layout.stages.glob("*.toml"))


def test_a_label_map_in_memory_is_kept_with_the_stage(tmp_path):
    """The stage can be replayed, and its held-out cells read again."""
    data = write(tmp_path, "cells", ("B", "NK"))
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    add(workspace, data, label_map={"B": "beta"}, keep_labels=["other"])

    again = workspace.replay(tmp_path / "again")

    assert workspace.stage(1).types == ("NK", "beta")
    assert again.identical
    assert workspace.stage(1).notes["keep_labels"] == ["other"]


def test_inplace_adds_to_the_cells_that_were_given(lab):
    """As scanpy's functions do, where it is asked for."""
    query = make_adata(30, types=("B", "NK"), seed=3)

    canal.open_workspace(lab / "ws").annotate(query, inplace=True, key_added="mine")

    assert {"mine_cell_type", "mine_confidence"} <= set(query.obs)


def test_patterns_name_several_files(lab, tmp_path):
    """`--data 'runs/*.h5ad'` is every file of that name; a pattern without any is refused."""
    for name in ("a", "b"):
        write(tmp_path, name, ("B", "NK"), 30, seed=7)

    told = json.loads(call(lab / "ws", "annotate", "--data", tmp_path / "*.h5ad", "--out", tmp_path / "out", "--json"))

    assert [Path(file["data"]).name for file in told["files"]] == ["a.h5ad", "b.h5ad"]
    assert "No file is called like" in call(
        lab / "ws", "annotate", "--data", tmp_path / "*.zarr", "--out", tmp_path / "x.h5ad", code=2
    )


def test_an_annotation_prints_short(lab):
    """However many cells: the types, their numbers, and what to do next."""
    annotation = canal.open_workspace(lab / "ws").annotate(make_adata(300, types=WORDS, seed=3))

    assert "Annotation of 300 cells" in repr(annotation)
    assert len(repr(annotation)) < 600
    assert "<td>NK</td>" in annotation._repr_html_()


def test_canal_shows_what_is_public():
    """`dir` and `help` show what one needs, and nothing of how it is made."""
    assert set(dir(canal)) == set(canal.__all__)
    assert {"open_workspace", "load_model", "Workspace", "Annotation", "CanalError", "pl"} <= set(dir(canal))
    assert "open_workspace" in str(canal.__doc__)
    assert canal.load_model.__doc__


def test_help_shows_the_columns(lab):
    """What stands in brackets is not taken for markup."""
    assert "canal_cell_type, canal_confidence, canal_status" in " ".join(call(lab / "ws", "annotate", "--help").split())


def test_the_first_stage_tests_on_nothing(tmp_path):
    """Nobody is told of earlier stages where there are none."""
    told = []

    class Told(Silent):
        def start(self, total_steps: int, description: str) -> None:
            assert total_steps
            told.append(description)

    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    add(workspace, make_adata(60, types=("B", "NK")), progress=Told())
    assert told == ["stage 1"]
    add(workspace, make_adata(60, types=("B", "NK"), prefix="next", seed=2), progress=Told())
    assert "testing on earlier stages" in told


def test_after_a_rollback_both_ways_are_offered(tmp_path):
    """The stage is kept but not in use: bring it back, or learn its cells anew."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    second = make_adata(60, types=("B", "HSC"), prefix="next", seed=2)
    add(workspace, make_adata(60, types=("B", "NK")))
    add(workspace, second)
    workspace.rollback()

    with pytest.raises(CanalError, match=r"not in use: stage 1 annotates.*canal stage promote 2.*on top of stage 1"):
        add(workspace, second)
    workspace.promote(2)
    with pytest.raises(CanalError, match="was added before"):
        add(workspace, second)


def test_the_demo_fixes_its_threads(monkeypatch):
    """Its figures are those of the README, however many threads the machine has."""
    seen = {}

    def stop(*_args: Any, **_options: Any) -> None:
        seen.update(os.environ)
        message = "seen"
        raise ConfigError(message)

    monkeypatch.setattr("canal.demo.demo.run_demo", stop)
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(variable, "7")
    CliRunner().invoke(app, ["demo"])
    assert seen["OMP_NUM_THREADS"] == seen["MKL_NUM_THREADS"] == seen["OPENBLAS_NUM_THREADS"] == "1"


def test_figures_of_cells_that_were_learned_are_told(tmp_path):
    """A stage whose held-out cells are all in the bank has an average accuracy that says little."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)

    small = add(workspace, make_adata(60, types=("B", "NK")), "bank.size=60")
    large = add(workspace, make_adata(200, types=("B", "NK"), prefix="next", seed=2), "bank.size=24")

    assert any("average accuracy is that of cells it has seen" in text for text in small.warnings)
    assert not any("average accuracy" in text for text in large.warnings)


def test_too_few_genes_names_a_way_that_there_is(wide, tmp_path):
    """`annotate` has no --set: the floor is one of the stage."""
    query = make_adata(30, 300, types=WORDS)[:, :5].copy()
    query.var_names = [*query.var_names[:1], "A", "B", "C", "D"]
    query.write_h5ad(tmp_path / "q.h5ad")

    text = call(wide.root, "annotate", "--data", tmp_path / "q.h5ad", "--out", tmp_path / "a.csv", code=2)

    assert "measures 1 of the model's 300 genes" in text
    assert "next stage with a lower floor: --set genes.min_overlap=0.01" in text


def test_python_tells_its_progress_where_it_is_asked_to(lab, capfd):
    """`progress=True` in a script whose stderr is a log: lines; without it nothing."""
    workspace, query = canal.open_workspace(lab / "ws"), make_adata(30, types=("B", "NK"), seed=3)
    workspace.annotate(query)
    assert capfd.readouterr().err == ""
    workspace.annotate(query, progress=True)
    assert "annotating" in capfd.readouterr().err
