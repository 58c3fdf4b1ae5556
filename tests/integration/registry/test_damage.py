"""What was deleted or altered is found, named, and never used."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from canal.errors import RegistryError
from canal.registry.registry import Registry
from tests.integration.registry.conftest import MODEL, OpenRegistry, add

Stored = Callable[[str], Path]
FILES = ("weights.safetensors", "bank.safetensors", "types.json", "MLmodel", "record.json", "manifest.json")


@pytest.mark.parametrize("name", FILES)
def test_one_altered_byte_is_found(open_registry: OpenRegistry, stored: Stored, name: str) -> None:
    """In each file of a stage; the message names file, expected and found digest, and the way out."""
    registry = open_registry()
    add(registry, 1)
    record = add(registry, 2)
    path = stored(record.run_id) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    problems = open_registry().verify()
    assert [(p.stage, p.what, p.kind) for p in problems] == [(2, name, "altered")]
    pattern = rf"{name} of stage 2 is altered: expected sha256:\w+, found sha256:\w+\. .*backup"
    with pytest.raises(RegistryError, match=pattern):
        registry.artifacts(record)
    registry.artifacts(registry.record(1))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(open_registry: OpenRegistry, stored: Stored, name: str) -> None:
    """Named in `verify`, and refused when the stage is used."""
    registry = open_registry()
    record = add(registry, 1)
    (stored(record.run_id) / name).unlink()

    assert [(p.what, p.kind) for p in registry.verify()] == [(name, "missing")]
    with pytest.raises(RegistryError, match=f"{name} of stage 1 is missing"):
        registry.artifacts(record)


def test_an_extra_file_is_named_but_does_not_stop(open_registry: OpenRegistry, stored: Stored) -> None:
    """It is not used, so it does no harm."""
    registry = open_registry()
    record = add(registry, 1)
    (stored(record.run_id) / "stray.txt").write_text("?")

    assert [(p.what, p.kind) for p in registry.verify()] == [("stray.txt", "extra")]
    registry.artifacts(record)


def test_a_missing_artifact_folder_is_told(open_registry: OpenRegistry, stored: Stored) -> None:
    """The stages are still listed; using one says what is missing."""
    registry = open_registry()
    record = add(registry, 1)
    shutil.rmtree(stored(record.run_id))
    registry = open_registry()

    assert registry.records() == [record]
    with pytest.raises(RegistryError, match=r"/model is missing; expected the files of stage 1"):
        registry.artifacts(record)
    assert [p.kind for p in registry.verify()] == ["missing"]


def test_a_missing_declaration_is_found_and_written_anew(local_registry: Registry) -> None:
    """It follows from the record."""
    registry = local_registry
    add(registry, 1)
    path = registry.declarations / "001-toy1.toml"
    text = path.read_text()
    path.unlink()

    assert [(p.what, p.kind) for p in registry.verify()] == [(str(path), "missing")]
    registry.declare(1)
    assert path.read_text() == text


def _delete(database: Path) -> None:
    database.unlink()


def _replace(database: Path) -> None:
    database.write_text("not a database " * 1000)


def _empty(database: Path) -> None:
    database.write_bytes(b"")


def _truncate(database: Path) -> None:
    database.write_bytes(database.read_bytes()[:20_000])


def _alter_record(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute(
        "UPDATE model_version_tags SET value = replace(value, 'type 1', 'type X') WHERE key = 'canal.record'"
    )
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        pytest.param(_delete, "mlflow.db is missing", id="deleted"),
        pytest.param(_replace, "altered or damaged", id="replaced"),
        pytest.param(_empty, "no MLflow database", id="empty"),
        pytest.param(_truncate, "altered or damaged", id="truncated"),
        pytest.param(_alter_record, "record of stage 1 .* was altered", id="record"),
    ],
)
@pytest.mark.parametrize("create", [False, True])
def test_a_damaged_database_is_told(
    empty_registry: Path, tmp_path: Path, damage: Callable[[Path], None], match: str, create: bool
) -> None:
    """Never a new one beside the artifacts of the old; the artifacts stay."""
    root = tmp_path / "registry"
    shutil.copytree(empty_registry, root)
    registry = Registry.open(root, MODEL)
    record = add(registry, 1)
    registry.close()
    damage(root / "mlflow.db")

    with pytest.raises(RegistryError, match=match):
        Registry.open(root, MODEL, create=create).records()
    assert (root / "artifacts" / record.run_id / "artifacts/model/weights.safetensors").is_file()


def test_another_model_name_is_told(empty_registry: Path) -> None:
    """canal.toml and the registry must agree."""
    with pytest.raises(RegistryError, match="no model 'other'; it has: lab"):
        Registry.open(empty_registry, "other")


def test_an_altered_record_is_named_by_verify(open_registry: OpenRegistry) -> None:
    """With the stage it belongs to."""
    registry = open_registry()
    for record in (add(registry, 1), add(registry, 2)):
        text = record.model_copy(update={"cells": 99}).to_json()
        registry._store.tag_version(record.version, "canal.record", text)

    assert {(p.stage, p.what, p.kind) for p in registry.verify()} == {
        (1, "record", "altered"),
        (2, "record", "altered"),
    }


def test_a_deleted_run_or_version_is_named(open_registry: OpenRegistry) -> None:
    """References to what somebody removed in MLflow."""
    registry = open_registry()
    first, second = add(registry, 1), add(registry, 2)
    client = registry._store.client
    client.delete_run(second.run_id)
    client.delete_model_version(registry.name, str(first.version))

    assert {(p.stage, p.what, p.kind) for p in registry.verify()} == {
        (2, f"run {second.run_id}", "missing"),
        (2, "parent stage 1", "missing"),
    }


def test_a_moved_workspace_works(empty_registry: Path, tmp_path: Path) -> None:
    """Read at once; from the next writing on MLflow knows the new place, too."""
    old, new = tmp_path / "old place", tmp_path / "new#place é"
    shutil.copytree(empty_registry, old / "registry")
    registry = Registry.open(old / "registry", MODEL)
    add(registry, 1)
    registry.close()
    old.rename(new)
    moved = Registry.open(new / "registry", MODEL)
    moved.artifacts(moved.record())
    second = add(moved, 2)

    assert moved.verify() == []
    assert new in moved.artifacts(second).parents
    fetched = moved._store.client.download_artifacts(moved.record(1).run_id, "model")
    assert Path(fetched, "types.json").is_file()
    assert not old.exists()
    moved.close()
