"""What people read about tests and changes."""

from dataclasses import asdict, replace

import pytest

from canal.cli import stage
from canal.cli.features import history as stage_change
from canal.stages.testing.tests import AccuracyChange

EARLIER = AccuracyChange(stage=1, name="first", accuracy=0.9, before=0.95)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (EARLIER, "stage 1, first: accuracy 0.9000, was 0.9500"),
        (replace(EARLIER, before=None), "stage 1, first: accuracy 0.9000"),
        (replace(EARLIER, accuracy=None), "stage 1, first: not tested"),
        (
            replace(EARLIER, false_alarms=0.1, false_alarms_before=0.05),
            "stage 1, first: accuracy 0.9000, was 0.9500; called novel 10.0%, was 5.0%",
        ),
        (
            replace(EARLIER, fewer_genes_accuracy=0.8, fewer_genes_before=0.85),
            "stage 1, first: accuracy 0.9000, was 0.9500; on the new genes alone 0.8000, was 0.8500",
        ),
    ],
)
def test_stage_add_says_what_earlier_stages_lost(found, line):
    """One line for each earlier stage."""
    assert stage._line_of_test(asdict(found)) == line


def test_many_names_are_counted():
    """A thousand genes are a number and some examples."""
    assert stage_change._listed("+", ()) == "+0"
    assert stage_change._listed("+", tuple("abcdefghij")) == "+10 a, b, c, d, e, f, g, h and 2 more"


def test_changes_without_a_figure_are_said_to_be_missing():
    """A set that could not be read has no accuracy."""
    assert stage_change._accuracy_change(0.9, None) == "not tested"
    assert stage_change._accuracy_change(None, 0.5) == "accuracy 0.5000"
