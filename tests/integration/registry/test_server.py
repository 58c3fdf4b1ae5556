"""A registry on a server: several machines at once, and all that can be wrong on the way to it."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app
from canal.errors import RegistryError
from canal.registry import commit
from canal.registry.registry import Registry
from tests.integration.registry.conftest import Backend, Machine, add, server_only
from tests.integration.registry.server import Server
from tests.make import make_adata
from tests.unit.registry.make import fill

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]

_ADD = """
import json, random, sys, time
from pathlib import Path
from canal.errors import RegistryError
from canal.registry.registry import Registry
from tests.integration.registry.conftest import add
root, name, uri, many = sys.argv[1:]
registry = Registry.open(Path(root), name, create=True, uri=uri)
chance, move = random.Random(root), registry._store.set_alias
def slowly(*args):  # between looking who is in use and saying so
    time.sleep(chance.uniform(0, 0.5))
    move(*args)
registry._store.set_alias = slowly
added, refused = [], 0
while len(added) < int(many):
    number = len(registry.records()) + 1
    try:
        added.append(add(registry, number, parent=None).number)
    except RegistryError as error:
        assert "nother machine" in str(error) or "exists already" in str(error), error
        refused += 1
print(json.dumps([added, refused]))
"""


@server_only
def test_another_machine_sees_and_uses_the_stage(machine: Machine) -> None:
    """Records, champion, files; it goes on from there."""
    committed = add(machine("a"), 1)
    other = machine("b")

    assert other.records() == [committed]
    assert other.champion() == 1
    assert (other.artifacts(committed) / "weights.safetensors").is_file()
    second = add(other, 2)
    assert machine("a").records() == [committed, second]
    assert machine("a").verify() == []


@server_only
def test_a_damaged_copy_is_fetched_again(machine: Machine) -> None:
    """The cache of a machine is no place to trust."""
    record = add(machine("a"), 1)
    path = machine("b").artifacts(record) / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(b"other")

    assert (machine("b").artifacts(record) / "weights.safetensors").read_bytes() == whole
    path.unlink()
    assert machine("b").verify() == []


@server_only
def test_a_number_that_was_taken_in_the_last_moment(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between check and commit: the first stays as it was, the second is told, and nobody ever sees it."""
    first, second = machine("a"), machine("b")
    one = add(first, 1)
    describe = commit._describe_run

    def slow(*args: Any) -> None:
        describe(*args)
        monkeypatch.setattr(commit, "_describe_run", describe)
        add(first, 2, name="quicker")

    monkeypatch.setattr(commit, "_describe_run", slow)
    with pytest.raises(RegistryError, match=r"Another machine committed a stage 2 a moment before.*Run this again"):
        add(second, 2, name="slower")

    assert [r.name for r in second.records()] == [one.name, "quicker"]
    assert second.champion() == 2
    assert second.verify() == []
    assert add(second, 3).parent == 2


@server_only
def test_a_late_version_is_never_seen_and_taken_back(machine: Machine) -> None:
    """Also where its machine was killed before it could do that itself."""
    registry = machine("a")
    one = add(registry, 1)
    tags = registry._store.snapshot().versions[0].tags
    registry._store.create_version(one.run_id, dict(tags) | {"canal.name": "late"}, "")

    assert [v.version for v in registry._store.snapshot().versions] == [1]
    assert machine("b").records() == [one]
    with registry.writing():
        pass
    assert registry._store.snapshot().late == []
    assert len(registry._store.client.search_model_versions(f"name = '{registry.name}'")) == 1


@server_only
def test_a_parent_that_was_removed_in_the_last_moment(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is committed that hangs in the air."""
    first, second = machine("a"), machine("b")
    add(first, 1)
    add(first, 2)
    describe = commit._describe_run

    def slow(*args: Any) -> None:
        describe(*args)
        first._store.delete_version(2)

    monkeypatch.setattr(commit, "_describe_run", slow)
    with pytest.raises(RegistryError, match="Stage 2, which this stage starts from, was removed"):
        add(second, 3)

    assert [r.number for r in second.records()] == [1]


@server_only
def test_two_machines_at_once_lose_nothing(backend: Backend, server: Server, tmp_path: Path) -> None:
    """Each adds three stages; each number is one machine's, and each stage is whole."""
    name = f"lab-{uuid.uuid4().hex[:12]}"
    processes = [_adding(tmp_path / f"machine{k}" / "registry", name, server.url) for k in range(2)]
    answers = [process.communicate() for process in processes]
    assert [err for _, err in answers] == ["", ""]
    added = [json.loads(out)[0] for out, _ in answers]

    registry = Registry.open(tmp_path / "reader" / "registry", name, uri=server.url)
    assert sorted(added[0] + added[1]) == [1, 2, 3, 4, 5, 6]
    assert [r.number for r in registry.records()] == [1, 2, 3, 4, 5, 6]
    assert registry.verify() == []
    assert registry.champion() == 6
    assert registry._store.snapshot().aliases["champion"] == registry.record(6).version


@server_only
def test_gc_leaves_what_another_machine_may_be_writing(machine: Machine) -> None:
    """A run is an orphan on a server after a day; then its files go, too."""
    registry = machine("a")
    draft = registry.draft("k")
    fill(draft, 1)
    store = registry._store
    run = store.create_run("001-toy", {"canal.state": "draft"})
    store.upload(run, draft.folder)

    assert [o.kind for o in registry.orphans()] == ["draft"]
    states = store.run_states()  # MLflow cannot change when a run began; so it is asked as if a day had passed
    store.__dict__["run_states"] = lambda: {r: (state, age + 90_000) for r, (state, age) in states.items()}
    assert [o.kind for o in registry.collect_garbage()] == ["run", "draft"]
    del store.__dict__["run_states"]
    assert run not in store.run_states()


@server_only
def test_a_lab_works_on_the_server(backend: Backend, server: Server, tmp_path: Path) -> None:
    """Init, add, list, annotate from another machine; the password is written nowhere."""
    root, other = tmp_path / f"ws-{uuid.uuid4().hex[:8]}", tmp_path / "elsewhere"
    make_adata(80, types=("B", "NK")).write_h5ad(tmp_path / "cells.h5ad")
    quick = ("training.epochs=2", "training.min_steps=10", "bank.size=24", "analytic.pseudo_cells=20")
    words = ["stage", "add", "--data", str(tmp_path / "cells.h5ad"), *(w for q in quick for w in ("--set", q))]
    result = CliRunner().invoke(app, ["--registry", server.url, "-C", str(root), *words])
    assert result.exit_code == 0, result.output

    assert f'registry = "{server.url}"' in (root / "canal.toml").read_text()
    assert not (root / "registry" / "mlflow.db").exists()
    assert canal.open_workspace(root).champion() == 1
    other.mkdir()
    (other / "canal.toml").write_text(f'name = "{root.name}"\nregistry = "{server.url}"\n')
    annotation = canal.open_workspace(other).annotate(make_adata(20, types=("B", "NK"), seed=3))
    assert set(annotation.cell_type) <= {"B", "NK"}
    written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert server.password.encode() not in written


def _adding(root: Path, name: str, uri: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", _ADD, str(root), name, uri, "3"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)
