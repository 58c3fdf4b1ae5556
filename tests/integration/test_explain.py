"""`canal explain`: from stages of either kind to genes, pictures and gene sets."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.data.genes import Genes
from canal.data.values import unit_rows
from canal.explain.files import enriched
from tests.commands import run
from tests.make import make_adata

TAUGHT = ("B", "CD4 T", "CD8 T")  # toy type k has genes 8k to 8k + 7 as markers
QUICK = ("training.epochs=2", "training.min_steps=20", "bank.size=30", "analytic.pseudo_cells=20")
PERFORMER = (
    "encoder.dim=20", "encoder.depth=2", "encoder.heads=2", "encoder.dim_head=8", "encoder.hidden=8",
    "encoder.representation=4", "training.epochs=1", "bank.size=30",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a stage of each preset, and a file of cells."""
    root = tmp_path_factory.mktemp("explain")
    workspace = canal.open_workspace(root / "w", create=True)
    workspace.add_stage(make_adata(150, 60, types=TAUGHT), labels="cell_type", overrides=QUICK)
    workspace.add_stage(
        make_adata(60, 60, types=TAUGHT, prefix="p", seed=1), labels="cell_type", preset="canal",
        overrides=(*PERFORMER, "training.start=fresh"),
    )  # fmt: skip
    make_adata(90, 60, types=TAUGHT, prefix="q", seed=2).write_h5ad(root / "cells.h5ad")
    return root


def test_the_parts_of_the_memory_sum_to_its_score_and_name_the_markers(folder: Path) -> None:
    """All genes of a type together are the mean score of its cells, exactly; its own markers lead."""
    out = folder / "memory"
    answer = run(folder, "explain", "--data", folder / "cells.h5ad", "--labels", "cell_type", "--type", "CD4 T",
                 "--stage", 1, "--top", 6, "--out", out)  # fmt: skip

    assert answer["method"] == "memory"
    table = pd.read_csv(out / "genes.csv")
    reader, cells = _seen(folder)
    rows = np.flatnonzero(cells.obs["cell_type"] == "CD4 T")
    expected = reader.solved.scores(_expression(folder)[rows])[:, 1].mean()
    assert table["score"].sum() == pytest.approx(expected, rel=1e-4)
    markers = {f"GENE{g}" for g in range(8, 16)}
    genes = answer["types"]["CD4 T"]["genes"]
    assert {g["gene"] for g in genes} <= markers
    differences = [g["score"] - g["others"] for g in genes]
    assert differences == sorted(differences, reverse=True)
    assert (out / "top-genes.png").stat().st_size > 5000


def _expression(folder: Path) -> Any:
    from canal.data.stream import read_cells

    return read_cells(folder / "cells.h5ad", labels=None).expression


def _seen(folder: Path) -> tuple[Any, Any]:
    import anndata as ad

    cells = ad.read_h5ad(folder / "cells.h5ad")
    model = canal.open_workspace(folder / "w").model(1)
    reader = model.reader(Genes.of(cells.var_names))
    assert unit_rows(_expression(folder)).shape == cells.shape
    return reader, cells


def test_attention_of_a_performer_is_shared_out_among_the_genes(folder: Path) -> None:
    """The shares of each type sum to 1; a cell's type is the model's where no column is named."""
    out = folder / "attention"
    answer = run(
        folder, "explain", "--data", folder / "cells.h5ad", "--stage", 2, "--out", out, "--cells", 7, "--rank", "score"
    )

    table = pd.read_csv(out / "genes.csv")
    assert answer["method"] == "attention"
    assert set(answer["types"]) <= set(TAUGHT)
    for name, found in answer["types"].items():
        assert found["cells"] <= 7
        assert table[table["cell_type"] == name]["score"].sum() == pytest.approx(1.0, rel=1e-5)
        scores = [g["score"] for g in found["genes"]]
        assert scores == sorted(scores, reverse=True)


def test_gene_sets_of_the_markers_are_found(folder: Path) -> None:
    """The set of a type's markers comes first, with a small p-value; a table is written."""
    sets = folder / "sets.gmt"
    names = {"B markers": range(8), "CD4 markers": range(8, 16), "none of it": range(40, 50), "elsewhere": [900]}
    sets.write_text("\n".join("\t".join([n, "x", *(f"Gene{g}" for g in genes)]) for n, genes in names.items()))
    answer = run(folder, "explain", "--data", folder / "cells.h5ad", "--type", "CD4 T", "--stage", 1, "--top", 8,
                 "--out", folder / "sets", "--enrich", sets)  # fmt: skip

    first = answer["types"]["CD4 T"]["gene_sets"][0]
    assert first["name"] == "CD4 markers"
    assert first["adjusted"] < 1e-3
    assert pd.read_csv(folder / "sets" / "gene_sets.csv")["name"][0] == "CD4 markers"


