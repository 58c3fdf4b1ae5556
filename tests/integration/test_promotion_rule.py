"""Every stage is tested on the cells of the stages before it, and does not come into use where it has forgotten."""

from pathlib import Path

import pytest

import canal
from canal.errors import DataError, StageError
from canal.registry.registry import Registry
from canal.stages.layout import Layout
from canal.stages.testing.tests import StageTests, read_tests
from tests.labs import QUICK, add, write
from tests.make import make_adata

FORGETFUL = (
    "analytic.enabled=false", "bank.size=4", "training.distillation=0.0", "training.learning_rate=0.01",
    "training.min_steps=150",
)  # fmt: skip


def swapped(folder: Path) -> Path:
    """Write cells that call every B an NK and the other way round."""
    adata = make_adata(80, types=("B", "NK"), prefix="swapped", seed=5)
    adata.obs["cell_type"] = adata.obs["cell_type"].astype(str).replace({"B": "NK", "NK": "B"})
    adata.write_h5ad(folder / "swapped.h5ad")
    return folder / "swapped.h5ad"


def kept_of(workspace, number: int) -> StageTests:
    """Return what was kept of a stage's tests."""
    registry = Registry.open(workspace.layout.registry, workspace.layout.settings.name)
    return read_tests(registry, registry.record(number))


@pytest.fixture
def workspace(tmp_path):
    """Return a workspace with one stage."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    add(workspace, write(tmp_path, "first"))
    return workspace


def test_a_stage_keeps_references_and_counts_but_no_cells(workspace, tmp_path):
    """`tests.json` names file, rows and digest; later stages are tested on the very same cells."""
    result = add(workspace, write(tmp_path, "second", ("B", "CD4 T"), seed=1))
    first, second = kept_of(workspace, 1), kept_of(workspace, 2)

    assert first.own.path == str(tmp_path / "first.h5ad")
    assert 0 < first.own.cells <= 16
    assert [o.stage for o in second.outcomes] == [1, 2]
    assert second.outcomes[0].digest == first.own.digest
    assert second.outcomes[0].figures.cells == first.own.cells
    assert second.history
    assert result.champion
    assert [c["stage"] for c in result.tested] == [1]
    record = workspace.stage(2)
    assert record.metrics["test/1/accuracy"] == second.outcomes[0].figures.accuracy
    assert {"forgetting", "backward_transfer", "average_accuracy"} <= set(record.metrics)
    assert "first1" not in second.model_dump_json()


def test_a_stage_that_forgets_stays_a_candidate(workspace, tmp_path):
    """The one before goes on annotating, the answer says why, and the record keeps it."""
    result = add(workspace, swapped(tmp_path), *FORGETFUL)

    assert not result.champion
    assert workspace.champion() == 1
    assert any("stays a candidate" in text and "stage 1 (first)" in text for text in result.warnings)
    assert "promotion.max_fall" in workspace.stage(2).notes["held_back"]

    third = add(workspace, write(tmp_path, "third", ("B", "CD4 T"), seed=1))
    assert (third.parent, third.champion) == (1, True)
    assert [c["stage"] for c in third.tested] == [1]


def test_the_limit_is_in_the_configuration(workspace, tmp_path):
    """With a limit of 1 nothing is held back."""
    assert add(workspace, swapped(tmp_path), *FORGETFUL, "promotion.max_fall=1.0").champion


def test_a_stage_that_sees_known_cells_as_novel_stays_a_candidate(workspace, tmp_path, monkeypatch):
    """Its share of false alarms on earlier cells is measured, kept, and compared with that of the model in use."""
    calm = add(workspace, write(tmp_path, "second", ("B", "CD4 T"), seed=1))
    before = calm.tested[0]["false_alarms"]
    # From now on no cell of any type has a table to be compared with that it could pass.
    monkeypatch.setattr("canal.stages.testing.tests.ALPHA", 1.0)

    result = add(workspace, write(tmp_path, "third", ("B", "CD8 T"), seed=2))

    assert calm.tested[0]["false_alarms_before"] is not None
    assert result.tested[0]["false_alarms_before"] == before < 0.5
    assert result.tested[0]["false_alarms"] == 1.0
    assert not result.champion
    assert any("promotion.max_alarms" in text for text in result.warnings)
    assert kept_of(workspace, 3).outcomes[0].false_alarms == 1.0


def test_earlier_cells_are_looked_at_through_the_genes_of_the_new_stage(workspace, tmp_path):
    """A stage of few genes is tested on these alone, too; one that has them all is not."""
    all_genes = add(workspace, write(tmp_path, "second", ("B", "CD4 T"), seed=1))
    few = make_adata(80, types=("B", "CD8 T"), prefix="few", seed=2)
    few[:, :40].copy().write_h5ad(tmp_path / "few.h5ad")
    result = add(workspace, tmp_path / "few.h5ad")

    assert all_genes.tested[0]["fewer_genes_accuracy"] is None
    assert {c["stage"] for c in result.tested if c["fewer_genes_accuracy"] is not None} == {1, 2}
    assert all(0.5 < c["fewer_genes_before"] <= 1 for c in result.tested)


def test_a_file_that_is_gone_or_changed_is_no_error(workspace, tmp_path):
    """The stage is added; the table has a gap with a reason."""
    (tmp_path / "first.h5ad").unlink()

    result = add(workspace, write(tmp_path, "second", ("B", "CD4 T"), seed=1))

    assert result.champion
    assert result.tested[0]["accuracy"] is None
    assert any("Not tested on 1 of 1 earlier stages" in text and "first.h5ad" in text for text in result.warnings)
    outcome = kept_of(workspace, 2).outcomes[0]
    assert outcome.counts == {}
    assert "first.h5ad" in outcome.reason


def test_the_champion_is_tested_where_it_was_not(workspace, tmp_path):
    """A disk that was away comes back: the rule holds again."""
    first = (tmp_path / "first.h5ad").read_bytes()
    (tmp_path / "first.h5ad").unlink()
    add(workspace, write(tmp_path, "second", ("B", "CD4 T"), seed=1))
    (tmp_path / "first.h5ad").write_bytes(first)

    result = add(workspace, swapped(tmp_path), *FORGETFUL)

    assert result.tested[0]["before"] > result.tested[0]["accuracy"]
    assert not result.champion


def test_cells_in_memory_are_tested_once(tmp_path):
    """An AnnData has figures of its own and none later."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    add(workspace, make_adata(80, types=("B", "NK"), prefix="first"))
    result = add(workspace, write(tmp_path, "second", ("B", "CD4 T"), seed=1))

    assert kept_of(workspace, 1).outcomes[0].figures.accuracy > 0.5
    assert "in memory" in result.tested[0]["reason"]


