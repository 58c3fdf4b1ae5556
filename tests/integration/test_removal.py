"""A stage is taken out: the model is without it, nothing is deleted, and the rule says who annotates."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.compare.gather import compare_stages
from canal.config import PromotionConfig
from canal.errors import RegistryError, StageError
from canal.history import remove as removal
from canal.history.remove import remove_stage
from canal.model.bank import load_bank
from canal.model.memory import load_memory
from canal.model.model import Model
from canal.registry.registry import Registry
from canal.stages.layout import Layout
from canal.stages.testing import tests as testing
from tests.integration.conftest import FILES
from tests.labs import QUICK
from tests.make import make_adata


def run(layout: Layout, *words) -> tuple[int, dict]:
    """Run a command line with --json."""
    result = CliRunner().invoke(app, ["-C", str(layout.root), *map(str, words), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


def files_of(layout: Layout, number: int) -> Path:
    """Return the folder with the files of a stage."""
    registry = Registry.open(layout.registry, layout.settings.name)
    return registry.artifacts(registry.record(number))


def test_a_removed_stage_is_gone_from_the_model(layout):
    """Memory exactly without it, no cell of it in the bank, its own types not answered; nothing is lost."""
    before = load_memory(files_of(layout, 3) / "memory.safetensors")

    result = remove_stage(layout, 2)

    after = load_memory(files_of(layout, 4) / "memory.safetensors")
    bank = load_bank(files_of(layout, 4) / "bank.safetensors")
    left = [s for s in before.statistics if s.stage != 2]
    assert [(s.stage, s.name, s.n) for s in after.statistics] == [(s.stage, s.name, s.n) for s in left]
    for ours, theirs in zip(after.statistics, left, strict=True):
        np.testing.assert_array_equal(ours.mean, theirs.mean)
        np.testing.assert_array_equal(ours.factors, theirs.factors)
    assert set(bank.stage.tolist()) == {1, 3}
    novelty = [Model.load(files_of(layout, n)).novelty.stages for n in (3, 4)]
    assert [s.stage for s in novelty[1]] == [s.stage for s in novelty[0] if s.stage != 2]
    assert (result.stage, result.parent, result.removed_types) == (4, 3, ("CD4 T",))
    assert [t["stage"] for t in result.tested] == [1, 3]
    workspace = canal.open_workspace(layout.root)
    assert workspace.champion() == 4
    assert [r.number for r in workspace.stages()] == [1, 2, 3, 4]
    annotation = workspace.annotate(make_adata(60, types=("B", "NK", "HSC"), seed=9))
    assert (annotation.cell_type == make_adata(60, types=("B", "NK", "HSC"), seed=9).obs["cell_type"]).mean() > 0.9
    report = compare_stages(layout)
    assert report.accuracy[3][1] is None
    assert report.stages[3].forgetting is not None


def test_a_removal_that_falls_too_much_is_a_candidate(layout, monkeypatch):
    """The same rule as for a stage that is added; the answer says who annotates."""
    limits = []
    rule = testing.reason_to_hold_back

    def strict(*facts):  # any accuracy is too low
        limits.append(facts[-1])
        return rule(*facts[:-1], SimpleNamespace(max_fall=-1.0, max_alarms=1.0))

    monkeypatch.setattr(removal, "reason_to_hold_back", strict)
    code, found = run(layout, "stage", "remove", 2)

    assert code == 0
    assert limits == [PromotionConfig(max_fall=0.02, max_alarms=0.05)]  # of the preset
    assert found["champion"] is False
    assert "stage 4 stays a candidate, and stage 3 goes on annotating" in found["warnings"][0]
    workspace = canal.open_workspace(layout.root)
    assert workspace.champion() == 3
    assert workspace.stage(4).notes["held_back"] == found["warnings"][0]
    shown = CliRunner().invoke(app, ["-C", str(layout.root), "stage", "remove", "1"]).stdout
    assert "Stage 3, with the cells of stage 1, goes on annotating." in shown


def test_a_stage_can_follow_a_removal(layout, tmp_path):
    """Learning goes on from the model without the stage, and does not test on what was taken out."""
    remove_stage(layout, 2)
    make_adata(80, types=("B", "MK"), prefix="fifth", seed=5).write_h5ad(tmp_path / "fifth.h5ad")

    result = canal.open_workspace(layout.root).add_stage(tmp_path / "fifth.h5ad", labels="cell_type", overrides=QUICK)

    assert [t["stage"] for t in result.tested] == [1, 3]
    assert result.types == ("B", "NK", "HSC", "MK")


def test_removal_without_a_bank(tmp_path):
    """With statistics alone the network learns from what it draws."""
    workspace = canal.open_workspace(tmp_path / "ws", create=True)
    for seed, (name, types) in enumerate(FILES.items()):
        data = make_adata(80, types=types, prefix=name, seed=seed)
        workspace.add_stage(data, labels="cell_type", name=name, overrides=(*QUICK, "bank.size=0"))

    result = remove_stage(workspace.layout, 3)

    assert result.bank == 0
    assert result.types == ("B", "NK", "CD4 T")
    answer = workspace.annotate(make_adata(60, types=("B", "NK"), seed=9)).cell_type
    assert (answer == make_adata(60, types=("B", "NK"), seed=9).obs["cell_type"]).mean() > 0.9


def test_what_cannot_be_removed_is_refused(layout, made):
    """Not in the model, gone already, all there is; nothing is committed."""
    registry = Registry.open(layout.registry, layout.settings.name)
    with pytest.raises(RegistryError, match="no stage 9"):
        remove_stage(layout, 9)
    registry.set_champion(1)
    with pytest.raises(StageError, match="was not learned from it"):
        remove_stage(layout, 2)
    with pytest.raises(StageError, match="nothing would be left"):
        remove_stage(layout, 1)
    registry.set_champion(3)
    remove_stage(layout, 2)
    with pytest.raises(StageError, match="without it already"):
        remove_stage(layout, 2)
    with pytest.raises(StageError, match="took another stage out"):
        remove_stage(layout, 4)
    assert [r.number for r in registry.records()] == [1, 2, 3, 4]
