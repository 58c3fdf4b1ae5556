"""The short way to the database: bad files, and a database that was moved."""

import sqlite3
from pathlib import Path

import pytest

from canal.errors import RegistryError
from canal.registry.snapshot import check_database, move_artifacts, read_snapshot


def _tables(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def _missing(path: Path) -> None:
    path.unlink(missing_ok=True)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("this is no database at all, but a text" * 100)


def _cut(path: Path) -> None:
    _tables(path, "CREATE TABLE registered_models (name TEXT)", "CREATE TABLE other (x TEXT)")
    path.write_bytes(path.read_bytes()[:5000])


def _other_model(path: Path) -> None:
    _tables(
        path,
        "CREATE TABLE registered_models (name TEXT)",
        "INSERT INTO registered_models VALUES ('theirs')",
    )


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        pytest.param(_missing, "is missing", id="missing"),
        pytest.param(_empty, "no registered models", id="empty"),
        pytest.param(_text, "altered or damaged", id="text"),
        pytest.param(_cut, "altered or damaged", id="truncated"),
        pytest.param(_other_model, "has no model 'lab'; it has: theirs", id="other-model"),
    ],
)
def test_a_bad_database_is_one_clear_message(tmp_path: Path, damage, match: str) -> None:
    """It names the file and what to do, and nothing is written."""
    path = tmp_path / "mlflow.db"
    damage(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(RegistryError, match=match) as caught:
        read_snapshot(path, "lab")

    assert str(path) in str(caught.value)
    assert before == (path.read_bytes() if path.exists() else None)


def test_tables_of_another_shape_are_left_to_mlflow(tmp_path: Path) -> None:
    """A later MLflow may change them; then the short way steps aside."""
    path = tmp_path / "mlflow.db"
    _other_model(path)

    assert read_snapshot(path, "theirs") is None


def test_damage_inside_the_file_is_found(tmp_path: Path) -> None:
    """SQLite checks its own pages."""
    path = tmp_path / "mlflow.db"
    rows = [f"INSERT INTO t VALUES ({i}, '{'x' * 200}')" for i in range(200)]
    _tables(path, "CREATE TABLE t (n INTEGER PRIMARY KEY, x TEXT)", *rows)
    assert check_database(path) == "ok"
    content = bytearray(path.read_bytes())
    content[4096 : 4096 + 12] = b"\xff" * 12
    path.write_bytes(content)

    try:
        state = check_database(path)
    except RegistryError as error:
        state = str(error)
    assert state != "ok"


def test_moved_artifacts_are_told_to_the_database(tmp_path: Path) -> None:
    """Only what lay under the old place is changed, and only once."""
    path = tmp_path / "mlflow.db"
    _tables(
        path,
        "CREATE TABLE experiments (name TEXT, artifact_location TEXT)",
        "CREATE TABLE runs (artifact_uri TEXT)",
        "CREATE TABLE logged_models (artifact_location TEXT)",
        "INSERT INTO experiments VALUES ('lab', 'file:///old/a'), ('else', 'file:///old/ab')",
        "INSERT INTO runs VALUES ('file:///old/a/r1/artifacts'), ('s3://bucket/r2')",
    )

    assert move_artifacts(path, "lab", "file:///new/place/a")
    assert not move_artifacts(path, "lab", "file:///new/place/a")
    connection = sqlite3.connect(path)
    uris = {row[0] for row in connection.execute("SELECT artifact_uri FROM runs")}
    places = dict(connection.execute("SELECT name, artifact_location FROM experiments"))
    connection.close()
    assert uris == {"file:///new/place/a/r1/artifacts", "s3://bucket/r2"}
    assert places == {"lab": "file:///new/place/a", "else": "file:///old/ab"}
