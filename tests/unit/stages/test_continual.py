"""Figures of continual learning against examples worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from canal.figures import (
    average,
    backward_transfer,
    confusion_counts,
    continual,
    figures_of,
    forgetting,
    forgetting_by_set,
    summed_counts,
)

NAN = float("nan")
# Models after stages 1, 2, 3 on the cells of stages 1, 2, 3.
TABLE = np.array([[0.9, NAN, NAN], [0.95, 0.8, NAN], [0.85, 0.82, 0.7]])
OWN_MODEL = (0, 1, 2)


def test_average_is_of_the_last_model():
    """(.85 + .82 + .7) / 3."""
    assert average(TABLE) == pytest.approx(0.79)


def test_forgetting_is_from_the_best_earlier_model():
    """Set 1: .95 - .85; set 2: .80 - .82; the last set is not forgotten yet."""
    np.testing.assert_allclose(forgetting_by_set(TABLE, OWN_MODEL), [0.10, -0.02, NAN])
    assert forgetting(TABLE, OWN_MODEL) == pytest.approx((0.10 - 0.02) / 2)


def test_backward_transfer_is_from_the_own_model():
    """Set 1: .85 - .90; set 2: .82 - .80."""
    assert backward_transfer(TABLE, OWN_MODEL) == pytest.approx((-0.05 + 0.02) / 2)


def test_what_was_not_measured_does_not_count():
    """A set that nobody could read, one without its own model's figure, and a first model alone."""
    table = TABLE.copy()
    table[2, 1] = NAN
    assert average(table) == pytest.approx((0.85 + 0.7) / 2)
    assert forgetting(table, OWN_MODEL) == pytest.approx(0.10)
    assert backward_transfer(table, OWN_MODEL) == pytest.approx(-0.05)
    table[0, 0] = NAN
    assert forgetting(table, OWN_MODEL) == pytest.approx(0.10)
    assert np.isnan(backward_transfer(table, OWN_MODEL))
    assert continual(np.array([[0.9]]), [0]).to_dict() == {
        "average": 0.9,
        "forgetting": None,
        "backward_transfer": None,
    }


def test_a_model_without_cells_of_its_own_is_compared_with_all_before():
    """A stage that takes another one out has no column: every column is earlier."""
    table = np.array([[0.9, NAN], [0.8, 0.7], [0.85, 0.75]])
    assert forgetting(table, (0, 1)) == pytest.approx((0.05 - 0.05) / 2)
    assert backward_transfer(table, (0, 1)) == pytest.approx((-0.05 + 0.05) / 2)


def test_figures_are_those_of_scikit_learn():
    """Accuracy, recall and F1 from counts equal those from cells; a type that was never given is not averaged."""
    rng = np.random.default_rng(0)
    given = rng.choice(["B", "NK", "T"], 200).astype(object)
    predicted = np.where(rng.random(200) < 0.3, rng.choice(["B", "NK", "T", "HSC"], 200), given).astype(object)

    found = figures_of(confusion_counts(given, predicted))

    names = ["B", "NK", "T"]
    assert found.cells == 200
    assert found.accuracy == pytest.approx(accuracy_score(given, predicted))
    assert list(found.recall.values()) == pytest.approx(recall_score(given, predicted, labels=names, average=None))
    assert list(found.f1.values()) == pytest.approx(f1_score(given, predicted, labels=names, average=None))
    assert found.macro_f1 == pytest.approx(f1_score(given, predicted, labels=names, average="macro"))


def test_counts_add():
    """Sums keep every cell, types in alphabetical order."""
    one = confusion_counts(np.array(["NK", "NK", "B"]), np.array(["NK", "HSC", "B"]))
    two = confusion_counts(np.array(["B"]), np.array(["NK"]))

    added = summed_counts([one, two])

    assert added == {"B": {"B": 1, "NK": 1}, "NK": {"HSC": 1, "NK": 1}}
    assert [list(added), list(added["B"])] == [["B", "NK"], ["B", "NK"]]


def test_no_cells_have_no_figures():
    """Nothing tested is not zero."""
    assert np.isnan(figures_of({}).accuracy)
    assert np.isnan(average(np.zeros((0, 0))))


def test_a_model_before_the_sets_own_has_nothing_to_forget():
    """It guessed .99 of cells that it had never been taught: that is no figure to fall from."""
    table = TABLE.copy()
    table[0, 1] = 0.99

    np.testing.assert_allclose(forgetting_by_set(table, OWN_MODEL), [0.10, -0.02, NAN])