def test_enrichment_is_the_hypergeometric_test_corrected_over_all_sets() -> None:
    """Against scipy; sets without a top gene count in the correction."""
    background = [f"G{i}" for i in range(100)]
    sets = {"a": ("G0", "G1", "G2", "G50"), "b": ("G1", "G60", "G61"), "c": ("G70", "G71"), "strange": ("X",)}

    found = {s.name: s for s in enriched(background[:10], background, sets)}

    expected = {"a": hypergeom.sf(2, 100, 4, 10), "b": hypergeom.sf(0, 100, 3, 10)}
    assert set(found) == {"a", "b"}
    for name, p in expected.items():
        assert found[name].p_value == pytest.approx(p, rel=1e-6)
    assert found["a"].adjusted == pytest.approx(3 * expected["a"], rel=1e-6)
    assert found["b"].adjusted == pytest.approx(1.5 * expected["b"], rel=1e-6)
    assert found["a"].genes == ("G0", "G1", "G2")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--type", "HSC"], "'HSC' is no type here"),
        (["--enrich", "none.gmt"], "There is no file none.gmt"),
        (["--enrich", "cells.h5ad"], "cells.h5ad is no text"),
        (["--out", "cells.h5ad"], "is a file; expected a folder"),
        (["--out", "."], "expected a new or empty folder"),
    ],
)
def test_what_cannot_be_explained_is_one_message(
    folder: Path, options: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, nothing written."""
    monkeypatch.chdir(folder)
    before = set(folder.iterdir())
    answer = run(folder, "explain", "--data", "cells.h5ad", *options, code=2)
    assert says in answer["error"]
    assert set(folder.iterdir()) == before


def test_a_model_without_attention_and_memory_cannot_be_explained(tmp_path: Path) -> None:
    """The message names the presets that can."""
    workspace = canal.open_workspace(tmp_path / "w", create=True)
    cells = make_adata(60, 40, types=TAUGHT)
    workspace.add_stage(cells, labels="cell_type", overrides=(*QUICK, "analytic.enabled=false"))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    answer = run(tmp_path, "explain", "--data", tmp_path / "cells.h5ad", code=2)
    assert "has no attention, and there is no analytic memory" in answer["error"]


def test_novel_by_probability_where_the_preset_or_the_command_says_so(folder: Path) -> None:
    """Below the threshold a cell is novel, whatever the rest of the file; both detectors at once are refused."""
    workspace = canal.open_workspace(folder / "w")
    data = folder / "cells.h5ad"
    by_preset = workspace.annotate(data, stage=2)
    confidence = by_preset.confidence
    assert by_preset.facts["min_probability"] == 0.5
    np.testing.assert_array_equal(by_preset.columns["status"] == "novel", confidence < 0.5)
    np.testing.assert_allclose(by_preset.columns["novelty"], 1 - confidence, rtol=1e-6)

    asked = workspace.annotate(data, stage=1, min_probability=0.999)
    np.testing.assert_array_equal(asked.columns["status"] == "novel", asked.confidence < 0.999)
    assert "p_value" in workspace.annotate(data, stage=1).columns

    for words, says in (
        (["--min-probability", "0.5", "--alpha", "0.05"], "Leave it out, or --alpha"),
        (["--min-probability", "1.5"], "at most 1"),
    ):
        answer = run(folder, "annotate", "--data", data, "--out", folder / "x.csv", *words, code=2)
        assert says in answer["error"]
    make_adata(40, 60, types=("B", "HSC"), prefix="n").write_h5ad(folder / "novel.h5ad")
    figures = run(folder, "evaluate", "--data", folder / "novel.h5ad", "--labels", "cell_type", "--novel", "HSC",
                  "--stage", 1, "--min-probability", "0.9")["novelty"]  # fmt: skip
    assert figures["min_probability"] == 0.9
    assert figures["auroc"] > 0.7


def test_markers_of_what_was_taught_need_no_file(folder: Path) -> None:
    """Genes of the type stand apart from those it is told by lacking; the latter are markers of other types."""
    workspace = canal.open_workspace(folder / "w")

    table = workspace.markers("CD4 T", stage=1, top=6)

    own, of_others = {f"GENE{g}" for g in range(8, 16)}, {f"GENE{g}" for g in (*range(8), *range(16, 24))}
    for_it = table[table["evidence"] == "for"]
    against = table[table["evidence"] == "against"]
    assert set(table["cell_type"]) == {"CD4 T"}
    assert set(for_it["gene"]) <= own
    assert (len(for_it), len(against)) == (6, 6)
    assert len(set(against["gene"]) & of_others) >= 4
    assert not set(against["gene"]) & own
    assert (for_it["score"] > for_it["others"]).all()
    assert set(workspace.markers(stage=1)["cell_type"]) == set(TAUGHT)


def test_what_was_taught_is_near_what_cells_of_a_file_show(folder: Path) -> None:
    """The command without --data: the same method, and the genes that lead are those of the cells."""
    taught = run(folder, "explain", "--type", "B", "--stage", 1, "--top", 8)
    seen = run(folder, "explain", "--data", folder / "cells.h5ad", "--labels", "cell_type", "--type", "B",
               "--stage", 1, "--top", 8)  # fmt: skip

    assert (taught["source"], seen["source"]) == ("taught", "cells")
    assert taught["method"] == seen["method"] == "memory"
    assert taught["types"]["B"]["cells"] == 50
    genes = [{entry["gene"] for entry in answer["types"]["B"]["genes_for"]} for answer in (taught, seen)]
    assert genes[0] == genes[1] == {f"GENE{g}" for g in range(8)}


def test_a_model_without_memory_needs_cells(folder: Path) -> None:
    """Nothing is known of the taught cells then; and a file's columns need a file."""
    assert "--data" in run(folder, "explain", "--stage", 2, code=2)["error"]
    assert "belong to a file" in run(folder, "explain", "--stage", 1, "--labels", "cell_type", code=2)["error"]
    assert "'MK' is no type here" in run(folder, "explain", "--stage", 1, "--type", "MK", code=2)["error"]


def test_the_screen_lists_them_apart(folder: Path) -> None:
    """Two tables a type, and a line that says where the cells come from."""
    shown = CliRunner().invoke(app, ["-C", str(folder / "w"), "explain", "--stage", "1", "--type", "B", "--top", "3"])

    assert shown.exit_code == 0, shown.output
    assert "No file was named" in shown.output
    assert shown.output.index("for B") < shown.output.index("against others: B has less")
