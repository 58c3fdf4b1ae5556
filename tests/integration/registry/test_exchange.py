"""A stage leaves its registry as one file, comes into another, and annotates without any."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import RegistryError
from canal.history.exchange import export_stage, import_stage
from canal.registry.flavour import FLAVOUR_FILES
from canal.registry.package import open_package
from canal.registry.registry import Registry
from canal.stages.layout import Layout
from canal.workspace import load_model
from tests.integration.registry.conftest import OpenRegistry, add
from tests.make import make_adata

pytestmark = pytest.mark.usefixtures("made_up_files")


@pytest.fixture
def registry(local_registry: Registry) -> Registry:
    """Two stages."""
    for number in (1, 2):
        add(local_registry, number)
    return local_registry


@pytest.fixture
def exported(registry: Registry, tmp_path: Path) -> Path:
    """Stage 2 in a file."""
    registry.export(2, tmp_path / "model.canal")
    return tmp_path / "model.canal"


def run(root: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run a command line in a workspace; gives exit code and JSON."""
    result = CliRunner().invoke(app, ["-C", str(root), *map(str, words), "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_an_export_holds_record_and_files(exported: Path, registry: Registry) -> None:
    """As they were committed; any zip tool opens it; nothing is pickled."""
    record = registry.record(2)
    with open_package(exported) as package:
        assert package.model == registry.name
        assert package.record == record.model_copy(update={"version": 0})
        folder = registry.artifacts(record)
        model = set(record.artifacts) - FLAVOUR_FILES
        assert {p.name for p in package.folder.iterdir()} == model
        for name in model:
            assert (package.folder / name).read_bytes() == (folder / name).read_bytes()
    assert not package.folder.exists()
    names = zipfile.ZipFile(exported).namelist()
    assert names[:2] == ["canal.json", "record.json"]
    assert not [n for n in names if n.endswith((".pkl", ".pt", ".pth"))]


def test_export_and_import_work_with_any_registry(open_registry: OpenRegistry, tmp_path: Path) -> None:
    """Out of one, into another of the same kind."""
    registry = open_registry()
    add(registry, 1)
    registry.export(1, tmp_path / "one.canal")
    uri = None if registry.uri.startswith("sqlite") else registry.uri
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "canal.toml").write_text(f'name = "{registry.name}-2"\nregistry = "{uri or "local"}"\n')

    record, champion = import_stage(Layout(tmp_path / "other"), tmp_path / "one.canal")
    assert (record.number, champion) == (1, True)
    again = Registry.open(tmp_path / "other" / "registry", f"{registry.name}-2", uri=uri)
    assert again.record().artifacts == registry.record().artifacts
    assert again.verify() == []
    again.close()


def test_the_same_stage_gives_the_same_file(exported: Path, registry: Registry, tmp_path: Path) -> None:
    """Byte for byte."""
    registry.export(2, tmp_path / "again.canal")

    assert (tmp_path / "again.canal").read_bytes() == exported.read_bytes()


def test_an_export_comes_into_another_workspace(exported: Path, registry: Registry, tmp_path: Path) -> None:
    """As its first stage, in use at once; it remembers where it comes from, and verifies."""
    code, found = run(tmp_path / "other", "registry", "import", exported, "--name", "atlas")

    assert (code, found) == (0, {"stage": 1, "name": "atlas", "version": 1, "champion": True})
    other = Registry.open(tmp_path / "other" / "registry", "other")
    record, source = other.record(1), registry.record(2)
    assert record.artifacts == source.artifacts
    assert (record.types, record.new_types, record.parent) == (source.types, source.types, None)
    assert record.created == source.created
    assert record.notes["imported"]["model"] == registry.name
    assert record.notes["imported"]["stage"] == 2
    assert other.verify() == []
    other.close()


def test_a_later_import_waits_for_promotion(exported: Path, tmp_path: Path) -> None:
    """It does not push the stage in use aside; the same one twice is refused."""
    Layout.init(tmp_path / "other")
    other = Registry.open(tmp_path / "other" / "registry", "other", create=True)
    add(other, 1)

    assert run(tmp_path / "other", "registry", "import", exported)[1]["champion"] is False
    assert other.champion() == 1
    code, found = run(tmp_path / "other", "registry", "import", exported)
    assert code == 2
    assert "is stage 2 (toy2) already" in found["error"]
    assert len(other.records()) == 2
    other.close()


def test_export_does_not_overwrite_and_leaves_no_half(exported: Path, registry: Registry, tmp_path: Path) -> None:
    """Neither an existing file, nor a folder that is not there."""
    before = exported.read_bytes()
    with pytest.raises(RegistryError, match="exists already"):
        registry.export(1, exported)
    with pytest.raises(RegistryError, match="cannot be written"):
        registry.export(1, tmp_path / "none" / "model.canal")

    assert exported.read_bytes() == before
    assert not list(tmp_path.glob(".*.new"))
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_damaged_stage_is_not_exported(registry: Registry, tmp_path: Path) -> None:
    """The file is not made."""
    (registry.artifacts(registry.record(1)) / "types.json").write_bytes(b"[]")
    with pytest.raises(RegistryError, match=r"types\.json of stage 1 is altered"):
        registry.export(1, tmp_path / "model.canal")

    assert not (tmp_path / "model.canal").exists()


def test_an_export_annotates_as_its_stage_does(learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that is no workspace."""
    path = tmp_path / "model.canal"
    export_stage(Layout(learned), 1, path)
    query = make_adata(40, types=("B", "NK"), seed=5)
    query.write_h5ad(tmp_path / "query.h5ad")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    expected = canal.open_workspace(learned).annotate(query)

    found = load_model(path).annotate(query)
    np.testing.assert_array_equal(found.cell_type, expected.cell_type)
    np.testing.assert_array_equal(found.confidence, expected.confidence)
    assert found.facts["model"] == expected.facts["model"]
    assert found.facts["model_digest"] == expected.facts["model_digest"]

    words = ("annotate", "--model", path, "--data", tmp_path / "query.h5ad", "--out", tmp_path / "out.csv")
    code, answer = run(tmp_path / "empty", *words)
    assert (code, answer["cells"]) == (0, 40)
    assert list((tmp_path / "empty").iterdir()) == []
    code, answer = run(tmp_path / "empty", *words, "--stage", "1")
    assert (code, answer["kind"]) == (2, "ConfigError")
