"""The file of decisions: whatever is acknowledged is there."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from canal.errors import DataError
from canal.review.journal import Journal
from canal.review.values import Decision
from tests.unit.review.crowd import LINES, WRITERS

HEAD = {"reviewed": "cells.h5ad"}


def comment(key: str, text: str = "seen") -> Decision:
    return Decision(id=key, user="anna", time="", action="comment", payload={"text": text})


def put(journal: Journal, key: str, text: str = "seen") -> None:
    journal.append(lambda _new: comment(key, text))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of decisions with its first line."""
    file = tmp_path / "cells.h5ad.review.jsonl"
    Journal(file).create(HEAD)
    return file


def crowd(mode: str, path: Path) -> list[str]:
    """Run writers in processes of their own; return the ids that they had acknowledged."""
    line = [sys.executable, "-m", "tests.unit.review.crowd", mode, str(path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_is_written_is_read_by_another_in_order(path: Path) -> None:
    """Lines come back as they were, also names that are markup, right to left or long."""
    texts = ["<script>alert(1)</script>", 'a "quoted" gene', "خلية", "x" * 5000, "two\nlines"]
    first, second = Journal(path), Journal(path)
    for number, text in enumerate(texts):
        put(first, f"d{number}", text)
    assert [line.payload["text"] for line in second.read_new()] == texts
    assert second.read_new() == []
    assert second.head()["reviewed"] == "cells.h5ad"
    assert len(path.read_bytes().splitlines()) == len(texts) + 1


def test_a_writer_sees_what_others_wrote_before(path: Path) -> None:
    """Whoever checks a decision checks it against all lines before it."""
    first, second = Journal(path), Journal(path)
    put(first, "a")
    seen: list[str] = []

    def make(new: list[Decision]) -> Decision:
        seen.extend(line.id for line in new)
        return comment("b")

    second.append(make)
    assert seen == ["a"]


def test_a_writer_checks_against_all_lines(path: Path) -> None:
    """While one checks and writes, another waits: between its check and its line there is no other line."""
    first, second = Journal(path), Journal(path)
    seen: list[list[str]] = []

    def later(new: list[Decision]) -> Decision:
        seen.append([line.id for line in new])
        return comment("b")

    thread = threading.Thread(target=lambda: second.append(later))

    def make(_new: list[Decision]) -> Decision:
        thread.start()
        time.sleep(0.2)
        assert seen == []
        return comment("a")

    first.append(make)
    thread.join()
    assert seen == [["a"]]


def test_a_refused_decision_leaves_nothing(path: Path) -> None:
    """Neither one that is refused nor one that cannot be written as text is in the file."""
    journal, before = Journal(path), path.read_bytes()

    def refuse(_new: list[Decision]) -> Decision:
        message = "no"
        raise DataError(message)

    with pytest.raises(DataError, match="no"):
        journal.append(refuse)
    with pytest.raises(DataError, match="no text that can be written"):
        put(journal, "a", "\ud800")
    assert journal.append(lambda _new: None) is None
    assert path.read_bytes() == before


def test_a_full_disk_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision that cannot be written whole is refused, and the next one stands on a line of its own."""
    journal = Journal(path)
    put(journal, "a")
    write, calls = os.write, []

    def half(handle: int, content: bytes) -> int:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(handle, content[:10])

    with monkeypatch.context() as patch:
        patch.setattr("canal.review.journal.os.write", half)
        with pytest.raises(DataError, match="The decision was not taken"):
            put(journal, "b")
    assert path.read_bytes().endswith(b"}\n")
    put(journal, "c")
    assert [line.id for line in Journal(path).read_new()] == ["a", "c"]
    assert journal.notes == []


def test_a_torn_line_is_set_aside_and_said(path: Path) -> None:
    """Half a line of a writer that was killed is moved to a file of its own; the next line is whole."""
    put(Journal(path), "a")
    with path.open("ab") as file:
        file.write(b'{"id":"b","user":"ann')
    journal = Journal(path)
    assert [line.id for line in journal.read_new()] == ["a"]  # reading alone changes nothing
    put(journal, "c")
    assert [line.id for line in Journal(path).read_new()] == ["a", "c"]
    assert (path.parent / f"{path.name}.torn").read_bytes() == b'{"id":"b","user":"ann\n'
    assert "cut off (21 bytes)" in journal.notes[0]


def test_a_torn_first_line_is_written_anew(tmp_path: Path) -> None:
    """A file whose making was cut off becomes a whole one."""
    path = tmp_path / "review.jsonl"
    path.write_bytes(b'{"format":1,"ki')
    journal = Journal(path)
    assert not journal.exists
    journal.create(HEAD)
    put(journal, "a")
    assert [line.id for line in Journal(path).read_new()] == ["a"]


def test_a_damaged_line_is_said_and_the_others_hold(path: Path) -> None:
    """A whole line that is no decision counts for nothing, and which one it is can be read."""
    put(Journal(path), "a")
    with path.open("ab") as file:
        file.write(b"\0\0\0\n[1]\n")
    put(Journal(path), "b")
    journal = Journal(path)
    assert [line.id for line in journal.read_new()] == ["a", "b"]
    assert [note.split(" of ")[0] for note in journal.notes] == ["Line 3", "Line 4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cluster,name\n", "is no file of decisions"),
        (b'{"kind":"canal novel","format":1}\n', "is no file of decisions"),
        (b'{"kind":"canal review","format":99}\n', "newer canal"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """A file of another kind, or of a newer canal, is not written to."""
    path = tmp_path / "review.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        put(Journal(path), "a")
    assert path.read_bytes() == content


def test_a_file_that_was_replaced_or_removed_is_refused(path: Path) -> None:
    """Decisions do not go into a file that somebody put in the place of the one that was opened."""
    journal = Journal(path)
    put(journal, "a")
    path.rename(path.with_suffix(".old"))
    with pytest.raises(DataError, match="cannot be written"):
        put(journal, "b")
    assert not path.exists()
    Journal(path).create(HEAD)
    with pytest.raises(DataError, match="another file than the one that was opened"):
        put(journal, "b")


def test_threads_lose_nothing(path: Path) -> None:
    """Eight threads with a journal in common or of their own write 25 decisions each: all are there, each whole."""
    common = Journal(path)

    def work(writer: int) -> None:
        journal = common if writer % 2 else Journal(path)
        for number in range(LINES):
            put(journal, f"w{writer}-{number}")

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal = Journal(path)
    ids = [line.id for line in journal.read_new()]
    assert sorted(ids) == sorted(f"w{writer}-{number}" for writer in range(WRITERS) for number in range(LINES))
    assert journal.notes == []


def test_processes_lose_nothing(path: Path) -> None:
    """Eight processes write 25 decisions each at the same time: all are there, each whole."""
    told = crowd("together", path)
    journal = Journal(path)
    ids = [line.id for line in journal.read_new()]
    assert len(told) == WRITERS * LINES
    assert sorted(ids) == sorted(told)
    assert journal.notes == []


def test_kills_lose_nothing_that_was_acknowledged(path: Path) -> None:
    """Writers are killed at 50 random moments, some in the midst of a line: every acknowledged decision is there."""
    told = crowd("killed", path)
    journal = Journal(path)
    put(journal, "last")
    ids = [line.id for line in Journal(path).read_new()]
    assert len(told) > 50  # they did write
    assert set(told) <= set(ids)
    assert len(ids) == len(set(ids))
    assert Journal(path).notes == []
    # What was never acknowledged: at most the line that each was writing.
    assert len(ids) - len(told) <= 50 + 1
