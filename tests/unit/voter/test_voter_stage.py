"""A workspace that starts from a voter: stage 1 is the voter, what is taught goes over to network and memory."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.special import expit
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.data.genes import Genes
from canal.errors import CanalError, ConfigError, RegistryError, StageError
from canal.model.voter import MOST_TAKEN, Voter, VoterReader, measured_threshold
from canal.registry.pyfunc import StageModel, as_input
from canal.workspace import LoadedVoter, Workspace, import_celltypist, load_model
from tests.learning import QUICK
from tests.make import make_adata
from tests.unit.voter.test_voter import GENES, trained, written

OVERRIDES = [*QUICK, "training.epochs=8"]
ALL = ("B", "NK", "DC", "HSC")  # the voter knows the first three, stage 2 teaches the first and the last


def new_cells(n: int = 120, seed: int = 7) -> ad.AnnData:
    """Return cells of all types."""
    return make_adata(n, GENES, types=ALL, seed=seed, prefix="new")


@pytest.fixture(scope="module")
def voter_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A voter of B, NK and DC."""
    folder = tmp_path_factory.mktemp("voter")
    return import_celltypist(written(folder, trained()), folder / "toy.voter")[1]


@pytest.fixture(scope="module")
def taught(voter_file: Path) -> Workspace:
    """A workspace that started from the voter and was taught B and HSC."""
    workspace = canal.open_workspace(voter_file.parent / "atlas", create=True)
    workspace.start_from(voter_file)
    path = voter_file.parent / "taught.h5ad"
    make_adata(120, GENES, types=("B", "HSC"), seed=5, prefix="taught").write_h5ad(path)
    workspace.add_stage(path, overrides=OVERRIDES)
    return workspace


def test_stage_1_is_the_voter(voter_file: Path, tmp_path: Path) -> None:
    """Its record says so and what it cannot do; it annotates as the voter does, and says so."""
    done = CliRunner().invoke(app, ["init", str(tmp_path / "atlas"), "--from", str(voter_file)])
    assert done.exit_code == 0, done.output
    assert "without statistics: it cannot tell novel cells" in done.stdout.replace("\n", " ")
    done = CliRunner().invoke(app, ["-C", str(tmp_path / "atlas"), "stage", "show", "1", "--json"])
    stage = json.loads(done.stdout)
    assert (stage["number"], stage["parent"], stage["cells"], stage["name"]) == (1, None, 0, "Toy")
    assert stage["notes"]["voter"]["alone"] is True
    assert stage["notes"]["voter"]["cannot"] == ["novelty", "replay", "distillation"]
    workspace = canal.open_workspace(tmp_path / "atlas")
    assert (workspace.stage().types, workspace.bank()["size"]) == (("B", "DC", "NK"), 0)
    assert workspace.verify() == []

    annotation = workspace.annotate(new_cells())
    alone = load_model(voter_file).annotate(new_cells())
    assert annotation.cell_type.tolist() == alone.cell_type.tolist()
    assert (annotation.confidence == alone.confidence).all()
    assert annotation.facts["stage"] == 1
    assert "cannot tell" in annotation.facts["warnings"][-1]


def test_what_is_taught_goes_over_and_the_rest_stays(taught: Workspace, voter_file: Path) -> None:
    """B and HSC are answered by what was taught, NK and DC by the voter with its probability; the record says so."""
    record, model = taught.stage(), taught.model()
    assert (record.number, record.parent, record.types, record.new_types) == (2, 1, ("B", "HSC"), ("HSC",))
    assert record.notes["voter"] == {
        "name": "Toy",
        "digest": model.voter.description["source_digest"],
        "types": ["DC", "NK"],
        "alone": False,
        "cannot": ["novelty", "replay", "distillation"],
    }
    assert model.answers == ("B", "HSC", "DC", "NK")
    cells = new_cells()
    annotation = taught.annotate(cells)
    truth = cells.obs["cell_type"].to_numpy(str)
    assert (annotation.cell_type == truth).mean() > 0.95
    voted = annotation.columns["source"] == "voter"
    assert set(annotation.cell_type[voted]) == {"DC", "NK"}
    assert set(annotation.cell_type[~voted]) == {"B", "HSC"}
    alone = load_model(voter_file).annotate(cells)
    assert (annotation.confidence[voted] == alone.confidence[voted]).all()
    # Novelty is not told of the voter's types.
    assert set(annotation.columns["status"][voted]) == {"uncertain"}
    assert annotation.facts["voter"]["types"] == ["DC", "NK"]
    assert any("nobody taught, answered by the voter Toy" in text for text in annotation.facts["warnings"])
    # The answers count in the figures.
    evaluation = taught.evaluate(cells)
    assert evaluation.accuracy == (annotation.cell_type == truth).mean()
    assert evaluation.unknown_types == ()


