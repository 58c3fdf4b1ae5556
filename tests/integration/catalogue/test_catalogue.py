"""A catalogue of models: from a folder or a server, whole or not at all, and believed nothing."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from canal.catalogue.address import ATTEMPTS, Address
from canal.catalogue.index import INDEX_FILE, Entry, Index
from canal.cli.main import app
from canal.errors import CanalError, ConfigError
from canal.files import digest_bytes
from canal.registry.shipped import shipped_models
from canal.workspace import load_model, open_workspace
from tests.integration.catalogue.server import Served, serving

PACKAGE = Path(__file__).parents[2] / "archives" / "v1" / "model.canal"


def run(*words: object) -> tuple[int, dict[str, Any]]:
    """Run `canal models ...`; return exit code and JSON."""
    result = CliRunner().invoke(app, ["models", *map(str, words), "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with no catalogue named and no proxy between."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("CANAL_CATALOGUE", raising=False)
    monkeypatch.setenv("CANAL_WORKSPACE", "")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a catalogue of two models."""
    catalogue = tmp_path / "models"
    for name in ("lung", "skin"):
        shutil.copyfile(PACKAGE, tmp_path / f"{name}.canal")
        assert run("add", tmp_path / f"{name}.canal", "--catalogue", catalogue)[0] == 0
    return catalogue


@pytest.fixture
def server(folder: Path) -> Iterator[Served]:
    """Serve the catalogue."""
    with serving(folder) as served:
        yield served


def test_a_catalogue_is_an_index_and_files(folder: Path) -> None:
    """Name, size, hash, types and numbers stand in the index; the same models give the same bytes."""
    assert sorted(path.name for path in folder.iterdir()) == [INDEX_FILE, "lung.canal", "skin.canal"]
    table = json.loads((folder / INDEX_FILE).read_text())
    assert [model["name"] for model in table["models"]] == ["lung", "skin"]
    entry = table["models"][0]
    assert entry["bytes"] == PACKAGE.stat().st_size
    assert entry["sha256"] == digest_bytes(PACKAGE.read_bytes())
    assert set(entry["types"]) == set(load_model(PACKAGE).model().types)
    assert entry["cells"] > 0


def test_the_card_goes_into_the_index(tmp_path: Path) -> None:
    """Of a model that has one: ids, sources, licence, figures and limits."""
    code, entry = run("add", shipped_models()["blood"], "--catalogue", tmp_path / "c")
    assert code == 0
    assert entry["types"]["B"]["id"] == "CL:0000236"
    assert entry["species"] == "Homo sapiens"
    assert entry["figures"]["mean"]["plain"]["accuracy"] > 0
    assert entry["sources"][0]["accession"]
    assert entry["limits"]


def test_without_a_catalogue_the_shipped_models_are_listed() -> None:
    """And nothing else is asked of anybody; get and mirror say how to name one."""
    code, answer = run("list")
    assert code == 0
    assert [(model["name"], model["from"]) for model in answer["models"]] == [("blood", "canal")]
    for words in (("get", "lung"), ("mirror", "m"), ("add", PACKAGE)):
        code, answer = run(*words)
        assert code == 2
        assert "No catalogue is named" in answer["error"]


@pytest.mark.parametrize("way", ["option", "environment", "canal.toml"])
def test_the_catalogue_is_named_in_three_ways(way: str, folder: Path, here: Path, monkeypatch: Any) -> None:
    """By option, environment or canal.toml; and as file: address as well as a folder."""
    address = folder.as_uri()
    words: tuple[str, ...] = ()
    if way == "option":
        words = ("--catalogue", address)
    elif way == "environment":
        monkeypatch.setenv("CANAL_CATALOGUE", address)
    else:
        open_workspace(here, create=True)
        with (here / "canal.toml").open("a") as settings:
            settings.write(f'catalogue = "{address}"\n')
    code, answer = run("list", *words)
    assert code == 0
    assert [model["name"] for model in answer["models"]] == ["blood", "lung", "skin"]
    assert run("get", "lung", *words)[0] == 0
    assert (here / "lung.canal").read_bytes() == PACKAGE.read_bytes()


