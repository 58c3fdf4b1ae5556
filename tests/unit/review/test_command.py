"""`canal review` on the command line: what is refused before anything is opened."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from typer.testing import CliRunner

import canal
from canal.cli.main import app


def refused(*words: str, before: tuple[str, ...] = ()) -> str:
    """Run `canal review` with JSON and return its error."""
    done = CliRunner().invoke(app, [*before, "review", *words, "--json"])
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


def in_the_way(lab: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the folder of the review be one that cannot be written: a file stands there."""
    (lab / "query.h5ad.review").write_text("in the way")


def gone(lab: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file be annotated by a stage that the workspace does not have."""
    canal.open_workspace(lab / "ws").annotate(lab / "query.h5ad", out=lab / "annotated.h5ad")
    with h5py.File(lab / "annotated.h5ad", "r+") as file:
        file["uns/canal/stage"][...] = 7
    (lab / "annotated.h5ad").replace(lab / "query.h5ad")


def too_many(_lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file have more cells than a page can draw."""
    monkeypatch.setattr("canal.review.maps.MOST_POINTS", 100)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (in_the_way, "ask for the right to write in that folder"),
        (gone, "was annotated by stage 7 of model"),
        (too_many, "has 180 cells; a review shows 100 at most"),
    ],
)
def test_what_cannot_be_opened_ends_with_one_sentence(
    lab: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path, pytest.MonkeyPatch], None], message: str
) -> None:
    """Status 2, no link, and no decisions beside the file."""
    spoil(lab, monkeypatch)
    assert message in refused(str(lab / "query.h5ad"), before=("-C", str(lab / "ws")))
    assert not (lab / "query.h5ad.review.jsonl").exists()
