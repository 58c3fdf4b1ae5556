"""A reference to held-out cells gives the same cells again, or says why not."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest

from canal.data.cells import Cells
from canal.data.formats import open_file
from canal.data.labels import LabelOptions, take_labels
from canal.data.reading_rules import NEWEST, ReadingRules
from canal.data.stream import CellStream, collect, read_cells
from canal.errors import DataError, RegistryError
from canal.stages.declarations import recorded_request
from canal.stages.request import recorded_options
from canal.stages.testing.held_out import (
    HeldOutReference,
    ReadingOptions,
    chosen_rows,
    read_held_out,
    reference_to_file,
    reference_to_share,
)
from canal.stages.testing.tests import TESTS_FILE, Outcome, StageTests, finite_history, read_tests
from tests.make import make_adata
from tests.unit.registry.make import make_record

OPTIONS = ReadingOptions(labels="cell_type", keep_labels=())
NONE = np.zeros(3, dtype=bool)


def stage_cells(file: Path) -> Cells:
    """Read cells as `stage add` does."""
    return read_cells(file, labels="cell_type", keep_stored=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file of 60 cells of three types, of which every fifth has no label."""
    adata = make_adata(60, types=("B", "NK", "HSC"))
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(object)
    adata.obs.iloc[::5, 0] = None
    adata.write_h5ad(tmp_path / "a.h5ad")
    return tmp_path / "a.h5ad"


def test_the_cells_of_a_share_are_those_that_were_held_out(file):
    """Rows count cells with a label; the file gives the same values that the stage had."""
    cells = stage_cells(file)
    rows = np.array([1, 7, 40])

    held, found = reference_to_share(file, OPTIONS, cells, rows, NONE)
    again = read_held_out(held)

    for one in (found, again):
        assert one.names.tolist() == cells.names[rows].tolist()
        assert one.labels.tolist() == cells.labels[rows].tolist()
        np.testing.assert_array_equal(one.expression.toarray(), cells.expression[rows].toarray())
    assert held.path == str(file.absolute())
    assert held.cells == 3
    assert "".join(cells.names[rows]) not in held.model_dump_json()


def test_references_of_older_records_give_the_cells_as_they_were_read_then(tmp_path):
    """Labels, genes and matrix were once chosen by other rules; the digest says by which."""
    adata = make_adata(60, 30, types=("B", "NK", "other"), genes=[*(f"GRCh38_G{g}" for g in range(29)), "CD3"])
    adata.raw = adata.copy()
    adata = adata[:, 10:].copy()
    adata.var["feature_types"] = ["Gene Expression"] * 19 + ["Antibody Capture"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    with open_file(tmp_path / "a.h5ad") as source:
        taken = take_labels(source.obs, LabelOptions(column="cell_type", keep=("*",)), "a")
        then = collect(CellStream(source, taken=taken, rules=ReadingRules.FIRST))
    reference = HeldOutReference(
        kind="file",
        path=str(tmp_path / "a.h5ad"),
        digest=then.report.digest,
        rows=None,
        cells=60,
        options=OPTIONS,
    )

    again = read_held_out(reference)

    assert again.report.digest == then.report.digest
    assert (len(again), again.report.where, again.genes.names[-1]) == (60, "X", "CD3")
    assert set(again.labels.tolist()) == {"B", "NK", "other"}
    now, _ = reference_to_file(tmp_path / "a.h5ad", OPTIONS)
    assert now.digest != reference.digest
    assert (len(read_held_out(now)), read_held_out(now).report.where) == (40, "raw.X")


def test_references_to_mouse_cells_from_before_orthologues_give_the_cells_of_then(tmp_path):
    """Their genes were named in upper case, and the digest is over names, too."""
    genes = ["Cd8b1", "Fcgr4", "Ins2", "Trp53", "Car4", "Cd3d", *(f"Gen{g}" for g in range(20))]
    make_adata(60, 26, types=("B", "NK", "other"), genes=genes).write_h5ad(tmp_path / "a.h5ad")
    _, cells = reference_to_file(tmp_path / "a.h5ad", OPTIONS)
    reference, then = reference_to_file(tmp_path / "a.h5ad", OPTIONS, ReadingRules.SPELLING)

    assert (cells.genes.names[0], then.genes.names[0]) == ("CD8B", "CD8B1")
    assert cells.report.digest != reference.digest
    assert read_held_out(reference).genes.names == then.genes.names


def test_cells_of_the_bank_are_left_out_unless_a_type_has_no_others(file):
    """Later stages train on the bank: its cells say nothing about forgetting."""
    cells = stage_cells(file)
    rows = np.arange(len(cells))
    in_bank = (cells.labels == "HSC") | ((rows < 20) & (cells.labels == "B"))

    held, found = reference_to_share(file, OPTIONS, cells, rows, in_bank)

    assert set(found.names) & set(cells.names[in_bank & (cells.labels == "B")]) == set()
    assert (found.labels == "HSC").sum() == (cells.labels == "HSC").sum() == held.in_bank


def test_rare_types_that_were_dropped_do_not_shift_rows(tmp_path):
    """Positions among the stage's cells become rows of the file."""
    adata = make_adata(30, types=("B", "NK"))
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str)
    adata.obs.iloc[2, 0] = "lonely"
    adata.write_h5ad(tmp_path / "a.h5ad")
    labels = LabelOptions(column="cell_type", drop_rare=True)
    cells = read_cells(tmp_path / "a.h5ad", labels=labels, keep_stored=True)

    held, found = reference_to_share(tmp_path / "a.h5ad", OPTIONS, cells, np.array([1, 2, 9]), NONE)

    assert held.rows == (1, 3, 10)
    assert found.names.tolist() == cells.names[[1, 2, 9]].tolist()


