"""Which stages a model was learned from, and what is judged of it."""

import pytest

from canal.config import PromotionConfig
from canal.errors import DataError
from canal.files import check_file
from canal.stages.testing.tests import AccuracyChange, reason_to_hold_back, untested_warning
from canal.stages.use import lineage
from tests.unit.registry.make import make_record

RECORDS = [
    make_record(1),
    make_record(2),
    make_record(3, parent=1),
    make_record(4, parent=3, notes={"removed": [1]}),
    make_record(5, parent=9),
]


@pytest.mark.parametrize(
    ("number", "line", "left"),
    [(1, [1], [1]), (3, [1, 3], [1, 3]), (4, [1, 3, 4], [3, 4]), (5, [5], [5])],
)
def test_a_line_follows_the_parents(number, line, left):
    """Other branches do not count, a parent that is not there ends the line, what was taken out can be left out."""
    assert lineage(RECORDS, number) == line
    assert lineage(RECORDS, number, without_removed=True) == left


BOUNDS = PromotionConfig(max_fall=0.02, max_alarms=0.05)


def change(accuracy: float | None, before: float | None, cells: int = 1000) -> AccuracyChange:
    """Return a change on stage 1."""
    reason = "" if accuracy else "gone"
    return AccuracyChange(stage=1, name="toy", accuracy=accuracy, before=before, reason=reason, cells=cells)


@pytest.mark.parametrize(
    ("accuracy", "before", "held"),
    [(0.9, 0.95, True), (0.93, 0.95, False), (0.97, 0.95, False), (0.1, None, False), (None, 0.9, False)],
)
def test_a_stage_is_held_back_beyond_the_limit(accuracy, before, held):
    """Only a fall that was measured, by more than the limit."""
    assert bool(reason_to_hold_back(3, 2, [change(accuracy, before)], PromotionConfig(max_fall=0.02001))) == held


def test_chance_holds_no_stage_back():
    """Two of forty cells that flip are within chance; the same fall on a thousand cells is not."""
    assert reason_to_hold_back(3, 2, [change(0.90, 0.95, cells=40)], BOUNDS) == ""
    assert "stays a candidate" in reason_to_hold_back(3, 2, [change(0.90, 0.95, cells=1000)], BOUNDS)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"false_alarms": 0.20, "false_alarms_before": 0.05}, "called novel of stage 1 (toy) from 0.0500 to 0.2000"),
        ({"false_alarms": 0.09, "false_alarms_before": 0.05}, ""),
        ({"false_alarms": 0.05, "false_alarms_before": 0.20}, ""),
        ({"false_alarms": 0.20}, ""),
        ({"false_alarms": 0.20, "false_alarms_before": 0.05, "cells": 10}, ""),
        (
            {"fewer_genes_accuracy": 0.44, "fewer_genes_before": 0.96},
            "from 0.9600 to 0.4400 (looked at through the genes of the new stage alone)",
        ),
        ({"fewer_genes_accuracy": 0.96, "fewer_genes_before": 0.44}, ""),
    ],
)
def test_false_alarms_and_the_new_genes_count_too(fields, words):
    """A stage that makes known cells look novel, or fails on its own genes, is held back, and the reason says which."""
    kept = AccuracyChange(**({"stage": 1, "name": "toy", "accuracy": 0.9, "before": 0.9, "cells": 1000} | fields))
    reason = reason_to_hold_back(3, 2, [kept], BOUNDS)
    assert bool(reason) == bool(words)
    assert words in reason


def test_what_was_not_tested_is_said_once():
    """Three reasons at most."""
    text = untested_warning([change(None, None)] * 5 + [change(0.9, 0.9)])
    assert "5 of 6" in text
    assert "and 2 more" in text
    assert untested_warning([change(0.9, 0.9)]) == ""


@pytest.mark.parametrize(
    ("name", "match"), [("a.txt", "does not end in"), ("no/a.html", "no folder"), ("d.html", "is a folder")]
)
def test_targets_are_checked_before_any_work(tmp_path, name, match):
    """A file that cannot be written is refused; one that can is given back."""
    (tmp_path / "d.html").mkdir()
    with pytest.raises(DataError, match=match):
        check_file(tmp_path / name, ".html", "--html")
    assert check_file(tmp_path / "a.html", ".html", "--html") == tmp_path / "a.html"
