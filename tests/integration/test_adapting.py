"""`--adapt`: the file's own cells help to answer, or a reason is given why they do not."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import ConfigError, DataError
from canal.workspace import Workspace
from tests.make import make_adata

TYPES = ("B", "NK", "HSC", "DC")
QUICK = ("training.epochs=2", "training.min_steps=30", "bank.size=60")


def other_technology(n: int = 700, seed: int = 5, *, times: int = 12) -> ad.AnnData:
    """Return cells whose genes are captured otherwise: a third of them twelve times as often, or more."""
    cells = make_adata(n, 120, types=TYPES, seed=seed)
    factor = np.where(np.random.default_rng(0).random(120) < 0.33, times, 1)
    cells.X = cells.X.multiply(factor).tocsr() if hasattr(cells.X, "multiply") else cells.X * factor
    cells.X = cells.X.astype(np.float32)
    return cells


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace that was taught one technology."""
    root = tmp_path_factory.mktemp("adapt")
    make_adata(600, 120, types=TYPES, seed=1).write_h5ad(root / "first.h5ad")
    workspace = canal.open_workspace(root / "w", create=True)
    workspace.add_stage(root / "first.h5ad", labels="cell_type", overrides=QUICK)
    return workspace


def test_it_says_what_was_estimated_and_is_the_same_twice(workspace: Workspace, tmp_path: Path) -> None:
    """Facts go into uns and JSON; the same file gets the same bits."""
    cells = other_technology()

    first = workspace.annotate(cells, adapt=True, out=tmp_path / "a.h5ad")
    second = workspace.annotate(cells, adapt=True)

    facts = first.facts["adapted"]
    assert facts["held_back"] == [""]
    assert facts["groups"] == ["all cells"]
    assert facts["unlike"][0] > 0.1
    np.testing.assert_array_equal(first.confidence, second.confidence)
    json.dumps(facts)
    written = ad.read_h5ad(tmp_path / "a.h5ad").uns["canal"]["adapted"]
    assert written["unlike"][0] == pytest.approx(facts["unlike"][0])
    plain = workspace.annotate(cells)
    assert "adapted" not in plain.facts
    assert (plain.confidence != first.confidence).any()


def test_batches_are_adapted_to_each_for_itself(workspace: Workspace) -> None:
    """Those with enough cells; the others together. A column that names every cell is one batch."""
    cells = other_technology()
    cells.obs["lane"] = ["a"] * 300 + ["b"] * 300 + ["c"] * 100
    cells.obs["own"] = [f"cell {i}" for i in range(700)]

    lanes = workspace.annotate(cells, adapt=True, batch="lane").facts["adapted"]
    own = workspace.annotate(cells, adapt=True, batch="own")

    assert lanes["groups"] == ["a", "b", "batches of few cells"]
    assert lanes["cells"] == [300, 300, 100]
    assert "100 cells" in lanes["held_back"][2]
    assert own.facts["adapted"]["groups"] == ["all cells"]
    np.testing.assert_array_equal(own.confidence, workspace.annotate(cells, adapt=True).confidence)


def test_a_batch_gets_what_it_gets_alone(workspace: Workspace) -> None:
    """Two lanes in one file are answered as in files of their own, up to rounding."""
    cells = other_technology()
    cells.obs["lane"] = ["a"] * 350 + ["b"] * 350

    both = workspace.annotate(cells, adapt=True, batch="lane")
    alone = workspace.annotate(cells[:350].copy(), adapt=True, batch="lane")

    # The halves are drawn otherwise, so that single cells may be answered otherwise.
    assert (both.cell_type[:350] == alone.cell_type).mean() > 0.97


@pytest.mark.parametrize(("cells", "reason"), [(50, "50 cells; 250"), (249, "249 cells; 250")])
def test_few_cells_get_the_plain_answer(workspace: Workspace, cells: int, reason: str) -> None:
    """With the reason."""
    few = other_technology()[:cells].copy()

    found = workspace.annotate(few, adapt=True)

    assert reason in found.facts["adapted"]["held_back"][0]
    plain = workspace.annotate(few)
    np.testing.assert_array_equal(found.cell_type, plain.cell_type)
    np.testing.assert_array_equal(found.confidence, plain.confidence)


def test_known_technology_gets_the_plain_answer(workspace: Workspace) -> None:
    """Cells like those taught are not adapted to."""
    same = make_adata(600, 120, types=TYPES, seed=7)

    found = workspace.annotate(same, adapt=True)

    assert "like those taught" in found.facts["adapted"]["held_back"][0]
    np.testing.assert_array_equal(found.confidence, workspace.annotate(same).confidence)


