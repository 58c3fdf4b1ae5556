"""The models that come with canal: named without a path, statistics only, the first stage of who wants it."""

import json
import zipfile
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import ConfigError
from canal.registry.package import open_package
from canal.registry.shipped import CARD, model_file, shipped_models
from canal.workspace import describe_model, load_model
from tests.make import make_adata

MOST_BYTES = 6_000_000


def run(*words: object) -> tuple[int, dict]:
    """Run a command line; return exit code and JSON."""
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    return result.exit_code, json.loads(result.stdout)


def blood_cells(n: int = 60, extra: int = 0) -> ad.AnnData:
    """Return made-up cells of two types that blood knows by name, on genes of the blood model."""
    genes = list(load_model("blood").model().panel.genes.names[:900])
    return make_adata(n, types=("B", "NK"), genes=genes, seed=extra, prefix=f"c{extra}_")


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Return a workspace that began with blood, and the answer of the command that made it."""
    folder = tmp_path_factory.mktemp("shipped") / "mine"
    code, answer = run("init", folder, "--from", "blood")
    assert code == 0
    return folder, answer


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_model_is_small_and_holds_no_cell(name: str) -> None:
    """At most 6 MB, an empty bank, and a card that says what it is, of what it was made and what it cannot tell."""
    path = model_file(name)
    assert path.stat().st_size <= MOST_BYTES
    with zipfile.ZipFile(path) as archive:
        assert "model/bank.safetensors" not in archive.namelist()
    with open_package(path) as package:
        model, record = package.load(), package.record
    assert len(model.bank) == 0
    assert record.bank["size"] == 0
    card = record.notes[CARD]
    assert set(card["types"]) == set(model.types)
    assert all(entry["id"].startswith("CL:") and entry["cells"] >= 10 for entry in card["types"].values())
    assert all(source["accession"] and source["source"] for source in card["sources"])
    assert len(card["left_out"]) == len(card["sources"]) == len(record.data)
    assert card["limits"]
    # Every statistic is of ten cells at least, and no file of anybody is named.
    assert model.memory is not None
    assert min(statistics.n for statistics in model.memory.statistics) >= 10
    assert ".h5ad" not in record.to_json()
    assert all(source["file"] is None for source in record.data)


def test_models_show_prints_the_card() -> None:
    """As text and as JSON; an export that nobody wrote a card for has types and sizes."""
    shown = CliRunner().invoke(app, ["models", "show", "blood"]).stdout
    assert "CL:0000236" in shown
    assert "SRP073767" in shown
    assert "no cell kept" in shown
    mean = describe_model("blood")["card"]["mean"]["adapt"]["accuracy"]
    assert any(line.startswith("mean") and f"{mean:.3f}" in line for line in shown.splitlines())
    code, facts = run("models", "show", "blood")
    assert code == 0
    assert facts["card"]["mean"]["plain"]["accuracy"] > 0.7
    assert facts["bytes"] <= MOST_BYTES


def test_blood_annotates_without_a_workspace(tmp_path: Path) -> None:
    """Novelty is judged, although there is no bank; nothing else is written."""
    blood_cells().write_h5ad(tmp_path / "new.h5ad")
    code, answer = run("annotate", "--model", "blood", "--data", tmp_path / "new.h5ad", "--out", tmp_path / "out.h5ad")
    assert code == 0
    assert answer["model"] == "blood"
    assert sum(answer["status"].values()) == 60
    assert set(answer["unlike_stages"]) == {"1", "2", "3", "4"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.h5ad", "out.h5ad"]


def test_an_unknown_model_is_one_message(tmp_path: Path) -> None:
    """It names what there is; nothing is written."""
    blood_cells().write_h5ad(tmp_path / "new.h5ad")
    code, answer = run("annotate", "--model", "bloot", "--data", tmp_path / "new.h5ad", "--out", tmp_path / "out.h5ad")
    assert code == 2
    assert "no model 'bloot'" in answer["error"]
    assert "blood" in answer["error"]
    assert not (tmp_path / "out.h5ad").exists()


def test_a_file_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file called blood in the current folder is what was asked for; a folder is not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blood").mkdir()
    assert model_file("blood") == shipped_models()["blood"]
    (tmp_path / "blood").rmdir()
    (tmp_path / "blood").write_bytes(shipped_models()["blood"].read_bytes())
    assert model_file("blood") == Path("blood")


def test_blood_is_the_first_stage_of_who_wants_it(mine: tuple[Path, dict]) -> None:
    """`canal init --from blood`, and the next stage is learned on top of it with the default preset."""
    folder, answer = mine
    assert (answer["stage"]["number"], answer["stage"]["name"]) == (1, "blood")
    workspace = canal.open_workspace(folder)
    assert workspace.champion() == 1
    assert workspace.stage(1).notes[CARD] == describe_model("blood")["card"]
    shown = CliRunner().invoke(app, ["-C", str(folder), "stage", "show", "1"]).stdout
    assert "zheng, values: counts; pbmc3k, values: counts" in shown

    cells = blood_cells(extra=1)
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str).replace("NK", "Plasma")
    quick = ("training.epochs=1", "training.min_steps=0", "analytic.pseudo_cells=50")
    result = workspace.add_stage(cells, labels="cell_type", overrides=quick)
    assert (result.stage, tuple(result.new_types)) == (2, ("Plasma",))
    assert len(workspace.model(2).types) == 10


def test_init_from_refuses_what_it_cannot_start_with(tmp_path: Path, mine: tuple[Path, dict]) -> None:
    """An unknown model leaves no folder; a workspace that has stages stays as it is."""
    code, answer = run("init", tmp_path / "none", "--from", "lung")
    assert code == 2
    assert "no model 'lung'" in answer["error"]
    assert not (tmp_path / "none").exists()

    code, answer = run("init", mine[0], "--from", "blood")
    assert code == 2
    assert "has stages already" in answer["error"]
    with pytest.raises(ConfigError, match="start of a new workspace"):
        canal.open_workspace(mine[0]).start_from("blood")


@pytest.mark.shared_data
def test_blood_knows_the_cells_that_taught_it(streams: Path) -> None:
    """It was taught these, so that this is no measure of accuracy: the file that is shipped is the one that was built.

    Cells that taught it are known, all but the share of false alarms that calibration without a bank leaves.
    """
    cells = ad.read_h5ad(streams / "immune" / "2_pbmc3k.test.h5ad")
    annotation = load_model("blood").annotate(cells)
    assert (annotation.cell_type == cells.obs["cell_type"].astype(str).to_numpy()).mean() > 0.9
    assert (annotation.columns["status"] == "novel").mean() < 0.15


@pytest.mark.shared_data
def test_blood_finds_cells_that_are_no_blood(streams: Path) -> None:
    """Pancreas is novel: without a bank, by statistics alone."""
    cells = ad.read_h5ad(streams / "pancreas" / "1_baron_human.test.h5ad")
    annotation = load_model("blood").annotate(cells)
    assert np.mean(annotation.columns["status"] == "novel") > 0.9


def test_one_line_annotates(tmp_path: Path) -> None:
    """`canal.annotate` gives back annotated cells, a copy or the very ones, by a model that is named or a workspace."""
    adata = blood_cells(30)

    annotated = canal.annotate(adata, model="blood")
    with_prefix = canal.annotate(adata, model="blood", inplace=True, key_added="mine")

    assert with_prefix is adata
    assert list(adata.obs["mine_cell_type"]) == list(annotated.obs["canal_cell_type"])
    assert "canal_cell_type" not in adata.obs
    with pytest.raises(ConfigError, match="liver"):
        canal.annotate(adata, model="liver")
    with pytest.raises(canal.CanalError, match="is a file; expected an AnnData"):
        canal.annotate(tmp_path / "cells.h5ad")  # type: ignore[arg-type]
