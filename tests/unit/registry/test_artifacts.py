"""Files are kept with hashes; one altered byte is found."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from canal.errors import DataError, RegistryError, WeightsError
from canal.files import (
    Problem,
    digest_bytes,
    digest_file,
    parse_digest,
    refuse_newer,
    verify,
    write_file_whole,
    write_whole,
)
from tests.unit.registry.make import make_files


def test_a_digest_names_its_algorithm() -> None:
    """One form, one parser."""
    digest = digest_bytes(b"cells")

    algorithm, digits = parse_digest(digest)
    assert algorithm == "sha256"
    assert digest == f"sha256:{digits}"


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:12", "md5:" + "0" * 32, "0" * 64, "sha256:" + "G" * 64])
def test_what_is_no_digest_is_refused(text: str) -> None:
    """The message says what is expected."""
    with pytest.raises(RegistryError, match="expected sha256:"):
        parse_digest(text)


def test_a_file_and_its_bytes_have_one_digest(tmp_path: Path) -> None:
    """Read in blocks or at once."""
    (tmp_path / "f").write_bytes(b"x" * 1_000_000)

    assert digest_file(tmp_path / "f") == digest_bytes(b"x" * 1_000_000)


def test_write_whole_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    """The new content or the old, and no temporary file."""
    path = tmp_path / "sub" / "record.json"
    write_whole(path, b"old")
    write_whole(path, b"new")

    assert path.read_bytes() == b"new"
    assert [path] == list(path.parent.iterdir())


def test_verify_accepts_what_was_kept(tmp_path: Path) -> None:
    """No problems where there are none."""
    files = make_files(tmp_path)

    assert verify(tmp_path, {name: digest_file(path) for name, path in files.items()}) == []


@pytest.mark.parametrize("name", ["weights.safetensors", "bank.safetensors", "types.json"])
def test_verify_finds_one_altered_byte(tmp_path: Path, name: str) -> None:
    """In any file, at any place."""
    files = make_files(tmp_path)
    manifest = {n: digest_file(path) for n, path in files.items()}
    original = files[name].read_bytes()
    for position in {0, len(original) // 2, len(original) - 1}:
        altered = bytearray(original)
        altered[position] ^= 1
        files[name].write_bytes(altered)

        assert verify(tmp_path, manifest) == [
            Problem(what=name, kind="altered", expected=manifest[name], found=digest_bytes(altered))
        ]


def test_verify_finds_missing_and_extra_files(tmp_path: Path) -> None:
    """Both are named."""
    files = make_files(tmp_path)
    manifest = {n: digest_file(path) for n, path in files.items()}
    files["types.json"].rename(tmp_path / "other.json")

    found = {(p.what, p.kind) for p in verify(tmp_path, manifest)}
    assert found == {("types.json", "missing"), ("other.json", "extra")}


def test_a_problem_is_one_sentence() -> None:
    """Stage, file, what is wrong, what was expected."""
    problem = Problem(stage=2, what="weights", kind="altered", expected="sha256:a", found="sha256:b")

    assert str(problem) == "stage 2: weights is altered (expected sha256:a, found sha256:b)"


def test_a_writer_that_breaks_off_leaves_the_file_before(tmp_path: Path) -> None:
    """Half of the new content is never under the name of the file, and nothing is left beside it."""
    path = tmp_path / "changes.csv"
    path.write_text("old")

    def write_half(beside: Path) -> None:
        beside.write_text("ne")
        message = "No space left on device"
        raise OSError(message)

    with pytest.raises(DataError, match="No space left"):
        write_file_whole(path, write_half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """By the next one that writes the same file; never what somebody may be writing, or another file."""
    out, day = tmp_path / "out.h5ad", 86_400
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = {
        f".out.h5ad.{ended.pid}.tmp": day,
        f".out.h5ad.{os.getppid()}.tmp": day,  # still running
        ".out.h5ad.999999999.tmp": 0,  # another machine's, a moment ago
        f".other.h5ad.{ended.pid}.tmp": day,
        ".out.h5ad.notes.tmp": day,
    }
    for name, age in names.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)

    write_file_whole(out, lambda beside: beside.write_text("new"))

    left = {path.name for path in tmp_path.iterdir()}
    assert left == set(names) - {f".out.h5ad.{ended.pid}.tmp"} | {"out.h5ad"}


@pytest.mark.parametrize("written", [3, "2", None], ids=["newer", "text", "none"])
def test_what_a_newer_canal_wrote_is_refused(written: object) -> None:
    """By the error that the reader asks for; its own format and older ones are read."""
    for older in (1, 2):
        refuse_newer("model.json", older, 2, WeightsError)
    with pytest.raises(WeightsError, match=r"model\.json was written by a newer canal .*reads up to 2"):
        refuse_newer("model.json", written, 2, WeightsError)


def test_a_file_is_replaced_and_not_written_into(tmp_path: Path) -> None:
    """Whoever has the file open, or another name of it, goes on reading what it was."""
    path, other = tmp_path / "record.json", tmp_path / "other"
    write_whole(path, b"before")
    other.hardlink_to(path)

    write_whole(path, b"after")

    assert path.read_bytes() == b"after"
    assert other.read_bytes() == b"before"
