"""The registry as other processes meet it: quick, quiet, one writer at a time."""

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from canal.errors import RegistryError
from canal.files import digest_bytes
from canal.registry.registry import Registry
from tests.integration.registry.conftest import MODEL, OpenRegistry, add
from tests.unit.registry.make import make_record

ROOT = Path(__file__).parents[3]

_ADD = """
import json, sys
from pathlib import Path
from canal.registry.registry import Registry
from tests.integration.registry.conftest import add
registry = Registry.open(Path(sys.argv[1]), "lab", create=True)
with registry.writing(timeout=30):
    number = len(registry.records()) + 1
    record = add(registry, number)
    problems = registry.verify()
print(json.dumps({"stage": record.number, "problems": problems}))
"""
_LIST = """
import json, sys
from pathlib import Path
from canal.registry.registry import Registry
records = Registry.open(Path(sys.argv[1]), "lab").records()
print(json.dumps([len(records), "mlflow" in sys.modules]))
"""


def _run(code: str, root: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root)],
        cwd=ROOT,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_stdout_is_json_alone_from_the_first_stage_on(tmp_path: Path) -> None:
    """Neither MLflow nor alembic says a word, on stdout or stderr; pickles are not allowed."""
    root = tmp_path / "registry"
    process = _run(_ADD, root, MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false")
    out, err = process.communicate()

    assert err == ""
    assert json.loads(out) == {"stage": 1, "problems": []}
    assert not (ROOT / "mlruns").exists()


@pytest.mark.slow
def test_two_writers_lose_nothing(empty_registry: Path, tmp_path: Path) -> None:
    """The second waits for the first, then adds the next stage."""
    root = tmp_path / "registry"
    shutil.copytree(empty_registry, root)
    processes = [_run(_ADD, root) for _ in range(2)]
    results = [process.communicate() for process in processes]

    assert sorted(json.loads(out)["stage"] for out, _ in results) == [1, 2]
    assert [r.number for r in Registry.open(root, MODEL).records()] == [1, 2]


def test_a_reader_does_not_wait_for_a_writer(open_registry: OpenRegistry) -> None:
    """Another writer is refused meanwhile, and told who writes."""
    registry = open_registry()
    first = add(registry, 1)
    with registry.writing():
        other = open_registry()

        assert other.records() == [first]
        with pytest.raises(RegistryError, match=f"in use by process {os.getpid()}"), other.writing(0.2):
            pass


def test_two_hundred_stages_are_listed_at_once(empty_registry: Path, tmp_path: Path) -> None:
    """Under a second of work, the start of Python counted in; MLflow is not even imported."""
    root = tmp_path / "registry"
    shutil.copytree(empty_registry, root)
    registry = Registry.open(root, MODEL)
    add(registry, 1)
    registry.close()
    multiply(root / "mlflow.db", 200)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out, err = _run(_LIST, root).communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert err == ""
    assert json.loads(out) == [200, False]
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 1.0


def multiply(database: Path, stages: int) -> None:
    """Write stages 2 and on as copies of the first, each with a record of 30 types."""
    connection = sqlite3.connect(database)
    versions = connection.execute("SELECT * FROM model_versions").fetchone()
    columns = [c[1] for c in connection.execute("PRAGMA table_info(model_versions)")]
    tags = dict(connection.execute("SELECT key, value FROM model_version_tags"))
    for number in range(2, stages + 1):
        row = dict(zip(columns, versions, strict=True)) | {"version": number}
        marks = ", ".join("?" * len(columns))
        connection.execute(f"INSERT INTO model_versions VALUES ({marks})", [row[c] for c in columns])
        types = tuple(f"a type of cell {k}" for k in range(30))
        text = make_record(number, types=types, parent=None).to_json()
        changed = {"canal.stage": str(number), "canal.record": text}
        changed["canal.record_digest"] = digest_bytes(text.encode())
        connection.executemany(
            "INSERT INTO model_version_tags (name, version, key, value) VALUES (?, ?, ?, ?)",
            [(MODEL, number, key, value) for key, value in (tags | changed).items()],
        )
    connection.commit()
    connection.close()