def test_a_server_is_asked_for_what_is_wanted_alone(server: Served, here: Path) -> None:
    """A list fetches the index; a model that is there already is not fetched again."""
    assert run("list", "--catalogue", server.address)[0] == 0
    assert server.asked == [(INDEX_FILE, 0)]
    code, answer = run("get", "skin", "--catalogue", server.address)
    assert (code, answer["out"]) == (0, "skin.canal")
    assert (here / "skin.canal").read_bytes() == PACKAGE.read_bytes()
    assert load_model("skin.canal").model().types
    server.asked.clear()
    assert run("get", "skin", "--catalogue", server.address)[0] == 0
    assert server.asked == [(INDEX_FILE, 0)]


def test_a_connection_that_is_cut_goes_on(server: Served, here: Path) -> None:
    """Within one command, and over two: no byte is asked for twice."""
    size = PACKAGE.stat().st_size
    server.cut = size // (ATTEMPTS + 2) + 1
    code, answer = run("get", "lung", "--catalogue", server.address)
    assert code == 2
    assert f"cut {ATTEMPTS} times" in answer["error"]
    assert not (here / "lung.canal").exists()
    assert run("get", "lung", "--catalogue", server.address)[0] == 0
    assert (here / "lung.canal").read_bytes() == PACKAGE.read_bytes()
    starts = [start for name, start in server.asked if name == "lung.canal"]
    assert starts == [server.cut * n for n in range(ATTEMPTS + 2)]
    assert sorted(path.name for path in here.iterdir()) == ["lung.canal"]


def test_a_server_that_begins_anew_is_followed(server: Served, here: Path) -> None:
    """One that knows no ranges sends the whole file again: it is not appended to what came before."""
    server.cut, server.ranges = 1000, False
    assert run("get", "lung", "--catalogue", server.address)[0] == 2
    server.cut = None
    assert run("get", "lung", "--catalogue", server.address)[0] == 0
    assert (here / "lung.canal").read_bytes() == PACKAGE.read_bytes()