def test_adding_a_stage_says_what_the_voter_reached(taught: Workspace) -> None:
    """What the model in use answers on the new labelled cells, before it learns them, is the voter's answer."""
    metrics = taught.stage(2).metrics
    assert metrics["incoming_cells"] == 60  # of B; HSC the voter does not know
    assert metrics["incoming_accuracy"] > 0.9
    assert "incoming_false_alarms" not in metrics


def test_a_cell_gets_the_same_answer_in_any_block(taught: Workspace) -> None:
    """All cells at once, and some of them."""
    cells = new_cells()
    whole, some = taught.annotate(cells), taught.annotate(cells[10:25].copy())
    assert whole.cell_type[10:25].tolist() == some.cell_type.tolist()
    assert (whole.confidence[10:25] == some.confidence).all()


def test_a_choice_of_types_silences_the_voter(taught: Workspace) -> None:
    """Only taught types can be named."""
    annotation = taught.annotate(new_cells(), types=["B"])
    assert set(annotation.cell_type) == {"B"}
    assert "source" not in annotation.columns
    with pytest.raises(StageError, match="does not know the types 'NK'"):
        taught.annotate(new_cells(), types=["NK"])


def test_columns_of_an_earlier_answer_do_not_stay(taught: Workspace) -> None:
    """Who answered a cell is removed where the next answer does not say it."""
    cells = new_cells()
    annotated = taught.annotate(cells).to_adata(cells)
    assert "canal_source" in annotated.obs
    again = taught.annotate(cells, types=["B"]).to_adata(annotated)
    assert "canal_source" not in again.obs


def test_an_export_takes_the_voter_along(taught: Workspace, tmp_path: Path) -> None:
    """The same answers without a workspace; a voter alone is exported and imported as one."""
    cells = new_cells()
    taught.export(tmp_path / "two.canal", 2)
    answer = load_model(tmp_path / "two.canal").annotate(cells)
    assert answer.cell_type.tolist() == taught.annotate(cells).cell_type.tolist()
    taught.export(tmp_path / "one.canal", 1)
    assert isinstance(load_model(tmp_path / "one.canal"), LoadedVoter)
    other = canal.open_workspace(tmp_path / "other", create=True)
    assert other.start_from(tmp_path / "one.canal").is_voter
    assert other.annotate(cells).cell_type.tolist() == taught.annotate(cells, stage=1).cell_type.tolist()


def test_mlflow_is_told_the_same(taught: Workspace) -> None:
    """The wrapped model answers by voter and memory as `annotate` does; a voter alone does, too."""
    cells = new_cells(40)
    table = as_input(pd.DataFrame(cells.X.toarray().astype(int), columns=cells.var_names, index=cells.obs_names))
    for stage in (1, 2):
        answer = StageModel(taught._read_model(stage, voter_alone=True)).predict(table)
        expected = taught.annotate(cells, stage=stage)
        assert answer["cell_type"].tolist() == expected.cell_type.tolist()
        assert np.abs(answer["confidence"].to_numpy() - expected.confidence).max() < 1e-6


def test_going_back_to_the_voter(taught: Workspace) -> None:
    """It is a stage like others: rolled back to, and left again."""
    assert taught.rollback().record.number == 1
    try:
        assert taught.annotate(new_cells()).facts["stage"] == 1
    finally:
        taught.promote(2)


