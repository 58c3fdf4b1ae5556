"""Compare and diff on a real registry of toy stages."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.compare.gather import compare_stages
from canal.errors import RegistryError
from canal.history.diff import stage_difference
from canal.stages.layout import Layout


def run(layout: Layout, *words) -> tuple[int, dict]:
    """Run a command line with --json."""
    result = CliRunner().invoke(app, ["-C", str(layout.root), *map(str, words), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


def test_compare_shows_what_was_kept(layout):
    """A lower triangle of accuracies, figures along the line, types, and no model is run."""
    report = compare_stages(layout)

    accuracy = report.accuracy
    assert [[v is not None for v in row] for row in accuracy] == [[True, False, False], [True, True, False], [True] * 3]
    assert (report.champion, report.focus) == (3, 3)
    row = report.stages[2]
    assert row.average == pytest.approx(np.mean(accuracy[2]))
    lost = [max(accuracy[0][0], accuracy[1][0]) - accuracy[2][0], accuracy[1][1] - accuracy[2][1]]
    assert row.forgetting == pytest.approx(np.mean(lost))
    gained = [accuracy[2][0] - accuracy[0][0], accuracy[2][1] - accuracy[1][1]]
    assert row.backward_transfer == pytest.approx(np.mean(gained))
    assert {t.name for t in report.types} == {"B", "NK", "CD4 T", "HSC"}
    assert sum(n for answers in report.confusion.values() for n in answers.values()) == sum(
        s.cells for s in report.sets
    )
    assert set(row.f1) == {"B", "NK", "CD4 T", "HSC"}
    assert row.history


def test_recomputing_gives_what_was_kept(layout, made):
    """The same models on the same cells answer the same; what is gone keeps its figure."""
    kept = compare_stages(layout)

    again = compare_stages(layout, recompute=True)

    assert again.accuracy == kept.accuracy
    assert again.recomputed


def test_references_are_trained_on_what_can_be_read(layout, made):
    """Each says which cells it has seen; where a file is gone, the bank's cells stand in."""
    regression, naive = compare_stages(layout, references=True).references
    assert regression.name == "joint logistic regression"
    assert all(v is not None and v > 0.8 for v in regression.accuracy)
    assert "of 80 cells of stage 1, from its file" in regression.how
    assert "stages 1, 2, 3" in naive.how

    (made / "first.h5ad").rename(made / "away.h5ad")
    try:
        regression, naive = compare_stages(layout, references=True).references
    finally:
        (made / "away.h5ad").rename(made / "first.h5ad")
    assert regression.name == "logistic regression on what is left"
    assert "cells of stage 1, from the bank (its file is gone)" in regression.how
    assert "It has not seen all cells." in regression.how
    assert regression.accuracy[0] is None
    assert "Stages 1 are left out" in naive.how


def test_compare_on_the_command_line(layout, tmp_path):
    """Chosen stages, JSON and one page; a bad target or stage is refused before any work."""
    code, found = run(layout, "compare", 1, 3, "--html", tmp_path / "r.html")
    assert code == 0
    assert [s["number"] for s in found["stages"]] == [1, 3]
    assert len(found["accuracy"]) == 2
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
    shown = CliRunner().invoke(app, ["-C", str(layout.root), "compare"]).stdout
    assert "3* third" in shown
    assert "forgetting" in shown

    for words, said in ((("--html", tmp_path / "r.txt"), "does not end in .html"), (("7",), "no stage 7")):
        code, found = run(layout, "compare", *words)
        assert code == 2
        assert said in found["error"]


def test_compare_needs_a_stage(tmp_path):
    """An empty workspace says what to do."""
    workspace = canal.open_workspace(tmp_path, create=True)
    with pytest.raises(RegistryError):
        compare_stages(workspace.layout)


def test_a_stage_without_tests_is_compared_too(layout, monkeypatch):
    """A stage of an older canal has gaps, not errors."""
    from canal.stages.testing.tests import StageTests

    monkeypatch.setattr("canal.compare.gather.read_tests", lambda *_: StageTests(own=None))

    report = compare_stages(layout)

    assert report.accuracy == ((), (), ())
    assert report.stages[2].average is None


def test_diff_names_types_genes_configuration_and_cells(layout, made, tmp_path):
    """What stage 3 knows that stage 1 does not; the cells that change are listed."""
    found = stage_difference(layout, 1, 3, data=made / "third.h5ad")
    facts = found.to_dict()

    assert found.types_added == ("CD4 T", "HSC")
    assert found.types_removed == found.genes_removed == ()
    assert "validation_accuracy" in found.metrics or found.metrics
    assert found.config == {}
    assert facts["data"]["cells"] == 80
    assert facts["data"]["changed"] == sum(c["cells"] for c in facts["data"]["changes"]) > 20

    out = tmp_path / "changes.csv"
    code, told = run(layout, "stage", "diff", 1, 3, "--data", made / "third.h5ad", "--out", out)
    with out.open() as file:
        lines = list(csv.DictReader(file))
    assert code == 0
    assert told["data"] == facts["data"]
    assert len(lines) == facts["data"]["changed"]
    assert all(line["stage_1"] != line["stage_3"] for line in lines)
    assert set(lines[0]) == {"cell", "stage_1", "stage_3", "confidence_1", "confidence_3"}


def test_diff_refuses_what_it_cannot_do(layout, made, tmp_path):
    """An unknown stage, and a list without cells."""
    with pytest.raises(RegistryError, match="no stage 9"):
        stage_difference(layout, 1, 9)
    code, found = run(layout, "stage", "diff", 1, 2, "--out", tmp_path / "x.csv")
    assert (code, found["kind"]) == (2, "ConfigError")
    assert not (tmp_path / "x.csv").exists()
