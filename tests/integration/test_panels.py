"""What a targeted panel tells apart, and which genes to add to it, from the statistics of the taught types."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.data.genes import Genes
from canal.data.panel import ENOUGH_GENES
from canal.errors import ConfigError, DataError
from canal.panels.check import check_panel
from tests.labs import QUICK
from tests.make import make_adata


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> canal.Workspace:
    """Return a workspace with two stages of made-up cells, two types each."""
    workspace = canal.open_workspace(tmp_path_factory.mktemp("panels") / "ws", create=True)
    for seed, types in enumerate((("B", "NK"), ("B", "CD4 T"))):
        adata = make_adata(160, 200, types=types, prefix=f"s{seed}_", seed=seed)
        workspace.add_stage(adata, labels="cell_type", overrides=QUICK)
    return workspace


def run(workspace: canal.Workspace, *words: object) -> tuple[int, dict, str]:
    """Run a command line in the workspace; return exit code, JSON and what stands on stderr."""
    result = CliRunner().invoke(app, ["-C", str(workspace.root), *map(str, words), "--json"])
    return result.exit_code, json.loads(result.stdout) if result.stdout else {}, result.stderr


def marker_genes(workspace: canal.Workspace, name: str, top: int = 8) -> list[str]:
    """Return the genes that the model tells a type by."""
    table = workspace.markers(name, top=top)
    return table[table["evidence"] == "for"]["gene"].tolist()


def test_a_panel_with_markers_is_forecast_to_be_better_and_is(workspace):
    """The forecast follows the accuracy on cells that measure the panel alone."""
    good = sorted({*marker_genes(workspace, "B"), *marker_genes(workspace, "NK"), *marker_genes(workspace, "CD4 T")})
    bad = [f"GENE{k}" for k in range(150, 156)]
    fresh = make_adata(200, 200, types=("B", "NK"), prefix="fresh", seed=7)

    forecasts, reached = [], []
    for panel in (good, bad):
        report = workspace.check_panel(panel)
        forecasts.append(report.stages[0].accuracy)
        cut = fresh[:, panel].copy()
        reader = workspace.model().reader(Genes.of(panel))
        values = np.log1p(cut.X.toarray() / np.maximum(cut.X.toarray().sum(1, keepdims=True), 1) * 1e4)
        names = reader.best_types(type(cut.X)(values.astype(np.float32)))
        reached.append(float((names == cut.obs["cell_type"].to_numpy(str)).mean()))

    assert forecasts[0] > 0.95 < reached[0]
    assert forecasts[1] < forecasts[0] - 0.15
    assert reached[1] < reached[0] - 0.15


def test_a_forecast_says_what_is_confused_and_unknown(workspace):
    """Types that no gene of the panel tells apart are listed; names that nobody taught, too; twice the same."""
    panel = [*marker_genes(workspace, "B"), "NOT-A-GENE"]

    report = workspace.check_panel(panel)

    assert report.unknown == ("NOT-A-GENE",)
    assert len(report.known) == len(panel) - 1
    assert [stage.stage for stage in report.stages] == [1, 2]
    assert {(m.cell_type, m.taken_for) for m in report.mistakes[:2]} & {("NK", "CD4 T"), ("CD4 T", "NK")}
    assert report.recall["B"] > max(report.recall["NK"], report.recall["CD4 T"])
    assert report.to_dict() == workspace.check_panel(panel).to_dict()


def test_fewer_counts_tell_less(workspace):
    """At a few counts a cell, a panel is worse than as it was taught."""
    panel = marker_genes(workspace, "NK") + marker_genes(workspace, "B")

    shallow, deep = workspace.check_panel(panel, depth=2), workspace.check_panel(panel, depth=2000)

    assert shallow.accuracy < deep.accuracy - 0.05
    assert (shallow.depth, deep.depth) == (2, 2000)


def test_genes_are_added_for_what_is_not_told_yet(workspace):
    """What the panel has is not chosen again, and a type that it cannot tell gets the next gene."""
    start = marker_genes(workspace, "B")

    design = workspace.design_panel(4, start=start)

    assert set(design.start) == set(start)
    assert not set(design.added) & set(start)
    assert len(set(design.added)) == 4
    alone, together = workspace.check_panel(start), workspace.check_panel(design.genes)
    assert together.accuracy > alone.accuracy
    others = [f"GENE{k}" for k in range(150, 154)]
    assert together.accuracy > workspace.check_panel([*start, *others]).accuracy


def test_commands(workspace, tmp_path):
    """A panel is designed, written and checked; an existing file stays."""
    code, designed, _ = run(workspace, "panel", "design", "--add", 5, "--out", tmp_path / "panel.txt")
    assert code == 0
    written = (tmp_path / "panel.txt").read_text().split()
    assert written == [chosen["gene"] for chosen in designed["added"]]
    code, checked, _ = run(workspace, "panel", "check", tmp_path / "panel.txt", "--depth", 500)
    assert code == 0
    assert checked["genes"] == {"known": 5, "unknown": []}
    assert 0 < checked["accuracy"] <= 1

    code, _, told = run(workspace, "panel", "design", "--add", 6, "--out", tmp_path / "panel.txt")
    assert code == 2
    assert "is there already" in told
    assert (tmp_path / "panel.txt").read_text().split() == written
    shown = CliRunner().invoke(app, ["-C", str(workspace.root), "panel", "check", str(tmp_path / "panel.txt")]).stdout
    assert "expected accuracy" in shown


@pytest.mark.parametrize(
    ("genes", "match"),
    [(["XX1", "XX2"], "knows none of the 2 genes"), ([], "holds no gene"), (Path("no.txt"), "no gene list")],
)
def test_a_panel_of_nothing_is_refused(workspace, genes, match):
    """One message each."""
    with pytest.raises(DataError, match=match):
        workspace.check_panel(genes)


def test_numbers_that_make_no_sense_are_refused(workspace):
    """No depth below one, not more genes than there are; a model without statistics cannot say."""
    with pytest.raises(ConfigError, match="depth is 0"):
        workspace.check_panel(["GENE1"], depth=0)
    with pytest.raises(ConfigError, match="were asked for"):
        workspace.design_panel(100_000)
    model = workspace.model()
    with pytest.raises(ConfigError, match="no analytic memory"):
        check_panel(replace(model, memory=None), Genes.of(["GENE1"]))


def test_a_targeted_panel_is_annotated(tmp_path):
    """A file with many genes that the memory knows is no accident, however few of the network's it has."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    every = make_adata(160, 400, types=("B", "NK"), seed=0)
    workspace.add_stage(every, labels="cell_type", overrides=(*QUICK, "genes.min_overlap=0.9"))
    few = make_adata(50, 400, types=("B", "NK"), prefix="few", seed=1)

    annotation = workspace.annotate(few[:, : ENOUGH_GENES + 20].copy())
    assert (annotation.cell_type == few.obs["cell_type"].to_numpy(str)).mean() > 0.8
    with pytest.raises(DataError, match=r"expected 90\.0% at least"):
        workspace.annotate(few[:, : ENOUGH_GENES - 1].copy())