@pytest.mark.parametrize("asked", ["evaluate", "markers", "check_panel", "explain", "check_file"])
def test_what_a_voter_alone_cannot_is_refused(taught: Workspace, asked: str) -> None:
    """One message that says what to do."""
    calls: dict[str, Any] = {
        "evaluate": lambda: taught.evaluate(new_cells(), stage=1),
        "markers": lambda: taught.markers(stage=1),
        "check_panel": lambda: taught.check_panel(["GENE1"], stage=1),
        "explain": lambda: taught.explain(stage=1),
        "check_file": lambda: taught.check_file(new_cells(), stage=1),
    }
    with pytest.raises(RegistryError, match=r"Stage 1 \(Toy\) is a voter alone: .* canal stage add"):
        calls[asked]()


def test_other_options_are_refused_by_a_voter_alone(taught: Workspace) -> None:
    """As by the voter itself."""
    with pytest.raises(ConfigError, match="cannot follow --alpha"):
        taught.annotate(new_cells(), stage=1, alpha=0.1)


def test_a_voter_is_not_removed(taught: Workspace) -> None:
    """No cell taught it."""
    with pytest.raises(StageError, match="it is a voter, which no cell taught"):
        taught.remove(1)


def test_a_pickle_or_a_workspace_in_use_is_refused(taught: Workspace, voter_file: Path, tmp_path: Path) -> None:
    """The pickle has to be imported first; nothing is written."""
    pickle = voter_file.parent / "Toy.pkl"
    done = CliRunner().invoke(app, ["init", str(tmp_path / "atlas"), "--from", str(pickle)])
    assert done.exit_code == 2
    assert "canal models import-celltypist" in done.stderr
    assert not (tmp_path / "atlas").exists()
    with pytest.raises(ConfigError, match="has stages already"):
        taught.start_from(voter_file)
    (tmp_path / "bad.voter").write_bytes(b"no voter")
    done = CliRunner().invoke(app, ["init", str(tmp_path / "atlas"), "--from", str(tmp_path / "bad.voter")])
    assert done.exit_code == 2
    assert not (tmp_path / "atlas").exists()


def test_renamed_types_are_not_answered_by_the_voter(taught: Workspace, voter_file: Path) -> None:
    """B is called otherwise: the voter, which knows it as B, does not bring the old name back."""
    taught.rename_type("B", "B lymphocyte")
    try:
        annotation = taught.annotate(new_cells())
        assert set(annotation.cell_type) == {"B lymphocyte", "NK", "DC", "HSC"}
        assert taught.stage().notes["voter"]["types"] == ["DC", "NK"]
        # Bit for bit the same from the declarations, the voter's file and the cells.
        declarations = voter_file.parent / "declarations"
        declarations.mkdir()
        for path in (*sorted((voter_file.parent / "atlas" / "stages").glob("*.toml")), voter_file):
            (declarations / path.name).write_bytes(path.read_bytes())
        assert taught.replay(out=voter_file.parent / "again", declarations=declarations).identical
    finally:
        taught.promote(2)


# The rule, beside its formula.


def toy_voter(**changes: Any) -> Voter:
    """Return a voter of three types on three genes, each type the value of its gene."""
    voter = Voter(
        name="toy",
        types=("a", "b", "c"),
        genes=("G0", "G1", "G2"),
        weights=np.eye(3),
        intercept=np.zeros(3),
        mean=np.zeros(3),
        scale=np.ones(3),
        description={},
    )
    return replace(voter, **changes)


SCORES = np.array([[3.0, -2.0, 1.0], [0.5, 4.0, 0.2], [-3.0, -1.0, 5.0], [0.1, 0.2, 0.3]])
TAUGHT = np.array([[0.9, 0.1], [0.2, 0.8], [0.99, 0.01], [0.6, 0.4]])
GENES_OF_TOY = Genes.of(("G0", "G1", "G2"))