def test_the_same_cells_elsewhere_in_the_same_file_are_the_same(file):
    """Other cells, metadata or compression may change; what is tested may not."""
    held, _ = reference_to_share(file, OPTIONS, stage_cells(file), np.array([1, 7, 40]), NONE)
    adata = ad.read_h5ad(file)
    adata.obs["more"] = 1.0
    adata.write_h5ad(file, compression="gzip")
    assert len(read_held_out(held)) == 3

    adata.X[held.rows[0]] *= 2
    adata.write_h5ad(file)
    with pytest.raises(DataError, match="was changed"):
        read_held_out(held)


@pytest.mark.parametrize("change", ["gone", "other labels", "fewer cells", "no file any more"])
def test_what_cannot_be_read_says_why(file, change):
    """A file that is gone or holds others is an error that names it."""
    held, _ = reference_to_share(file, OPTIONS, stage_cells(file), np.array([1, 7, 40]), NONE)
    adata = ad.read_h5ad(file)
    if change == "gone":
        file.unlink()
    elif change == "other labels":
        adata.obs["cell_type"] = "B"
        adata.write_h5ad(file)
    elif change == "fewer cells":
        adata[:20].copy().write_h5ad(file)
    else:
        file.write_text("nothing")

    with pytest.raises(DataError, match=str(file)):
        read_held_out(held)


def test_cells_in_memory_are_tested_once(file):
    """An AnnData leaves no file to come back to."""
    adata = ad.read_h5ad(file)
    cells = read_cells(adata, labels="cell_type", keep_stored=True)

    held, found = reference_to_share(None, OPTIONS, cells, np.array([1, 7, 40]), NONE)

    assert len(found) == 3
    with pytest.raises(DataError, match="in memory"):
        read_held_out(held)


def test_a_whole_file_is_taken_up_to_a_limit(file, monkeypatch):
    """All labelled cells; of a large file a share of every type."""
    held, found = reference_to_file(file, OPTIONS)
    assert (held.kind, held.rows, held.cells) == ("file", None, len(found))
    assert len(found) == len(stage_cells(file))

    monkeypatch.setattr("canal.stages.testing.held_out.MOST_TEST_FILE_CELLS", 12)
    held, found = reference_to_file(file, OPTIONS)
    assert len(held.rows) == len(found) == 12
    assert set(found.labels) == {"B", "NK", "HSC"}
    assert len(read_held_out(held)) == 12


def test_every_type_keeps_a_cell():
    """A share of a rare type is one cell, not none."""
    labels = np.array(["B"] * 99 + ["NK"], dtype=object)
    rows = chosen_rows(labels, 10)
    assert set(labels[rows]) == {"B", "NK"}
    assert 10 <= len(rows) <= 11
    np.testing.assert_array_equal(rows, chosen_rows(labels, 10))


def test_tests_are_written_and_read(file, tmp_path):
    """The file holds references and counts; a newer or damaged one is refused."""
    held, _ = reference_to_file(file, OPTIONS)
    outcomes = (Outcome(stage=1, digest="a", reason="gone"), Outcome(stage=2, digest="b", counts={"B": {"NK": 2}}))
    tests = StageTests(own=held, outcomes=outcomes, history=finite_history([{"loss": 1.5, "accuracy": float("nan")}]))
    path = tests.write(tmp_path)[TESTS_FILE]
    text = path.read_text()
    registry = SimpleNamespace(file=lambda _, name: tmp_path / name)

    assert read_tests(registry, make_record(1)) == tests
    assert tests.outcome(2, "b").figures.accuracy == 0
    assert tests.outcome(1, "a") is None
    assert tests.outcome(2, "other") is None
    assert tests.history == ({"loss": 1.5},)
    for bad, match in ((text.replace('"format": 2', '"format": 9'), "newer canal"), ("{", "does not hold")):
        path.write_text(bad)
        with pytest.raises(RegistryError, match=match):
            read_tests(registry, make_record(1))


def test_options_without_rules_for_labels_are_those_of_the_first_version():
    """It took every label for a type, and wrote nothing of it: an old stage that is replayed has its old file."""
    old = ReadingOptions.model_validate({"labels": "t", "label_map": None, "gene_key": None})
    now = ReadingOptions(labels="t", drop_labels=(), keep_labels=())

    assert (old.label_options().keep, now.label_options().keep) == (("*",), ())
    assert old.model_dump() == {"labels": "t", "label_map": None, "gene_key": None}
    assert ReadingOptions.model_validate(old.model_dump()).label_options() == old.label_options()
    assert ReadingOptions.model_validate(now.model_dump()).label_options() == now.label_options()


def test_a_stage_of_the_first_version_is_asked_for_as_then():
    """Its declaration says nothing of labels that are no types: it is read, and written again, by the rules of then."""
    options = {"overrides": [], "label_map": None, "drop_rare": False, "test": None}
    record = make_record(1, notes=options, data=({"file": "/a.h5ad", "labels": "t", "gene_key_given": None},))

    old = recorded_request(record)
    second = options | {"drop_labels": [], "keep_labels": []}
    later = recorded_request(make_record(1, notes=second, data=record.data))
    now = replace(later, rules=NEWEST)

    assert (old.rules, old.keep_labels) == (ReadingRules.FIRST, ("*",))
    assert recorded_options(old) == options
    assert (later.rules, recorded_options(later)) == (ReadingRules.SPELLING, second)
    assert recorded_options(now) == second | {"reading": 3}
    assert recorded_request(make_record(1, notes=recorded_options(now), data=record.data)) == now
