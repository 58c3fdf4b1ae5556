"""What any version wrote is read by this one: registries and exports in tests/archives."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import canal
from canal.model.record import parse_record
from canal.registry.registry import Registry
from canal.workspace import Workspace, load_model
from tests.archives.write import HERE, QUERY
from tests.make import make_adata

VERSIONS = sorted(path.parent for path in HERE.glob("v*/expected.json"))


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda folder: folder.name)
def archive(request: pytest.FixtureRequest) -> Path:
    """Folder of one version; it is never written to."""
    found: Path = request.param
    return found


@pytest.fixture(scope="module")
def expected(archive: Path) -> dict[str, Any]:
    """What was true of it when it was written."""
    facts: dict[str, Any] = json.loads((archive / "expected.json").read_text())
    return facts


@pytest.fixture(scope="module")
def workspace(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of its workspace, in another place."""
    root = tmp_path_factory.mktemp(archive.name) / "moved"
    with tarfile.open(archive / "workspace.tar.xz") as file:
        file.extractall(root, filter="data")
    return canal.open_workspace(root)


def test_its_records_are_read(workspace: Workspace, expected: dict[str, Any]) -> None:
    """With all they said; fields that came later have their defaults."""
    found = workspace.stages()

    assert workspace.champion() == expected["champion"]
    assert found == [parse_record(json.dumps(text), "archive") for text in expected["records"]]
    for record, text in zip(found, expected["records"], strict=True):
        assert {k: v for k, v in record.model_dump(mode="json").items() if k in text} == text
        kept = workspace.reliability(record.number)
        assert (kept is None) == ("reliability.json" not in text["artifacts"])


def test_its_files_are_as_they_were_kept(workspace: Workspace) -> None:
    """Every hash of every stage; the copied place does not matter."""
    layout = workspace.layout
    registry = Registry.open(layout.registry, layout.settings.name)

    assert registry.records()
    for record in registry.records():
        folder = registry.artifacts(record)
        assert all((folder / name).is_file() for name in record.artifacts)
        assert list(layout.stages.glob(f"{record.number:03d}-*.toml"))


@pytest.mark.parametrize("stage", [1, 2])
def test_its_models_say_what_they_said(workspace: Workspace, expected: dict[str, Any], stage: int) -> None:
    """Of the same cells."""
    found = workspace.annotate(make_adata(**QUERY), stage=stage)

    assert found.cell_type.tolist() == expected["cell_type"][str(stage)]
    np.testing.assert_allclose(found.confidence, expected["confidence"][str(stage)], atol=1e-3)


def test_its_export_annotates(archive: Path, expected: dict[str, Any]) -> None:
    """As its registry does."""
    found = load_model(archive / "model.canal").annotate(make_adata(**QUERY))

    assert found.cell_type.tolist() == expected["cell_type"]["2"]


def test_it_is_small(archive: Path) -> None:
    """Archives stay in git for ever."""
    assert sum(path.stat().st_size for path in archive.rglob("*") if path.is_file()) < 300_000
