"""Models to give away: built from a declaration, the same bytes each time, without a cell of anybody."""

import zipfile
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from benchmarks.starter import build, read_declaration, read_stages
from canal.errors import ConfigError
from canal.registry.shipped import CARD
from canal.workspace import describe_model, load_model
from tests.make import make_adata

ROOT = Path(__file__).parents[3]
SETS = ", ".join(
    f'"{value}"'
    for value in (
        "training.epochs=1",
        "training.min_steps=0",
        "analytic.pseudo_cells=20",
        "encoder.hidden=16",
        "encoder.dim=8",
    )
)
TEXT = f"""
schema = 1
name = "toy"
title = "Toy cells"
tissue = "none"
species = "none"
licence = "free"
created = "2026-01-01T00:00:00+00:00"
labels = "cell_type"
preset = "compact"
seed = 0
set = [{SETS}]
limits = ["It knows toys alone."]
[types]
"B" = {{ id = "CL:0000236", label = "B cell" }}
"NK" = {{ id = "CL:0000623", label = "natural killer cell" }}
"HSC" = {{ id = "CL:0008001", label = "hematopoietic precursor cell" }}
[[stage]]
name = "one"
files = ["one.train.h5ad", "one.test.h5ad"]
source = "made up"
accession = "A1"
[[stage]]
name = "two"
files = ["two.h5ad"]
source = "made up, too"
accession = "A2"
from = "somebody"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a declaration and its files; data set two has two HSC, which are too few to teach."""
    folder = tmp_path_factory.mktemp("starter")
    (folder / "toy.toml").write_text(TEXT)
    make_adata(60, types=("B", "NK"), prefix="DONOR_ANNA_", seed=1).write_h5ad(folder / "one.train.h5ad")
    make_adata(30, types=("B", "NK"), prefix="DONOR_ANNA_", seed=2).write_h5ad(folder / "one.test.h5ad")
    few = make_adata(2, types=("HSC",), prefix="DONOR_BERT_", seed=3)
    ad.concat([make_adata(60, types=("B", "NK"), prefix="DONOR_BERT", seed=4), few]).write_h5ad(folder / "two.h5ad")
    return folder


@pytest.fixture(scope="module")
def built(folder: Path) -> Path:
    """Return the model of the declaration."""
    path = folder / "toy.canal"
    build(read_declaration(folder / "toy.toml"), folder, path)
    return path


def test_two_builds_are_the_same_bytes(folder: Path, built: Path) -> None:
    """Nothing in the file depends on when or where it was built."""
    build(read_declaration(folder / "toy.toml"), folder, folder / "again.canal")
    assert (folder / "again.canal").read_bytes() == built.read_bytes()


def test_no_cell_no_name_and_no_path_is_inside(folder: Path, built: Path) -> None:
    """The bank is empty; the names of the cells, and where the files lay, stand nowhere."""
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
        content = b"".join(archive.read(name) for name in names)
    assert "model/bank.safetensors" not in names
    assert b"DONOR" not in content
    assert str(folder).encode() not in content
    assert b"/tmp" not in content
    assert b".h5ad" not in content


def test_a_type_of_few_cells_is_not_taught(built: Path) -> None:
    """The mean of two cells would nearly be a cell."""
    facts = describe_model(built)
    assert sorted(facts["types"]) == ["B", "NK"]
    assert facts["cells"] == 150
    assert facts["card"]["sources"][1]["types"] == {"B": 30, "NK": 30}


def test_the_card_says_what_it_is_and_how_well_it_does(built: Path) -> None:
    """Types with ids and cells, sources, each data set left out, plain and adapted, and the limits."""
    card = describe_model(built)[CARD]
    assert card["types"]["B"] == {"id": "CL:0000236", "label": "B cell", "cells": 75}
    assert [source["accession"] for source in card["sources"]] == ["A1", "A2"]
    assert card["sources"][1]["from"] == "somebody"
    assert [row["name"] for row in card["left_out"]] == ["one", "two"]
    for row in card["left_out"]:
        assert 0.8 < row["plain"]["accuracy"] <= 1
        assert 0.8 < row["adapt"]["accuracy"] <= 1
    assert card["left_out"][1]["not_taught"] == {"HSC": 2}
    assert card["mean"]["plain"]["accuracy"] == pytest.approx(
        np.mean([row["plain"]["accuracy"] for row in card["left_out"]]), abs=1e-4
    )
    assert card["limits"] == ["It knows toys alone."]


def test_it_annotates_and_tells_novel_types_without_a_bank(built: Path) -> None:
    """Taught types are named and mostly known; cells of a type nobody taught are novel more often."""
    cells = make_adata(90, types=("B", "NK", "MK"), prefix="new", seed=9)
    annotation = load_model(built).annotate(cells)
    truth = cells.obs["cell_type"].astype(str).to_numpy()
    taught = truth != "MK"
    assert (annotation.cell_type[taught] == truth[taught]).mean() > 0.9
    novel = annotation.columns["novelty"]
    assert np.median(novel[~taught]) > np.quantile(novel[taught], 0.8)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('files = ["two.h5ad"]', 'files = ["three.h5ad"]', "no file three.h5ad.*--data"),
        ('"NK" = {', '"NKT" = {', "types NK; give each an id"),
        ('labels = "cell_type"', 'labels = "celltype"', "no column obs.'celltype'"),
        ("CL:0000236", "B cells", "types.B.id"),
        ("seed = 0", "sead = 0", "sead"),
        ("schema = 1", "schema 1", "TOML"),
    ],
)
def test_a_declaration_that_does_not_fit_says_so(folder: Path, tmp_path: Path, old: str, new: str, says: str) -> None:
    """One message that names what was found."""
    path = tmp_path / "toy.toml"
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ConfigError, match=says):
        read_stages(read_declaration(path), folder)


def test_the_shipped_declaration_fits() -> None:
    """And says which files are missing."""
    with pytest.raises(ConfigError, match=r"no file 1_zheng_facs\.train\.h5ad"):
        read_stages(read_declaration(ROOT / "stages/starter/blood.toml"), ROOT / "stages")
