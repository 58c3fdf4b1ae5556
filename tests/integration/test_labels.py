"""A lab's names in the Cell Ontology: suggested for a stage and a file, accepted, listed, shown as a tree."""

import csv
import json

import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import ConfigError, DataError, StageError
from tests.make import make_adata


def run(folder, *words, code=0):
    """Run a command line with --json in a workspace."""
    result = CliRunner().invoke(app, ["-C", str(folder), *map(str, words), "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_from_suggestion_to_tree(layout, tmp_path):
    """The types of the stage in use are suggested, accepted, listed, and hang in one tree."""
    table = tmp_path / "labels.csv"
    suggested = run(layout.root, "labels", "suggest", "--out", table)
    assert {s["name"]: s["accepted"] for s in suggested["suggestions"]} == {
        "B": "CL:0000236",
        "NK": "CL:0000623",
        "CD4 T": "CL:0000624",
        "HSC": None,
    }
    # Nobody knows better than the lab what HSC are.
    text = table.read_text().replace("HSC,,", "HSC,CL:0008001,broad")
    table.write_text(text)
    accepted = run(layout.root, "labels", "accept", table)
    assert accepted["total"] == 4
    listed = {label["type"]: label for label in run(layout.root, "labels", "list")["labels"]}
    assert (listed["NK"]["id"], listed["NK"]["relation"]) == ("CL:0000623", "exact")
    assert (listed["HSC"]["relation"], listed["HSC"]["below"]) == ("broad", "hematopoietic precursor cell")
    tree = CliRunner().invoke(app, ["-C", str(layout.root), "labels", "tree"]).stdout
    # NK, B and CD4 T part below "lymphocyte"; HSC is no term of its own.
    assert "lymphocyte (CL:0000542)" in tree
    assert "CD4-positive, alpha-beta T cell (CL:0000624): CD4 T" in tree
    assert "HSC (no term)" in tree
    lines = tree.splitlines()
    depth = {name: next(line for line in lines if f": {name}" in line).index("─") for name in ("B", "NK", "CD4 T")}
    above = next(line for line in lines if "lymphocyte" in line).index("─")
    assert set(depth.values()) == {above + 3}


def test_a_table_that_is_wrong_changes_nothing(layout, tmp_path):
    """One wrong row refuses the table: the workspace keeps what it had."""
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("name,id\nB,CL:0000236\n")
    bad.write_text("name,id\nNK,CL:0000623\nB,CL:9999999\n")
    run(layout.root, "labels", "accept", good)
    before = layout.labels.read_bytes()
    answer = run(layout.root, "labels", "accept", bad, code=2)
    assert "CL:9999999 is not in release" in answer["error"]
    assert layout.labels.read_bytes() == before
    # What is accepted later joins what was there; a change is told.
    good.write_text("name,id\nB,CL:0000788\nNK,CL:0000623\n")
    accepted = run(layout.root, "labels", "accept", good)
    assert (accepted["total"], accepted["changed"]) == (2, ["B"])


def test_names_of_a_file_and_of_a_table(layout, tmp_path):
    """The column of a file, and a table, need no workspace; a filled table is not lost."""
    workspace = canal.open_workspace(layout.root)
    adata = make_adata(60, types=("B", "NK", "Unknown"), seed=3)
    report = workspace.suggest_labels(data=adata, labels="cell_type")
    assert [s.name for s in report.suggestions] == ["B", "NK"]
    table, out = tmp_path / "names.csv", tmp_path / "out.csv"
    table.write_text("name\nNK cells\n")
    answer = run(tmp_path, "labels", "suggest", "--names", table, "--out", out)
    assert answer["suggestions"][0]["accepted"] == "CL:0000623"
    out.write_text("name,id\nfilled,CL:0000236\n")
    assert (
        "somebody may have filled it"
        in run(tmp_path, "labels", "suggest", "--names", table, "--out", out, code=2)["error"]
    )
    assert "filled" in out.read_text()
    run(tmp_path, "labels", "suggest", "--names", table, "--out", out, "--overwrite")
    with out.open() as file:
        assert next(csv.DictReader(file))["id"] == "CL:0000623"


def test_refusals(layout, tmp_path):
    """Two sources, a missing table, a stage without terms."""
    workspace = canal.open_workspace(layout.root)
    with pytest.raises(ConfigError, match="expected one of the three"):
        workspace.suggest_labels(names=["B"], stage=1)
    with pytest.raises(DataError, match="There is no file"):
        workspace.suggest_labels(names=tmp_path / "no.csv")
    with pytest.raises(StageError, match="No type of stage 3 has a term"):
        workspace.label_tree()
