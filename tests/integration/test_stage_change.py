"""Compare, diff, remove and replay on a real registry of toy stages."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import RegistryError, StageError
from canal.learn.annotator import load_annotator
from canal.learn.bank import load_bank
from canal.learn.memory_file import load_memory
from canal.registry.registry import Registry
from canal.stages import removal, testing
from canal.stages.compare import compare_stages
from canal.stages.difference import stage_difference
from canal.stages.exchange import export_stage, import_stage
from canal.stages.layout import Layout
from canal.stages.removal import remove_stage
from tests.integration.conftest import FILES, QUICK
from tests.make import make_adata


def run(layout: Layout, *words) -> tuple[int, dict]:
    """Run a command line with --json."""
    result = CliRunner().invoke(app, ["-C", str(layout.root), *map(str, words), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


def files_of(layout: Layout, number: int) -> Path:
    """Return the folder with the files of a stage."""
    registry = Registry.open(layout.registry, layout.settings.name)
    return registry.artifacts(registry.record(number))


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
    from canal.stages.stage_tests import StageTests

    monkeypatch.setattr("canal.stages.compare.read_tests", lambda *_: StageTests(own=None))

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


def test_a_removed_stage_is_gone_from_the_model(layout):
    """Memory exactly without it, no cell of it in the bank, its own types not answered; nothing is lost."""
    before = load_memory(files_of(layout, 3) / "memory.safetensors")

    result = remove_stage(layout, 2)

    after = load_memory(files_of(layout, 4) / "memory.safetensors")
    bank = load_bank(files_of(layout, 4) / "bank.safetensors")
    left = [s for s in before.statistics if s.stage != 2]
    assert [(s.stage, s.name, s.n) for s in after.statistics] == [(s.stage, s.name, s.n) for s in left]
    for ours, theirs in zip(after.statistics, left, strict=True):
        np.testing.assert_array_equal(ours.mean, theirs.mean)
        np.testing.assert_array_equal(ours.factors, theirs.factors)
    assert set(bank.stage.tolist()) == {1, 3}
    novelty = [load_annotator(files_of(layout, n)).novelty.stages for n in (3, 4)]
    assert [s.stage for s in novelty[1]] == [s.stage for s in novelty[0] if s.stage != 2]
    assert (result.stage, result.parent, result.removed_types) == (4, 3, ("CD4 T",))
    assert [t["stage"] for t in result.tested] == [1, 3]
    workspace = canal.open_workspace(layout.root)
    assert workspace.champion() == 4
    assert [r.number for r in workspace.stages()] == [1, 2, 3, 4]
    annotation = workspace.annotate(make_adata(60, types=("B", "NK", "HSC"), seed=9))
    assert (annotation.cell_type == make_adata(60, types=("B", "NK", "HSC"), seed=9).obs["cell_type"]).mean() > 0.9
    report = compare_stages(layout)
    assert report.accuracy[3][1] is None
    assert report.stages[3].forgetting is not None


def test_a_removal_that_falls_too_much_is_a_candidate(layout, monkeypatch):
    """The same rule as for a stage that is added; the answer says who annotates."""
    limits = []
    rule = testing.held_back

    def strict(*facts):  # any accuracy is too low
        limits.append(facts[-1])
        return rule(*facts[:-1], -1.0)

    monkeypatch.setattr(removal, "held_back", strict)
    code, found = run(layout, "stage", "remove", 2)

    assert code == 0
    assert limits == [0.02]  # promotion.max_fall of the preset
    assert found["champion"] is False
    assert "stage 4 stays a candidate, and stage 3 goes on annotating" in found["warnings"][0]
    workspace = canal.open_workspace(layout.root)
    assert workspace.champion() == 3
    assert workspace.stage(4).notes["held_back"] == found["warnings"][0]
    shown = CliRunner().invoke(app, ["-C", str(layout.root), "stage", "remove", "1"]).stdout
    assert "Stage 3, with the cells of stage 1, goes on annotating." in shown


def test_an_imported_stage_cannot_be_taken_out(layout, tmp_path):
    """Its cells carry numbers of another registry: nothing must be taken for them."""
    export_stage(layout, 2, tmp_path / "two.canal")
    other = canal.open_workspace(tmp_path / "other", create=True).layout
    import_stage(other, tmp_path / "two.canal")
    make_adata(80, types=("B", "MK"), prefix="next", seed=5).write_h5ad(tmp_path / "next.h5ad")
    canal.open_workspace(other.root).add_stage(tmp_path / "next.h5ad", labels="cell_type", overrides=QUICK)

    for number in (1, 2):
        with pytest.raises(StageError, match=rf"Stage {number} .* cannot be removed: stage 1 was imported"):
            remove_stage(other, number)


def test_a_stage_can_follow_a_removal(layout, tmp_path):
    """Learning goes on from the model without the stage, and does not test on what was taken out."""
    remove_stage(layout, 2)
    make_adata(80, types=("B", "MK"), prefix="fifth", seed=5).write_h5ad(tmp_path / "fifth.h5ad")

    result = canal.open_workspace(layout.root).add_stage(tmp_path / "fifth.h5ad", labels="cell_type", overrides=QUICK)

    assert [t["stage"] for t in result.tested] == [1, 3]
    assert result.types == ("B", "NK", "HSC", "MK")


def test_removal_without_a_bank(tmp_path):
    """With statistics alone the network learns from what it draws."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    for seed, (name, types) in enumerate(FILES.items()):
        data = make_adata(80, types=types, prefix=name, seed=seed)
        workspace.add_stage(data, labels="cell_type", name=name, overrides=(*QUICK, "bank.size=0"))

    result = remove_stage(workspace.layout, 3)

    assert result.bank == 0
    assert result.types == ("B", "NK", "CD4 T")
    answer = workspace.annotate(make_adata(60, types=("B", "NK"), seed=9)).cell_type
    assert (answer == make_adata(60, types=("B", "NK"), seed=9).obs["cell_type"]).mean() > 0.9


def test_what_cannot_be_removed_is_refused(layout, made):
    """Not in the model, gone already, all there is; nothing is committed."""
    registry = Registry.open(layout.registry, layout.settings.name)
    with pytest.raises(RegistryError, match="no stage 9"):
        remove_stage(layout, 9)
    registry.set_champion(1)
    with pytest.raises(StageError, match="was not learned from it"):
        remove_stage(layout, 2)
    with pytest.raises(StageError, match="nothing would be left"):
        remove_stage(layout, 1)
    registry.set_champion(3)
    remove_stage(layout, 2)
    with pytest.raises(StageError, match="without it already"):
        remove_stage(layout, 2)
    with pytest.raises(StageError, match="took another stage out"):
        remove_stage(layout, 4)
    assert [r.number for r in registry.records()] == [1, 2, 3, 4]