def changed(content: bytes) -> bytes:
    """Return the content with another byte in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("kind", ["changed", "longer", "shorter", "another file"])
def test_a_file_that_is_not_the_index_says_is_refused(kind: str, server: Served, here: Path) -> None:
    """By its hash or its size; nothing of it stays."""
    content = PACKAGE.read_bytes()
    server.instead["lung.canal"] = {
        "changed": changed(content),
        "longer": content + b"more" * 100_000,
        "shorter": content[:-100],
        "another file": b"<html>Sign in to the hotel's network</html>",
    }[kind]
    code, answer = run("get", "lung", "--catalogue", server.address)
    assert code == 2
    shorter = kind in ("shorter", "another file")
    assert ("cannot be had" if shorter else "is not the file of its index") in answer["error"]
    assert not (here / "lung.canal").exists()
    # The right file afterwards: what came of the wrong one does not spoil it for ever.
    server.instead.clear()
    assert 0 in [run("get", "lung", "--catalogue", server.address)[0] for _ in range(2)]
    assert (here / "lung.canal").read_bytes() == PACKAGE.read_bytes()


def test_a_file_that_is_no_model_is_refused(server: Served, folder: Path, here: Path) -> None:
    """Although size and hash are those of the index."""
    content = b"no model at all"
    (folder / "lung.canal").write_bytes(content)
    table = json.loads((folder / INDEX_FILE).read_text())
    table["models"][0] |= {"bytes": len(content), "sha256": digest_bytes(content)}
    (folder / INDEX_FILE).write_text(json.dumps(table))
    code, answer = run("get", "lung", "--catalogue", server.address)
    assert code == 2
    assert "lung.canal" in answer["error"]
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", [INDEX_FILE, "lung.canal"])
def test_a_redirect_to_another_host_is_refused(name: str, server: Served, folder: Path, here: Path) -> None:
    """Also to another port, scheme or name of the same machine; the other is not asked at all."""
    with serving(folder) as other:
        elsewhere = (
            f"{other.address}/{name}",
            f"https://127.0.0.1/{name}",
            "http://evil.example/x",
            "file:///etc/passwd",
        )
        for target in (*elsewhere, f"{server.address.replace('127.0.0.1', 'localhost')}/{name}"):
            server.redirects[name] = target
            code, answer = run("get", "lung", "--catalogue", server.address)
            assert code == 2
            assert "not the host that was named" in answer["error"]
        assert other.asked == []
    assert list(here.iterdir()) == []


def test_a_redirect_on_the_same_host_is_followed(server: Served, folder: Path, here: Path) -> None:
    """To another folder, say; but not in a circle."""
    (folder / "moved.canal").write_bytes(PACKAGE.read_bytes())
    server.redirects["lung.canal"] = "/moved.canal"
    assert run("get", "lung", "--catalogue", server.address)[0] == 0
    assert (here / "lung.canal").read_bytes() == PACKAGE.read_bytes()
    server.redirects["skin.canal"] = "/skin.canal"
    code, answer = run("get", "skin", "--catalogue", server.address)
    assert code == 2
    assert "redirects more than" in answer["error"]


def test_a_mirror_is_a_catalogue(server: Served, tmp_path: Path) -> None:
    """The same index and files; what is there is not fetched again; one that was cut short goes on."""
    copy = tmp_path / "copy"
    server.refuse["skin.canal"] = 503
    code, answer = run("mirror", copy, "--catalogue", server.address)
    assert code == 2
    assert "503" in answer["error"]
    assert not (copy / INDEX_FILE).exists()
    server.refuse.clear()
    code, answer = run("mirror", copy, "--catalogue", server.address)
    assert (code, answer["fetched"], answer["kept"]) == (0, ["skin"], ["lung"])
    assert (copy / INDEX_FILE).read_bytes() == (server.folder / INDEX_FILE).read_bytes()
    code, answer = run("list", "--catalogue", copy)
    assert [model["name"] for model in answer["models"]] == ["blood", "lung", "skin"]
    code, answer = run("mirror", copy, "--catalogue", copy)
    assert code == 2
    assert "is the catalogue itself" in answer["error"]


GOOD: dict[str, Any] = {"name": "lung", "file": "lung.canal", "bytes": 10, "sha256": "sha256:" + "0" * 64}
BAD_INDEXES = {
    "no JSON": b"<html>",
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "nothing": b"",
    "no format": b'{"models": []}',
    "a newer format": b'{"format": 99, "models": []}',
    "a format that is text": b'{"format": "1", "models": []}',
    "deep": b"[" * 100_000,
    "a name with a folder": json.dumps({"format": 1, "models": [GOOD | {"name": "../lung"}]}).encode(),
    "a file elsewhere": json.dumps({"format": 1, "models": [GOOD | {"file": "../../etc/x.canal"}]}).encode(),
    "a hidden file": json.dumps({"format": 1, "models": [GOOD | {"file": ".x.canal"}]}).encode(),
    "another kind of file": json.dumps({"format": 1, "models": [GOOD | {"file": "x.pkl"}]}).encode(),
    "no hash": json.dumps({"format": 1, "models": [GOOD | {"sha256": "md5:1"}]}).encode(),
    "a size below one": json.dumps({"format": 1, "models": [GOOD | {"bytes": -1}]}).encode(),
    "a name twice": json.dumps({"format": 1, "models": [GOOD, GOOD | {"file": "b.canal"}]}).encode(),
    "a file twice": json.dumps({"format": 1, "models": [GOOD, GOOD | {"name": "b"}]}).encode(),
}


@pytest.mark.parametrize("kind", BAD_INDEXES)
def test_an_index_that_is_none_is_refused(kind: str, tmp_path: Path, here: Path) -> None:
    """One message that names the catalogue; nothing is written."""
    catalogue = tmp_path / "bad"
    catalogue.mkdir()
    (catalogue / INDEX_FILE).write_bytes(BAD_INDEXES[kind])
    for words in (("list",), ("get", "lung"), ("mirror", "m"), ("add", shipped_models()["blood"])):
        code, answer = run(*words, "--catalogue", catalogue)
        assert code == 2, answer
        assert str(catalogue) in answer["error"]
    assert list(here.iterdir()) == []
    assert sorted(path.name for path in catalogue.iterdir()) == [INDEX_FILE]


def test_an_index_that_is_too_large_is_refused(server: Served, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it fills the memory, from a folder and from a server."""
    monkeypatch.setattr("canal.catalogue.address.LARGEST_INDEX", 100)
    for address in (folder, server.address):
        code, answer = run("list", "--catalogue", address)
        assert code == 2
        assert "more than 100 bytes" in answer["error"]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://models.example.org/x", "no address of a catalogue"),
        ("ftp://models.example.org/x", "no address of a catalogue"),
        ("https:///x", "no address of a catalogue"),
        ("https://me:secret@models.example.org/x", "carries a name or password"),
        ("nowhere", "cannot be read"),
        ("http://127.0.0.1:9", "no connection"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(address: str, says: str) -> None:
    """One message; a password is not repeated in it."""
    code, answer = run("list", "--catalogue", address)
    assert code == 2
    assert says in answer["error"]
    assert "secret" not in answer["error"]


def test_what_cannot_be_added_is_refused(folder: Path, tmp_path: Path, server: Served) -> None:
    """A name that is taken, a file that is no model, a server; the catalogue stays as it was."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "bad.canal").write_bytes(b"no model")
    (tmp_path / "a b.canal").write_bytes(PACKAGE.read_bytes())
    for file, address, says in (
        (tmp_path / "lung.canal", folder, "already, the same file"),
        (tmp_path / "bad.canal", folder, "bad.canal"),
        (tmp_path / "a b.canal", folder, "cannot stand in a catalogue"),
        (tmp_path / "none.canal", folder, "is not there"),
        (tmp_path / "lung.canal", server.address, "is on a server"),
    ):
        code, answer = run("add", file, "--catalogue", address)
        assert code == 2
        assert says in answer["error"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_cannot_be_got_is_refused(folder: Path, here: Path) -> None:
    """An unknown name lists the known; a file of other content is not replaced; a missing file is told."""
    code, answer = run("get", "liver", "--catalogue", folder)
    assert (code, "it has: lung, skin" in answer["error"]) == (2, True)
    (here / "lung.canal").write_bytes(b"mine")
    code, answer = run("get", "lung", "--catalogue", folder)
    assert (code, "other content" in answer["error"]) == (2, True)
    assert (here / "lung.canal").read_bytes() == b"mine"
    (folder / "skin.canal").unlink()
    code, answer = run("get", "skin", "--catalogue", folder)
    assert (code, "cannot be had" in answer["error"]) == (2, True)
    code, answer = run("get", "skin", "--out", "skin.h5ad", "--catalogue", folder)
    assert (code, "does not end in .canal" in answer["error"]) == (2, True)


def test_keys_of_a_later_canal_are_left_aside() -> None:
    """An index of the same format may say more."""
    entry = Entry.model_validate(GOOD | {"colour": "red"})
    assert Index(models=(entry,)).entry("lung", "here") == entry


def test_an_address_is_a_folder_or_a_server(tmp_path: Path) -> None:
    """Paths with spaces in file: addresses are read as written."""
    spaced = tmp_path / "my models"
    assert Address.of(spaced.as_uri()).folder == spaced
    assert Address.of("https://host/models/").text == "https://host/models"
    with pytest.raises(ConfigError):
        Address.of("http://host/models")
    with pytest.raises(CanalError):
        Address.of(str(spaced)).index()
