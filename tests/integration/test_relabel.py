"""Types are renamed and merged: a new stage, undone and replayed as any, as if these names had been taught."""

import json

import numpy as np
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.compare.gather import compare_stages
from canal.data.stream import read_cells
from canal.errors import StageError
from canal.history.relabel import merge_types, rename_type
from canal.history.remove import remove_stage
from canal.history.replay import replay
from canal.model.memory import joined_statistics, type_statistics
from tests.integration.conftest import FILES
from tests.labs import QUICK, add, everything, write
from tests.make import make_adata


def named(adata, **names):
    """Return cells with other names of types."""
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str).replace(names).astype(object)
    return adata


def memory_scores(workspace, stage, cells):
    """Return the scores of the memory of a stage, columns sorted by type, and the types."""
    model, read = workspace.model(stage), read_cells(cells, labels="cell_type")
    scores = model.reader(read.genes).solved.scores(read.expression)
    return scores[:, np.argsort(model.types)], sorted(model.types)


def test_merged_is_as_taught_with_one_name(layout, tmp_path):
    """The memory's scores are equal to 1e-5, the accuracy within .005; nothing of the parent is changed."""
    workspace = canal.open_workspace(layout.root)
    # Another lab calls B cells otherwise: stage 4 is stage 2 under its names, on top of stage 1.
    workspace.promote(1)
    cells = named(make_adata(80, types=FILES["second"], prefix="second", seed=1), B="b lymphocyte")
    cells.write_h5ad(tmp_path / "second.h5ad")
    add(workspace, tmp_path / "second.h5ad")
    before = everything(layout.root / "registry")

    result = workspace.merge_types("B", "b lymphocyte", into="B")

    assert (result.stage, result.parent, result.champion, result.name) == (5, 4, True, "merged")
    new = make_adata(200, types=("B", "NK", "CD4 T"), prefix="new", seed=7)
    ours, types = memory_scores(workspace, 5, new)
    theirs, their_types = memory_scores(workspace, 2, new)
    assert types == their_types == ["B", "CD4 T", "NK"]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    right = [(workspace.annotate(new, stage=stage).cell_type == new.obs["cell_type"]).mean() for stage in (5, 2)]
    assert abs(right[0] - right[1]) <= 0.005
    # The bank has the new name, and the held-out cells of both stages are tested under it.
    assert set(workspace.model().bank.labels) == {"B", "NK", "CD4 T"}
    assert [test["stage"] for test in result.tested] == [1, 4]
    assert min(test["accuracy"] for test in result.tested) == 1.0
    after = everything(layout.root / "registry")
    assert all(after[name] == content for name, content in before.items() if "artifacts" in name)


def test_renamed_is_the_same_model(layout):
    """Nothing but the name is another: the same probabilities, to the bit; a rollback brings the old name back."""
    workspace = canal.open_workspace(layout.root)
    cells = make_adata(90, types=("B", "NK", "HSC"), seed=9)
    before = workspace.annotate(cells)

    result = workspace.rename_type("HSC", "stem cell")

    after = workspace.annotate(cells)  # not the model that was read before
    assert result.types == ("B", "NK", "CD4 T", "stem cell")
    renamed = np.where(np.asarray(before.cell_type) == "HSC", "stem cell", np.asarray(before.cell_type))
    assert (np.asarray(after.cell_type) == renamed).all()
    np.testing.assert_array_equal(after.confidence, before.confidence)
    workspace.rollback()
    assert "HSC" in workspace.stage().types


def test_learning_goes_on_under_the_new_name(layout, tmp_path):
    """Later stages are tested on the cells of earlier ones under the new name, also through two renamings."""
    workspace = canal.open_workspace(layout.root)
    workspace.rename_type("NK", "killer")
    workspace.merge_types("killer", "CD4 T", into="lymphocyte")
    path = write(tmp_path, "fifth", ("B", "lymphocyte"), seed=5)
    named(make_adata(80, types=("B", "NK"), prefix="fifth", seed=5), NK="lymphocyte").write_h5ad(path)

    result = workspace.add_stage(path, labels="cell_type", overrides=QUICK)

    assert [t["stage"] for t in result.tested] == [1, 2, 3]
    assert min(t["accuracy"] for t in result.tested) > 0.9
    assert set(result.types) == {"B", "lymphocyte", "HSC"}
    # Measured again from the files, the figures are the same.
    report = compare_stages(layout, recompute=True)
    assert report.accuracy[-1][:3] == pytest.approx([t["accuracy"] for t in result.tested])
    # A stage can be taken out below a renaming; the renaming itself brought no cells.
    with pytest.raises(StageError, match="took another stage out or renamed types"):
        remove_stage(layout, 4)
    assert "HSC" not in remove_stage(layout, 3).types


