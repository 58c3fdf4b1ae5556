"""`--transductive`: a verdict that depends on the company, and says so."""

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.data.stream import open_stream
from canal.errors import StageError
from canal.progress import Silent
from canal.stages.novelty_rules import transductive_rule
from canal.stages.predictions import answer_stream
from canal.workspace import Workspace
from tests.make import make_adata

TAUGHT = ("B", "NK", "CD14 Mono")
QUICK = ("training.epochs=4", "training.min_steps=60", "bank.size=60", "analytic.enabled=false")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace of one stage without analytic memory: the rule asks the network alone."""
    found = canal.open_workspace(tmp_path_factory.mktemp("ws"), create=True)
    cells = make_adata(400, 120, types=TAUGHT, prefix="s", seed=0)
    found.add_stage(cells, labels="cell_type", overrides=QUICK)
    return found


def test_the_answer_is_named_for_what_it_is(workspace: Workspace, tmp_path: Path) -> None:
    """The file has verdicts, rule and threshold, and no p-value; the command prints the same."""
    make_adata(90, 120, types=(*TAUGHT, "MK"), prefix="q", seed=3).write_h5ad(tmp_path / "q.h5ad")
    line = [
        "-C",
        str(workspace.root),
        "annotate",
        "--data",
        str(tmp_path / "q.h5ad"),
        "--out",
        str(tmp_path / "a.h5ad"),
    ]

    done = CliRunner().invoke(app, [*line, "--transductive", "--json"])

    answer, cells = json.loads(done.stdout), ad.read_h5ad(tmp_path / "a.h5ad")
    assert "depends on the other cells" in cells.uns["canal"]["transductive"]
    assert cells.uns["canal"]["threshold"] == answer["threshold"]
    assert "alpha" not in cells.uns["canal"]
    assert set(cells.obs["canal_status"]) <= {"known", "novel"}
    assert "canal_p_value" not in cells.obs
    novel = cells.obs["canal_novelty"].to_numpy() > answer["threshold"]
    np.testing.assert_array_equal(novel, cells.obs["canal_status"].to_numpy() == "novel")
    assert answer["status"]["novel"] == novel.sum()


def test_a_verdict_depends_on_the_company(workspace: Workspace) -> None:
    """The same cells score otherwise among others; twice the same file is the same answer."""
    query = make_adata(80, 120, types=(*TAUGHT, "MK"), prefix="q", seed=3)

    once, again = (workspace.annotate(query, transductive=True) for _ in range(2))
    known = query[query.obs["cell_type"] != "MK"].copy()
    among_known = workspace.annotate(known, transductive=True)

    np.testing.assert_array_equal(once.columns["novelty"], again.columns["novelty"])
    assert once.facts["threshold"] == again.facts["threshold"]
    same = np.isin(once.cell_names, known.obs_names)
    assert not np.allclose(once.columns["novelty"][same], among_known.columns["novelty"], atol=1e-3)
    np.testing.assert_array_equal(once.cell_type[same], among_known.cell_type)


def test_without_it_nothing_changes(workspace: Workspace, tmp_path: Path) -> None:
    """A plain annotation has neither rule nor threshold."""
    found = workspace.annotate(make_adata(20, 120, types=TAUGHT, prefix="q"))

    assert not {"transductive", "threshold"} & set(found.facts)


def test_blocks_do_not_matter(workspace: Workspace) -> None:
    """Read in blocks of seven cells, the file gives the same scores and threshold."""
    query = make_adata(50, 120, types=TAUGHT, prefix="q", seed=4)
    whole = workspace.annotate(query, transductive=True)
    model = workspace.model()

    with open_stream(query, chunk=7) as stream:
        reader = model.reader(stream.genes)
        collected = transductive_rule(reader, len(stream), model.record.seed, alpha=None)
        answers = answer_stream(reader, stream, Silent(), watch=collected.add)

    found = collected.columns(answers, whole.columns["best_known"])
    np.testing.assert_allclose(found["novelty"], whole.columns["novelty"], atol=1e-5)
    assert collected.threshold == pytest.approx(whole.facts["threshold"], abs=1e-5)


def test_the_detection_is_scored(workspace: Workspace) -> None:
    """`evaluate` gives the figures of the paper's rule, with its threshold in place of alpha."""
    query = make_adata(120, 120, types=(*TAUGHT, "MK"), prefix="q", seed=5)

    found = workspace.evaluate(query, labels="cell_type", novel=["MK"], transductive=True).novelty

    assert found is not None
    assert "alpha" not in found
    assert 0 < found["threshold"] < 1
    assert found["auroc"] > 0.8
    assert found["novel_recall"] > found["false_alarms"]


def test_neighbours_are_named_beside_it(tmp_path: Path) -> None:
    """With an analytic memory the nearest reference cells come along; the verdict is still the rule's."""
    workspace = canal.open_workspace(tmp_path, create=True)
    on = [s for s in QUICK if not s.startswith("analytic")]
    workspace.add_stage(make_adata(200, 120, types=TAUGHT, prefix="s"), labels="cell_type", overrides=on)

    found = workspace.annotate(make_adata(30, 120, types=TAUGHT, prefix="q"), transductive=True, neighbors=2)

    assert {"neighbor_2_type", "neighbor_2_distance", "status"} <= set(found.columns)
    assert "p_value" not in found.columns


@pytest.mark.parametrize(
    ("cells", "options", "match"),
    [(6, {"alpha": 0.05}, "Leave out --alpha or --transductive"), (1, {}, "judged by the other cells")],
)
def test_what_it_cannot_do_is_refused(workspace: Workspace, cells: int, options: dict, match: str) -> None:
    """A rate of false alarms, or a cell alone: one clear message."""
    query = make_adata(6, 120, types=TAUGHT, prefix="q")[:cells].copy()
    with pytest.raises(StageError, match=match):
        workspace.annotate(query, transductive=True, **options)
