"""Whatever bytes a file has: it is read, or refused with one message; no traceback, no crash, no hang, no memory."""

from pathlib import Path

import pytest

from tests.fuzz.files import Outcome, sweep, try_file
from tests.fuzz.handmade import FILES, toy


def test_damaged_bytes_are_refused_or_read() -> None:
    """In every container; the long run is ``python -m tests.fuzz.files --cases 20000``."""
    outcomes = sweep(480, seed=0)

    assert [outcome for outcome in outcomes if outcome.wrong] == []
    # Some damage does no harm, most does: the cases are neither all harmless nor all hopeless.
    kinds = [outcome.kind for outcome in outcomes]
    assert min(kinds.count("read"), kinds.count("refused")) > 60


def test_a_case_that_crashed_a_long_run() -> None:
    """A chunk of Blosc that says it is longer than it is."""
    assert [outcome.kind for outcome in sweep(0, 0, "zarr_csc:1664")] == ["refused"]


@pytest.mark.parametrize("name", FILES)
def test_files_made_to_do_harm(name: str, tmp_path: Path) -> None:
    """Links to other files, loops, shapes of terabytes, tables that do not fit."""
    path = toy(tmp_path / "case")
    FILES[name](path)

    outcome: Outcome = try_file(name, path, tmp_path)

    assert not outcome.wrong, outcome.text
    harmless = {"group in itself"}
    assert outcome.kind == ("read" if name in harmless else "refused"), outcome
