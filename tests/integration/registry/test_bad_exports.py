"""An export that is damaged, cut off, newer or none at all is told, and changes nothing."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from canal.errors import RegistryError
from canal.files import digest_bytes
from canal.history.exchange import import_stage
from canal.registry.package import open_package
from canal.registry.registry import Registry
from canal.stages.layout import Layout
from tests.integration.registry.conftest import add


@pytest.fixture
def exported(local_registry: Registry, tmp_path: Path) -> Path:
    """A stage in a file."""
    add(local_registry, 1)
    local_registry.export(1, tmp_path / "model.canal")
    return tmp_path / "model.canal"


def repacked(path: Path, change: Callable[[dict[str, bytes]], None], *, sign: bool = True) -> Path:
    """Write the archive anew with changed content; a signed one has the hash of its manifest."""
    with zipfile.ZipFile(path) as archive:
        files = {n: archive.read(n) for n in archive.namelist()}
        comment = archive.comment
    change(files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.comment = digest_bytes(files["canal.json"]).encode() if sign and "canal.json" in files else comment
    return path


def test_every_flipped_byte_of_content_is_found(exported: Path, tmp_path: Path) -> None:
    """Record, manifest and files: in each, one byte anywhere."""
    whole = exported.read_bytes()
    with zipfile.ZipFile(exported) as archive:
        places = [(i.header_offset + 30 + len(i.filename), i.compress_size) for i in archive.infolist()]
    rng = np.random.default_rng(0)
    for start, size in places:
        for offset in rng.integers(0, size, 3):
            content = bytearray(whole)
            content[start + offset] ^= 1 << int(rng.integers(8))
            exported.write_bytes(content)
            with pytest.raises(RegistryError, match=r"is damaged|no export"), open_package(exported):
                pass


def _drop_file(files: dict[str, bytes]) -> None:
    del files["model/types.json"]


def _other_file(files: dict[str, bytes]) -> None:
    files["model/types.json"] = b"[]"


def _newer(files: dict[str, bytes]) -> None:
    files["canal.json"] = json.dumps(json.loads(files["canal.json"]) | {"format": 2, "canal": "9.0"}).encode()


def _escape(files: dict[str, bytes]) -> None:
    table = json.loads(files["canal.json"])
    table["files"]["../evil"] = {"digest": digest_bytes(b"x"), "bytes": 1}
    files["canal.json"], files["../evil"] = json.dumps(table).encode(), b"x"


def _newer_record(files: dict[str, bytes]) -> None:
    text = json.dumps(json.loads(files["record.json"]) | {"schema_version": 99}).encode()
    table = json.loads(files["canal.json"])
    table["files"]["record.json"] = {"digest": digest_bytes(text), "bytes": len(text)}
    files["record.json"], files["canal.json"] = text, json.dumps(table).encode()


def _other_model(files: dict[str, bytes]) -> None:
    table = json.loads(files["canal.json"])
    table["files"]["model/types.json"] = {"digest": digest_bytes(b"[]"), "bytes": 2}
    files["model/types.json"], files["canal.json"] = b"[]", json.dumps(table).encode()


def _no_manifest(files: dict[str, bytes]) -> None:
    del files["canal.json"]


BAD = {
    "a missing file": (_drop_file, r"model/types.json is missing"),
    "an altered file": (_other_file, r"model/types.json has sha256:\w+, expected sha256"),
    "a newer format": (_newer, r"of canal 9\.0, was written by a newer canal \(format 2.*Update canal"),
    "a newer record": (_newer_record, r"newer canal \(format 99.*Update canal"),
    "a name that escapes": (_escape, r"'../evil' is no name"),
    "files of another record": (_other_model, r"model/types.json is not the file that its record names"),
    "any other zip": (_no_manifest, r"is no export of canal"),
}


@pytest.mark.parametrize(("change", "match"), BAD.values(), ids=BAD)
def test_a_bad_export_changes_nothing(
    exported: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None], match: str
) -> None:
    """One clear message; not even a workspace is made."""
    repacked(exported, change)
    with pytest.raises(RegistryError, match=match):
        import_stage(Layout(tmp_path / "other"), exported)

    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        pytest.param(None, "is not there", id="missing"),
        pytest.param(b"", "is damaged: File is not a zip", id="empty"),
        pytest.param(b"not a zip" * 100, "is damaged: File is not a zip", id="other"),
    ],
)
def test_what_is_no_export_is_told(tmp_path: Path, content: bytes | None, match: str) -> None:
    """Whatever it is."""
    path = tmp_path / "model.canal"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RegistryError, match=match), open_package(path):
        pass


def test_a_cut_off_export_is_told(exported: Path) -> None:
    """As a broken download leaves it."""
    exported.write_bytes(exported.read_bytes()[:-200])
    with pytest.raises(RegistryError, match="is damaged"), open_package(exported):
        pass
