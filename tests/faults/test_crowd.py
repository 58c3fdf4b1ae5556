"""Several processes at one registry at once; by hand more of them, see `tests.faults.crowd`."""

from pathlib import Path

from tests.faults.crowd import Crowd, run


def test_a_small_crowd_loses_nothing(tmp_path: Path) -> None:
    """Three processes add, promote, annotate and collect garbage on SQLite: one line, everything that was told."""
    report = run(Crowd(tmp_path), processes=3, operations=12, seed=1)

    assert report.wrong == []
    assert report.stages == 1 + report.done["add"]
    assert min(report.done.values()) > 0
