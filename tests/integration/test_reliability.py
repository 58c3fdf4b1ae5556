"""Calibration error and reliability of every stage: kept, shown, logged."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import RegistryError
from canal.registry.registry import Registry
from canal.stages.testing.tests import RELIABILITY_FILE, RELIABILITY_PICTURE
from canal.workspace import Workspace
from tests.make import make_adata

QUICK = ("training.epochs=2", "training.min_steps=20", "bank.size=30", "analytic.pseudo_cells=20")
METRIC = "expected_calibration_error"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace of two stages."""
    found = canal.open_workspace(tmp_path_factory.mktemp("ws"), create=True)
    for seed, types in enumerate((("B", "NK"), ("B", "DC"))):
        cells = make_adata(120, 80, types=types, prefix=f"s{seed}-", seed=seed)
        found.add_stage(cells, labels="cell_type", overrides=QUICK, name=f"stage{seed}")
    return found


def test_every_stage_keeps_it(workspace: Workspace) -> None:
    """Figures and picture lie among the stage's files; the error is a metric of the record and in MLflow."""
    registry = Registry.open(workspace.layout.registry, workspace.layout.settings.name)
    for record in workspace.stages():
        found = workspace.reliability(record.number)

        assert found is not None
        assert found.cells == record.metrics["validation_cells"]
        assert found.accuracy == pytest.approx(record.metrics["validation_accuracy"])
        assert found.error == record.metrics[METRIC]
        assert {RELIABILITY_FILE, RELIABILITY_PICTURE} <= set(record.artifacts)
        assert f"{record.number} {record.name}" in (registry.artifacts(record) / RELIABILITY_PICTURE).read_text()
        assert registry._store.client.get_run(record.run_id).data.metrics[METRIC] == pytest.approx(found.error)


def test_show_has_it(workspace: Workspace) -> None:
    """As JSON with its bins, and for people."""
    line = ["-C", str(workspace.root), "stage", "show", "2"]
    shown = json.loads(CliRunner().invoke(app, [*line, "--json"]).stdout)
    found = workspace.reliability(2)

    assert found is not None
    assert shown["reliability"] == found.to_dict()
    text = CliRunner().invoke(app, line).stdout
    assert f"expected calibration error  {found.error:.4f}" in text
    assert "mean confidence" in text


def test_an_altered_file_is_refused(workspace: Workspace) -> None:
    """It is compared with its hash whenever it is read."""
    registry = Registry.open(workspace.layout.registry, workspace.layout.settings.name)
    path: Path = registry.artifacts(registry.record(1)) / RELIABILITY_FILE
    kept = path.read_text()
    path.write_text(kept.replace("0.", "1.", 1))
    try:
        with pytest.raises(RegistryError, match=r"reliability.json of stage 1 was altered"):
            workspace.reliability(1)
    finally:
        path.write_text(kept)