def test_a_test_file_is_used_instead_of_the_share(tmp_path):
    """`--test` names the cells for good, and every later stage is tested on them."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    test = write(tmp_path, "test", n=30, seed=9)
    add(workspace, write(tmp_path, "first"), test=test)
    add(workspace, write(tmp_path, "second", ("B", "CD4 T"), seed=1))

    own = kept_of(workspace, 1).own
    assert (own.kind, own.path, own.rows, own.cells) == ("file", str(test), None, 30)
    assert kept_of(workspace, 2).outcomes[0].figures.cells == 30
    assert workspace.stage(1).notes["test"] == str(test)


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("first", StageError, "training cells of stage 1"),
        ("second", StageError, "training cells of this stage"),
        ("nowhere", DataError, "nowhere.h5ad"),
    ],
)
def test_a_bad_test_file_changes_nothing(workspace, tmp_path, name, error, match):
    """Cells of training are refused, and so is a file that cannot be read; nothing is learned."""
    second = write(tmp_path, "second", ("B", "CD4 T"), seed=1)

    with pytest.raises(error, match=match):
        add(workspace, second, test=tmp_path / f"{name}.h5ad")

    assert [r.number for r in workspace.stages()] == [1]
    assert not list((tmp_path / "ws/registry").glob("drafts/*"))


def test_a_bad_test_file_makes_no_workspace(tmp_path):
    """A new folder stays empty."""
    layout = Layout(tmp_path / "new")
    with pytest.raises(DataError, match=r"nowhere\.h5ad"):
        canal.Workspace(layout).add_stage(
            write(tmp_path, "first"), labels="cell_type", test=tmp_path / "nowhere.h5ad", overrides=QUICK
        )
    assert not (tmp_path / "new").exists()


def test_tests_are_the_same_bytes_for_the_same_stages(tmp_path):
    """Nothing of time or place but the path is in the file."""
    data = write(tmp_path, "first")
    digests = []
    for name in ("one", "two"):
        workspace = canal.open_workspace(tmp_path / name, create=True)
        add(workspace, data)
        digests.append(workspace.stage(1).artifacts["tests.json"])
    assert digests[0] == digests[1]