def test_voter_and_taught_types_are_compared_through_those_that_both_know() -> None:
    """P(b or c by the voter) / P(a by the voter) * P(a, as taught)."""
    reader = VoterReader(toy_voter(), ("a", "x"), GENES_OF_TOY)
    assert reader.names == ("b", "c")
    by_itself = expit(SCORES)
    expected = by_itself[:, 1:].sum(axis=1) / by_itself[:, 0] * TAUGHT[:, 0]
    odds = reader.log_odds(sp.csr_matrix(SCORES), TAUGHT)
    assert np.allclose(odds, np.log(expected), rtol=1e-6, atol=1e-6)
    votes = reader.votes(sp.csr_matrix(SCORES), TAUGHT)
    assert (expected > 1).tolist() == [False, False, True, True]
    assert votes.types.tolist() == [-1, -1, 2, 2]
    assert votes.confidence[2] == pytest.approx(expit(5.0))
    assert votes.confidence[0] == 0


def test_without_a_type_in_common_the_voters_own_odds_count() -> None:
    """A type answers that the voter holds for likelier than not."""
    votes = VoterReader(toy_voter(), ("x", "y"), GENES_OF_TOY).votes(sp.csr_matrix(SCORES[2:] - 0.25), TAUGHT[2:])
    assert votes.types.tolist() == [2, 2]
    assert VoterReader(toy_voter(), ("x",), GENES_OF_TOY).votes(sp.csr_matrix(-SCORES[3:]), TAUGHT[3:]).types == [-1]


def test_a_voter_whose_types_are_all_taught_is_silent() -> None:
    """So is one of whose genes a file measures none."""
    assert not VoterReader(toy_voter(), ("a", "b", "c"), GENES_OF_TOY).speaks
    assert not VoterReader(toy_voter(), ("a",), Genes.of(("other",))).speaks
    assert VoterReader(toy_voter(), ("a",), GENES_OF_TOY).speaks


def test_few_held_out_cells_are_taken_from_the_taught_types() -> None:
    """The threshold is what `MOST_TAKEN` of the held-out cells of taught types exceed at most."""
    rng = np.random.default_rng(0)
    values = sp.csr_matrix(rng.normal(1.0, 2.0, (500, 3)))
    taught = np.tile([[0.7, 0.3]], (500, 1))
    free = VoterReader(toy_voter(), ("a", "x"), GENES_OF_TOY)
    assert (free.votes(values, taught).types >= 0).mean() > 0.2
    strict = toy_voter().with_stage(4, measured_threshold(free, values, taught))
    taken = VoterReader(strict, ("a", "x"), GENES_OF_TOY).votes(values, taught).types
    assert 0 < (taken >= 0).mean() <= MOST_TAKEN
    assert strict.threshold > 0
    # Where the voter makes no such mistake, its types have to be likelier than the taught ones, and no more.
    assert toy_voter().with_stage(1, -3.0).threshold == 0
    assert strict.without_stage(4).threshold == 0
    assert strict.with_stage(5, 99.0).threshold == 99


def test_names_follow_renaming_and_merging() -> None:
    """As often as types are renamed; two types of the voter can get one name."""
    voter = toy_voter().with_names({"a": "first"}).with_names({"first": "one", "c": "b"})
    assert voter.named == ("one", "b", "b")
    assert voter.untaught(("one",)) == ("b",)
    assert voter.with_names({"one": "a"}).renamed == {"c": "b"}


def test_what_stages_added_is_kept(tmp_path: Path) -> None:
    """Thresholds and names stand in the file; what does not fit is refused."""
    voter = toy_voter().with_stage(3, 1.5).with_names({"a": "A"})
    voter.save(tmp_path / "toy.voter")
    loaded = Voter.load(tmp_path / "toy.voter")
    assert (loaded.thresholds, loaded.renamed) == ({3: 1.5}, {"a": "A"})
    for changes in ({"thresholds": {1: float("nan")}}, {"renamed": {"z": "a"}}):
        with pytest.raises(CanalError, match="cannot be used"):
            toy_voter(**changes)