def test_verdicts_of_another_technology_say_that_they_are_not_calibrated(workspace: Workspace, tmp_path: Path) -> None:
    """Known cells look new there; the file's own bulk is taken into account, and said."""
    cells = other_technology()

    plain, adapted = workspace.annotate(cells), workspace.annotate(cells, adapt=True, out=tmp_path / "a.h5ad")
    same = workspace.annotate(make_adata(600, 120, types=TYPES, seed=7))
    few = workspace.annotate(make_adata(8, 120, types=TYPES, seed=7))

    assert (plain.facts["calibrated_for"], same.facts["calibrated_for"]) == ("no", "yes")
    assert few.facts["calibrated_for"] in {"unknown", "no"}
    assert plain.facts["unlike"] == adapted.facts["unlike"] > 0.1 > same.facts["unlike"]
    assert plain.facts["unlike_stages"]["1"] > 0.1 > same.facts["unlike_stages"]["1"]
    assert ad.read_h5ad(tmp_path / "a.h5ad").uns["canal"]["calibrated_for"] == "no"
    assert adapted.facts["adapted"]["novelty_shift"][0] > 0
    # A few of the same cells are judged each by itself, and look newer.
    alone = workspace.annotate(cells[:200].copy())
    assert (alone.facts["novelty_shift"], same.facts["novelty_shift"]) == (0.0, 0.0)
    assert plain.facts["novelty_shift"] > 0
    np.testing.assert_array_equal(plain.columns["novelty"][:200], alone.columns["novelty"])
    assert (plain.columns["p_value"][:200] >= alone.columns["p_value"]).all()
    novel = [(a.columns["status"][:200] == "novel").mean() for a in (alone, plain, adapted)]
    assert novel[0] > novel[1] >= novel[2]


def test_bad_options_are_clear(workspace: Workspace) -> None:
    """A batch without --adapt, and a column that is not there."""
    with pytest.raises(ConfigError, match="Add --adapt"):
        workspace.annotate(other_technology(), batch="lane")
    with pytest.raises(DataError, match=r"no column obs\['lane'\]"):
        workspace.annotate(other_technology(), adapt=True, batch="lane")


def test_a_model_of_another_rule_says_so(tmp_path: Path) -> None:
    """Models that answer by the sum, or without a memory, cannot be adapted."""
    make_adata(200, 120, types=TYPES, seed=1).write_h5ad(tmp_path / "first.h5ad")
    for name, setting in (("sum", "analytic.rule=sum"), ("none", "analytic.enabled=false")):
        workspace = canal.open_workspace(tmp_path / name, create=True)
        workspace.add_stage(tmp_path / "first.h5ad", labels="cell_type", overrides=(*QUICK, setting))

        found = workspace.annotate(other_technology(), adapt=True)

        assert "does not answer by discriminants" in found.facts["adapted"]["held_back"][0]


def test_the_commands_take_it(workspace: Workspace, tmp_path: Path) -> None:
    """annotate, evaluate and novel find; a line says what was done."""
    other_technology().write_h5ad(tmp_path / "new.h5ad")
    scored = workspace.evaluate(tmp_path / "new.h5ad", labels="cell_type", adapt=True)
    grouped = workspace.find_novel(tmp_path / "new.h5ad", tmp_path / "novel", adapt=True)

    assert scored.to_dict()["adapted"]["held_back"] == [""]
    assert "adapted" not in workspace.evaluate(tmp_path / "new.h5ad", labels="cell_type").to_dict()
    assert grouped.cells == 700
    line = ["-C", workspace.layout.root, "annotate", "--data", tmp_path / "new.h5ad", "--out", tmp_path / "a.h5ad"]
    done = CliRunner().invoke(app, [*map(str, line), "--adapt"])
    assert "all cells, 700 cells, adapted:" in done.output
    assert "novelty is not calibrated for this file" in done.output
    assert any("Novelty is not calibrated for this file" in warning for warning in grouped.warnings)


def test_the_doctor_says_how_far_a_file_is_before_it_is_annotated(workspace: Workspace, tmp_path: Path) -> None:
    """Cells like those taught, another technology, and few of the genes; on the terminal and as JSON."""
    same = workspace.check_file(make_adata(600, 120, types=TYPES, seed=7))
    other = workspace.check_file(other_technology(times=50))
    few = workspace.check_file(make_adata(600, 120, types=TYPES, seed=7)[:, :30].copy())

    assert (same.expected, other.expected, few.expected) == ("as tested", "lower", "doubtful")
    assert (same.cells, same.looked_at, same.scale) == (600, 512, "counts")
    assert same.unlike is not None
    assert other.unlike is not None
    assert same.unlike < 0.1 < other.unlike
    assert (same.nearest_stage, few.measured_genes) == ("1", 30)
    assert any("30 of the" in text for text in few.warnings)
    other_technology(times=50).write_h5ad(tmp_path / "new.h5ad")
    line = ["-C", str(workspace.layout.root), "doctor", "--data", str(tmp_path / "new.h5ad")]
    shown = CliRunner().invoke(app, line)
    answer = json.loads(CliRunner().invoke(app, [*line, "--json"]).stdout)
    assert "expected: lower; the cells are of a technology" in " ".join(shown.output.split())
    assert answer["unlike_stages"] == other.unlike_stages
    refused = CliRunner().invoke(app, ["-C", str(workspace.layout.root), "doctor", "--stage", "1"])
    assert refused.exit_code == 2
    assert "--data" in refused.output
