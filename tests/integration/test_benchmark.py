"""`canal benchmark` end to end, on toy stages: resumed, repeated on change, and honest about what fails."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from canal.cli.main import app
from tests.make import make_adata

STREAM = """\
labels = "cell_type"
[[stage]]
name = "one"
data = "one.h5ad"
[[stage]]
name = "two"
data = "two.h5ad"
[[test]]
name = "third lab"
data = "three.h5ad"
"""


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_adata(60, types=("B", "NK")).write_h5ad("one.h5ad")
    make_adata(60, types=("NK", "DC"), prefix="x", seed=1).write_h5ad("two.h5ad")
    make_adata(40, types=("B", "MK"), prefix="y", seed=2).write_h5ad("three.h5ad")
    Path("toy.toml").write_text(STREAM)
    return Path("toy.toml")


def run(*options: str) -> dict:
    """Return the JSON of a benchmark that must work."""
    result = CliRunner().invoke(app, ["benchmark", "--stream", "toy.toml", *options, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_table_is_filled_once_and_again_where_inputs_change(stream):
    """Finished runs are kept; what was made from other cells is not taken for the same."""
    first = run("--methods", "scibet,scibet-joint", "--orders", "2")
    rows = {row["name"]: row for row in first["rows"]}
    assert (first["kept_runs"], rows["scibet"]["runs"]) == (0, 2)
    assert rows["scibet-joint"]["sees_all"]
    assert rows["scibet-joint"]["mean"]["accuracy"] > rows["scibet"]["mean"]["accuracy"] + 0.1
    assert rows["scibet"]["mean"]["forgetting"] > 0.3  # the newest stage alone does not know the other's type
    assert rows["scibet"]["mean"]["peak_mb"] > 50
    assert rows["scibet-joint"]["unseen"]["third lab"]["accuracy"] > 0.9  # on B, the type that was taught
    matrix = next(r for r in first["runs"] if r["method"] == "scibet" and r["order"] == [2, 1])["accuracy"]
    assert [len(row) for row in matrix] == [1, 2]
    again = run("--methods", "scibet", "--orders", "2")
    assert again["kept_runs"] == 2
    assert again["rows"][0]["mean"] == rows["scibet"]["mean"]
    out = Path("benchmark-toy")
    assert (out / "benchmark.png").stat().st_size > 10_000
    assert "--methods scibet --orders 1-2,2-1 --seeds 1 --out benchmark-toy" in rows["scibet"]["command"]
    make_adata(60, types=("NK", "DC"), prefix="x", seed=3).write_h5ad("two.h5ad")
    stale = run("--methods", "scibet", "--orders", "1", "--kept")
    assert (stale["kept_runs"], stale["rows"][0]["reason"]) == (0, "asked for what is there")
    assert run("--methods", "scibet", "--orders", "1")["kept_runs"] == 0


def test_every_method_has_its_row(stream):
    """What crashes, what is not installed and what cannot run say so; the others are not held up."""
    python = Path("peers/celltypist/bin/python")
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 'broken here' >&2\nexit 3\n")
    python.chmod(0o755)
    found = run("--methods", "celltypist,garnett,scina,scmap-cluster", "--peers", "peers")
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["scmap-cluster"]["runs"] == 1
    assert "exit code 3" in rows["celltypist"]["reason"]
    assert "R package" in rows["garnett"]["reason"]
    assert "--markers" in rows["scina"]["reason"]
    text = Path("benchmark-toy/table.md").read_text()
    assert all(f"not run: {rows[name]['reason']}" in text for name in ("celltypist", "garnett", "scina"))
    assert [r["status"] for r in found["runs"]] == ["failed", "unavailable", "unavailable", "done"]


def test_a_process_that_dies_is_a_row(stream, monkeypatch):
    """A method that takes its process along leaves the reason behind, and is tried again the next time."""
    Path("dies").write_text("#!/bin/sh\necho 'out of memory' >&2\nkill -9 $$\n")
    os.chmod("dies", 0o755)  # noqa: PTH101
    with monkeypatch.context() as patched:
        patched.setattr("sys.executable", str(Path("dies").absolute()))
        dead = run("--methods", "scibet")
    assert dead["rows"][0]["reason"] == "its process was ended by signal 9: out of memory"
    assert run("--methods", "scibet")["rows"][0]["runs"] == 1


def test_a_folder_of_something_else_is_left_alone(stream):
    """Results go into a folder of their own or a new one."""
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("dear diary")
    result = CliRunner().invoke(app, ["benchmark", "--stream", "toy.toml", "--methods", "scibet", "--out", "mine"])
    assert result.exit_code == 2
    assert "holds something else" in result.stderr
    assert [p.name for p in Path("mine").iterdir()] == ["notes.txt"]


PEER = """\
from serve import serve
def fit(train):
    seen = sorted(set(train.labels.tolist()))
    print("noise of a library")
    return lambda cells: [seen[-1]] * cells.on(train.genes).shape[0]
serve(fit)
"""


def test_a_peer_is_taught_and_asked_through_files(stream, tmp_path, monkeypatch):
    """Cells reach the peer with genes, labels and stages, and its answers come back in order."""
    import sys

    from canal.benchmark.method import Context, Unavailable
    from canal.benchmark.methods import external
    from canal.benchmark.stream import read_stage, read_stream
    from canal.benchmark.worker import run_method
    from canal.config import load_preset

    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "serve.py").write_text((external.SCRIPTS / "serve.py").read_text())
    (scripts / "singler_peer.py").write_text(PEER)
    (tmp_path / "peers/singler/bin").mkdir(parents=True)
    (tmp_path / "peers/singler/bin/python").symlink_to(sys.executable)
    monkeypatch.setattr(external, "SCRIPTS", scripts)
    stages = [read_stage(s) for s in read_stream(str(stream), tmp_path).stages]
    context = Context(
        preset=load_preset("compact"), seed=0, n_types=3, markers=None, peers=tmp_path / "peers", scratch=tmp_path
    )
    alone, joint = (m for m in external.METHODS if m.name.startswith("singler"))
    assert run_method(alone, stages, {}, context)["accuracy"] == [
        [0.5],
        [0.5, 0.5],
    ]  # NK of B and NK, then of DC and NK
    assert run_method(joint, stages, {}, context)["accuracy"] == [[0.5], [0.5, 0.5]]
    missing = external.Peer(name="none", package="no_such_package", requirements=("nothing>=1",))
    with pytest.raises(Unavailable, match=r"python -m venv PEERS/none .* install 'nothing>=1'"):
        external.find_python(missing, tmp_path / "peers")
