"""`canal review` on the command line: what is refused before anything is opened."""

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from canal.cli.main import app


def refused(*words: str) -> str:
    """Run `canal review` with JSON and return its error."""
    done = CliRunner().invoke(app, ["review", *words, "--json"])
    assert done.exit_code == 2, done.output
    return str(json.loads(done.stdout)["error"])


@pytest.mark.filterwarnings("ignore")
def test_a_port_in_use_ends_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The port is looked at before the cells are."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"Port {port} of 127.0.0.1" in refused("cells.h5ad", "--port", str(port))


def test_no_file_and_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file the one that is reviewed here is taken, where there is one; a name is no blank."""
    monkeypatch.chdir(tmp_path)
    assert "none. Name one" in refused()
    for name in ("a", "b"):
        (tmp_path / f"{name}.h5ad.review.jsonl").touch()
    assert "a.h5ad, b.h5ad" in refused()
    assert "--user is empty" in refused("a.h5ad", "--user", " ")


def test_export_needs_decisions_and_a_file_for_cas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--cas` alone is refused, in words."""
    monkeypatch.chdir(tmp_path)
    assert "--cas goes along with --out" in refused("export", "a.h5ad", "--cas", "a.json")
