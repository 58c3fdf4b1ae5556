"""A file with Ensembl ids alone meets a model of symbols, and the other way round."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.data.symbols.translation import symbol_table
from canal.workspace import Workspace
from tests.labs import add
from tests.make import make_adata

WORDS = ("B", "NK", "CD4 T")
IDS, SYMBOLS = zip(*list(symbol_table("human").symbols.items())[:60], strict=True)


def cells(names: tuple[str, ...], seed: int) -> ad.AnnData:
    """Return toy cells whose genes have these names; the same cells for the same seed."""
    return make_adata(90, 60, types=WORDS, genes=names, prefix=f"c{seed}-", seed=seed)


@pytest.fixture(scope="module")
def blood(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace that learned symbols first and ids then."""
    workspace = canal.open_workspace(tmp_path_factory.mktemp("blood") / "ws", create=True)
    add(workspace, cells(SYMBOLS, 1))
    result = add(workspace, cells(IDS, 2))
    assert any("60 of 60 Ensembl ids were read as gene symbols" in text for text in result.warnings)
    return workspace


def test_the_panel_stays_one_of_symbols(blood):
    """The genes of the second file are those of the first."""
    assert set(blood.model().panel.genes) == {symbol.upper() for symbol in SYMBOLS}


def test_ids_get_the_answer_of_symbols(blood, tmp_path: Path):
    """The same cells under either name: the same bits, and the person is told how many names were translated."""
    cells(IDS, 7).write_h5ad(tmp_path / "ids.h5ad")
    words = ["annotate", "--data", str(tmp_path / "ids.h5ad"), "--out", str(tmp_path / "a.h5ad")]

    shown = CliRunner().invoke(app, ["-C", str(blood.root), *words]).output
    told = json.loads(CliRunner().invoke(app, ["-C", str(blood.root), *words, "--overwrite", "--json"]).stdout)

    assert "60 of 60 Ensembl ids were read as gene symbols by the table of GENCODE 48" in " ".join(shown.split())
    assert (told["translated_genes"], told["measured_genes"]) == (60, 60)
    expected = blood.annotate(cells(SYMBOLS, 7))
    assert expected.facts["translated_genes"] == 0
    found = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(found.obs["canal_confidence"], expected.confidence)
    assert list(found.obs["canal_cell_type"]) == list(expected.cell_type)
    assert list(found.var_names) == list(IDS)