def test_a_renaming_is_replayed(layout, tmp_path):
    """Every file of a renamed and a merged stage is built again, bit for bit."""
    rename_type(layout, "HSC", "stem cell")
    merge_types(layout, ["B", "NK"], "either")
    report = replay(layout.stages, tmp_path / "again")
    assert [stage.stage for stage in report.stages] == [1, 2, 3, 4, 5]
    assert report.identical, [stage for stage in report.stages if stage.different]


def test_statistics_of_one_stage_add():
    """Number, mean and variance of types of one stage that become one are those of all their cells, exactly."""
    draw = np.random.default_rng(0)
    rows = [draw.random((n, 20)) ** 4 + shift for n, shift in ((30, 0.0), (50, 0.2))]
    rows = [sp.csr_matrix(values / np.linalg.norm(values, axis=1, keepdims=True)) for values in rows]
    parts = [type_statistics(values, stage=1, name=str(i), rank=20) for i, values in enumerate(rows)]
    whole = type_statistics(sp.vstack(rows).tocsr(), stage=1, name="both", rank=20)

    joined = joined_statistics(parts, name="both", rank=20)

    assert joined.n == 80
    np.testing.assert_allclose(joined.mean, whole.mean, atol=1e-6)
    for statistics in (joined, whole):
        variance = (statistics.factors**2).sum(axis=0) / 80 + statistics.rest
        np.testing.assert_allclose(variance, sp.vstack(rows).toarray().var(axis=0), atol=1e-6)
    # All directions were kept here, so the scatter is the same, too.
    np.testing.assert_allclose(joined.factors.T @ joined.factors, whole.factors.T @ whole.factors, atol=1e-4)


REFUSALS = {
    "unknown": (["rename", "Z", "Y"], "knows no type 'Z'"),
    "the same": (["rename", "B", "B"], "'B' has this name already"),
    "taken": (["rename", "B", "NK"], "'NK' is a type already"),
    "empty": (["rename", "B", " "], "The new name is empty"),
    "itself": (["merge", "B", "B", "--into", "C"], "'B' cannot be merged with itself: found 'B', 'B'"),
    "one": (["merge", "B", "--into", "C"], "There is nothing to merge with: found 'B'"),
    "into another": (["merge", "B", "NK", "--into", "HSC"], "'HSC' is another type of the model"),
    "all": (["merge", "B", "NK", "CD4 T", "HSC", "--into", "cell"], "One type would be left (cell)"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_refusals(made, kind):
    """What cannot be renamed is one message, and nothing is written."""
    words, told = REFUSALS[kind]
    before = everything(made / "ws")
    result = CliRunner().invoke(app, ["-C", str(made / "ws"), "labels", *words, "--json"])
    assert result.exit_code == 2
    assert told in json.loads(result.stdout)["error"]
    changed = {name for name, content in everything(made / "ws").items() if before.get(name) != content}
    assert {name for name in changed if "mlflow.db" not in name} == set()


def test_terms_follow_a_renaming(layout, tmp_path):
    """A renamed type keeps the term that was accepted for it, and the old name its own after a rollback."""
    workspace = canal.open_workspace(layout.root)
    (tmp_path / "labels.csv").write_text("name,id\nNK,CL:0000623\n")
    workspace.accept_labels(tmp_path / "labels.csv")
    workspace.rename_type("NK", "killer")
    terms = {label.type: label.id for label in workspace.list_labels().labels}
    assert terms["killer"] == "CL:0000623"
    workspace.rollback()
    assert {label.type: label.id for label in workspace.list_labels().labels}["NK"] == "CL:0000623"
