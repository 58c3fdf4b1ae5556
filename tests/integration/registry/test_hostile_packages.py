"""Packages that somebody made up, every hash right: refused with one message, never a traceback, nothing written."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from canal.errors import CanalError, RegistryError
from canal.files import digest_bytes
from canal.history.exchange import export_stage, import_stage
from canal.stages.layout import Layout
from canal.workspace import load_model
from tests.integration.registry.test_foreign_files import forged
from tests.make import make_adata

STRANGE: tuple[Any, ...] = (
    None,
    -1,
    2**70,
    "",
    "x" * 2_000_000,
    [],
    {},
    [[]],
    [None] * 3,
    {"a": 1},
    float("nan"),
    True,
)
TABLES = ("genes.json", "types.json", "calibration.json", "novelty.json")


@pytest.fixture(scope="module")
def package(learned: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of an export."""
    path = tmp_path_factory.mktemp("export") / "model.canal"
    export_stage(Layout(learned), 1, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def parts(package: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of its model by name."""
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        return {name.removeprefix("model/"): archive.read(name) for name in archive.namelist()}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value of a table, the first entries alone of a list."""
    if at:
        yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for k in range(min(len(value), 1)):
            yield from places(value[k], (*at, k))


def replaced(table: Any, at: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a table with another value at a path; `KeyError` as the value takes the key out."""
    copy = json.loads(json.dumps(table))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    if value is KeyError:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return copy


def refused(package: bytes, changes: dict[str, bytes], folder: Path, *, used: bool = False) -> bool:
    """Tell whether a changed package is refused; any error that is not ours passes through.

    Parameters
    ----------
    used
        Whether cells are annotated with what is not refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "forged.canal"
    path.write_bytes(package)
    forged(path, changes)
    try:
        model = load_model(path)
        if used:
            model.annotate(make_adata(12, types=("B", "NK"), seed=3))
    except CanalError as error:
        assert len(str(error)) < 3_000  # noqa: PT017  # one message that a person reads
        return True
    return False


@pytest.mark.parametrize("name", TABLES)
def test_odd_values_in_every_table(name: str, package: bytes, parts: dict[str, bytes], tmp_path: Path) -> None:
    """Every key missing, of every wrong kind, too long, too deep: a message, or a model that works."""
    table, refusals, tried = json.loads(parts[name]), 0, 0
    for at in list(places(table)):
        for value in (KeyError, *STRANGE):
            content = json.dumps(replaced(table, at, value)).encode()
            refusals += refused(package, {name: content}, tmp_path, used=True)
            tried += 1
    assert refusals > tried / 2


@pytest.mark.parametrize("name", TABLES)
def test_what_is_no_table_at_all(name: str, package: bytes, tmp_path: Path) -> None:
    """Text, another kind of JSON, an endless nest, bytes."""
    for content in (b"", b"{", b"[]", b"7", b"null", b'"text"', b"\xff\xfe", b"[" * 200_000, b'{"a":' * 50_000):
        assert refused(package, {name: content}, tmp_path)


TENSORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cut": lambda a: a[: len(a) // 2],
    "empty": lambda a: a[:0],
    "one more": lambda a: np.concatenate([a, a[-1:]]),
    "one axis more": lambda a: a[None],
    "text": lambda a: np.zeros(a.shape, dtype=np.uint8),
    "not finite": lambda a: np.full_like(a, np.nan) if a.dtype.kind == "f" else a[:0],
    "huge": lambda a: np.full_like(a, np.iinfo(a.dtype).max) if a.dtype.kind in "iu" else a[:0],
    "below zero": lambda a: -np.abs(a) - 1 if a.dtype.kind in "fi" else a[:0],
}


@pytest.mark.parametrize("change", TENSORS)
@pytest.mark.parametrize("name", ["weights.safetensors", "memory.safetensors", "bank.safetensors"])
def test_odd_tensors(name: str, change: str, package: bytes, parts: dict[str, bytes], tmp_path: Path) -> None:
    """Every tensor of a file in turn, or left out: a message, or a model that works."""
    arrays = load_tensors(parts[name])
    some = [key for key in sorted(arrays) if key not in {"table", "strings"}]
    for key in some[:: max(1, len(some) // 8)]:
        changed = dict(arrays) | {key: np.ascontiguousarray(TENSORS[change](arrays[key]))}
        refused(package, {name: save_tensors(changed)}, tmp_path, used=True)
        del changed[key]
        assert refused(package, {name: save_tensors(changed)}, tmp_path)


@pytest.mark.parametrize("name", ["weights.safetensors", "memory.safetensors", "bank.safetensors"])
def test_lying_headers(name: str, package: bytes, parts: dict[str, bytes], tmp_path: Path) -> None:
    """A header that says too much, too little or nothing, and files that are cut."""
    content = parts[name]
    size = int.from_bytes(content[:8], "little")
    for header in (0, 1, size - 1, size + 1, 2**40, 2**63):
        assert refused(package, {name: header.to_bytes(8, "little") + content[8:]}, tmp_path)
    for cut in (0, 4, 8, 100, len(content) - 1):
        assert refused(package, {name: content[:cut]}, tmp_path)


def test_odd_manifests_and_records(package: bytes, parts: dict[str, bytes], tmp_path: Path) -> None:
    """The table of contents and the record, their hashes right."""
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    tried = refusals = 0
    for name in ("canal.json", "record.json"):
        table = json.loads(files[name])
        for at in list(places(table)):
            if len(at) > 2:
                continue
            for value in (KeyError, None, -1, "", [], {}, "x" * 100_000):
                changed = dict(files) | {name: json.dumps(replaced(table, at, value)).encode()}
                if name == "record.json":
                    manifest = json.loads(changed["canal.json"])
                    facts = {"digest": digest_bytes(changed[name]), "bytes": len(changed[name])}
                    manifest["files"][name] = facts
                    changed["canal.json"] = json.dumps(manifest).encode()
                path = tmp_path / "forged.canal"
                with zipfile.ZipFile(path, "w") as archive:
                    for file, content in changed.items():
                        archive.writestr(file, content)
                    archive.comment = digest_bytes(changed["canal.json"]).encode()
                tried += 1
                try:
                    load_model(path)
                except CanalError:
                    refusals += 1
    assert refusals > tried / 3


def test_an_archive_that_is_to_fill_the_disk(package: bytes, tmp_path: Path) -> None:
    """Two hundred megabytes of nothing in a few kilobytes: refused before anything is unpacked."""
    path = tmp_path / "bomb.canal"
    zeros = bytes(200_000_000)
    manifest = {
        "format": 1,
        "canal": "0.1.0",
        "model": "x",
        "files": {"model/genes.json": {"digest": digest_bytes(zeros), "bytes": len(zeros)}},
    }
    text = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("canal.json", text)
        archive.writestr("model/genes.json", zeros)
        archive.comment = digest_bytes(text).encode()
    with pytest.raises(RegistryError, match="200,000,000 bytes in"):
        load_model(path)


def test_import_writes_nothing_of_them(package: bytes, parts: dict[str, bytes], tmp_path: Path) -> None:
    """What cannot be annotated with is not taken in, and the workspace stays as it was."""
    path = tmp_path / "forged.canal"
    path.write_bytes(package)
    arrays = dict(load_tensors(parts["weights.safetensors"]))
    arrays["classifier.bias"] = arrays["classifier.bias"][:1]
    forged(path, {"weights.safetensors": save_tensors(arrays)})

    with pytest.raises(RegistryError, match=r"forged\.canal cannot be used: its weights classifier\.bias"):
        import_stage(Layout(tmp_path / "other"), path)
    assert not (tmp_path / "other").exists()
