"""The CSV of `canal stage diff --out` is there whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from canal.errors import DataError
from canal.history.diff import ChangedCells, write_changes


def test_changes_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only cells whose type changes; a disk that fills up leaves the file before."""
    out = tmp_path / "changes.csv"
    types = np.array(["B", "NK"]), np.array(["B", "CD8 T"])
    cells = ChangedCells(names=np.array(["a", "b"]), types=types, confidence=(np.ones(2), np.full(2, 0.5)))

    write_changes(cells, (1, 2), out)

    expected = "cell,stage_1,stage_2,confidence_1,confidence_2\nb,NK,CD8 T,1.0000,0.5000\n"
    assert out.read_text() == expected

    def full_disk(_: Path) -> None:
        message = "No space left on device"
        raise OSError(message)

    monkeypatch.setattr("canal.files.sync_file", full_disk)
    with pytest.raises(DataError, match="No space left"):
        write_changes(cells, (3, 4), out)
    assert out.read_text() == expected
