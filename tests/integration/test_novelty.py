"""Known, uncertain or novel: from stages to a verdict on each cell."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import canal
from canal.errors import DataError, StageError
from canal.workspace import Workspace
from tests.make import make_adata

TAUGHT = ("B", "NK", "CD14 Mono")
QUICK = ("training.epochs=2", "training.min_steps=20", "bank.size=60", "analytic.pseudo_cells=40")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace of two stages that know three types."""
    found = canal.open_workspace(tmp_path_factory.mktemp("ws"), create=True)
    for seed in (0, 1):
        cells = make_adata(600, 120, types=TAUGHT, prefix=f"s{seed}-", seed=seed)
        found.add_stage(cells, labels="cell_type", overrides=QUICK, name=f"stage{seed}")
    return found


def test_cells_of_an_untaught_type_are_novel(workspace: Workspace) -> None:
    """Most cells of a type with markers of its own are called novel, known cells hardly more often than asked."""
    query = make_adata(600, 120, types=(*TAUGHT, "MK"), prefix="q", seed=7)
    truth = query.obs["cell_type"].astype(str).to_numpy()

    found = workspace.annotate(query, alpha=0.05)

    novel = found.columns["status"] == "novel"
    assert novel[truth == "MK"].mean() > 0.9
    assert novel[truth != "MK"].mean() < 0.12
    assert set(found.columns["best_known"]) <= set(TAUGHT)
    assert ((found.columns["p_value"] > 0) & (found.columns["p_value"] <= 1)).all()


def test_a_smaller_alpha_calls_fewer_cells_novel(workspace: Workspace) -> None:
    """The novel cells at 0.01 are among those at 0.2; p-values do not depend on alpha."""
    query = make_adata(300, 120, types=TAUGHT, prefix="q", seed=8)

    strict, loose = (workspace.annotate(query, alpha=alpha).columns for alpha in (0.01, 0.2))

    assert set(np.flatnonzero(strict["status"] == "novel")) <= set(np.flatnonzero(loose["status"] == "novel"))
    np.testing.assert_array_equal(strict["p_value"], loose["p_value"])


def test_a_verdict_does_not_depend_on_the_company(workspace: Workspace) -> None:
    """One cell alone has the verdict, score and p-value it has among others."""
    query = make_adata(40, 120, types=(*TAUGHT, "MK"), prefix="q", seed=9)

    together = workspace.annotate(query).columns
    alone = [workspace.annotate(query[[i]].copy()).columns for i in (0, 3, 7)]

    for i, one in zip((0, 3, 7), alone, strict=True):
        assert one["status"][0] == together["status"][i]
        assert one["novelty"][0] == pytest.approx(together["novelty"][i], abs=1e-4)


def test_neighbours_are_cells_of_the_bank(workspace: Workspace, tmp_path: Path) -> None:
    """The nearest reference cells come with name, type, stage and distance, mostly of the cell's own type."""
    query = make_adata(60, 120, types=TAUGHT, prefix="q", seed=10)
    query.write_h5ad(tmp_path / "q.h5ad")

    workspace.annotate(tmp_path / "q.h5ad", neighbors=3, out=tmp_path / "q.csv")

    table = pd.read_csv(tmp_path / "q.csv")
    assert (table["neighbor_1_type"] == query.obs["cell_type"].astype(str).to_numpy()).mean() > 0.8
    assert (table["neighbor_1_distance"] <= table["neighbor_3_distance"] + 1e-6).all()
    assert set(table["neighbor_2_stage"]) <= {1, 2}
    assert table["neighbor_1"].str.startswith(("s0-", "s1-")).all()


def test_the_detection_is_scored(workspace: Workspace) -> None:
    """AUROC, H-score and realised false alarms of a type that was never taught."""
    query = make_adata(600, 120, types=(*TAUGHT, "MK"), prefix="q", seed=7)

    found = workspace.evaluate(query, labels="cell_type", novel=["MK"]).novelty

    assert found is not None
    assert found["auroc"] > 0.95
    assert found["h_score"] == pytest.approx(
        2 * found["known_accuracy"] * found["novel_recall"] / (found["known_accuracy"] + found["novel_recall"])
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"alpha": 0.0}, "between 0 and 1"),
        ({"alpha": 1.5}, "between 0 and 1"),
        ({"neighbors": 61}, "bank of this stage"),
    ],
    ids=["alpha zero", "alpha above one", "more neighbours than cells"],
)
def test_what_cannot_be_asked_is_refused(workspace: Workspace, options: dict, match: str) -> None:
    """One clear message."""
    with pytest.raises(StageError, match=match):
        workspace.annotate(make_adata(10, 120, types=TAUGHT, prefix="q"), **options)


@pytest.mark.parametrize(("novel", "match"), [("HSC", "no cell of 'HSC'"), ("B", "model knows 'B'")])
def test_a_novel_type_must_be_there_and_not_taught(workspace: Workspace, novel: str, match: str) -> None:
    """One clear message."""
    with pytest.raises(DataError, match=match):
        workspace.evaluate(make_adata(60, 120, types=TAUGHT, prefix="q"), labels="cell_type", novel=[novel])


def test_a_model_that_cannot_tell_annotates_and_says_so_when_asked(tmp_path: Path) -> None:
    """Without analytic memory there is no verdict, and asking for one is an error."""
    workspace = canal.open_workspace(tmp_path, create=True)
    off = (*QUICK, "analytic.enabled=false")
    workspace.add_stage(make_adata(120, 120, types=TAUGHT), labels="cell_type", overrides=off)
    query = make_adata(30, 120, types=TAUGHT, prefix="q")

    assert "status" not in workspace.annotate(query).columns
    with pytest.raises(StageError, match="cannot tell novel cells"):
        workspace.annotate(query, alpha=0.05)
