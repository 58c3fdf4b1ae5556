"""`canal doctor` says what is here and what needs mending."""

import pytest

from canal.cli import workspace as doctor
from canal.errors import RegistryError
from canal.registry.registry import Registry
from canal.stages.layout import Layout


@pytest.fixture
def quick(monkeypatch):
    """Leave out the imports of heavy libraries."""
    monkeypatch.setattr(doctor, "PROBES", {"json": "import json"})


def test_all_is_well(run, run_json, quick):
    """Versions, machine, libraries, disk and registry are all there."""
    found = run_json("doctor")
    assert found["healthy"]
    assert found["packages"]["faiss-cpu"]
    assert found["packages"]["anndata"]
    assert found["libraries"] == {"json": True}
    assert found["registry"] == {"workspace": None, "stages": 0}
    assert "Everything works." in run("doctor").stdout


def test_a_broken_library_is_named(run, monkeypatch):
    """The exit code is 1 and the reason is shown."""
    monkeypatch.setattr(doctor, "PROBES", {"avalanche": "raise ImportError('no such thing')"})
    result = run("doctor")
    assert result.exit_code == 1
    assert "avalanche cannot be imported: ImportError: no such thing" in result.stdout


def test_little_disk_is_a_problem(run_json, quick, monkeypatch, run):
    """A disk that is nearly full is reported."""
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1e30)
    assert run("doctor").exit_code == 1


def test_a_workspace_without_stages_is_healthy(run_json, quick, tmp_path):
    """The registry is not made by looking at it."""
    Layout.init(tmp_path)
    assert run_json("doctor")["registry"]["workspace"] == str(tmp_path)
    assert not any((tmp_path / "registry").iterdir())


def test_a_sick_registry_is_a_problem(run, quick, tmp_path, monkeypatch):
    """What the registry complains of is shown, not raised."""
    (Layout.init(tmp_path).registry / "mlflow.db").touch()

    def refuse(*_, **__):
        message = "the database is gone"
        raise RegistryError(message)

    monkeypatch.setattr(Registry, "open", refuse)
    result = run("doctor")
    assert result.exit_code == 1
    assert "problem: the database is gone" in result.stdout
