"""Figures agree with counting by hand."""

import numpy as np
import pytest

from canal.figures import aupr, auroc, fpr_at_recall, harmonic_mean, novelty_figures
from canal.model.reliability import expected_calibration_error, reliability_bins


def test_curves_by_hand():
    """Two novel among three known cells, one tie between the kinds: areas and false positives counted by hand."""
    score = np.array([5.0, 4.0, 3.0, 3.0, 1.0])
    novel = np.array([True, False, True, False, False])

    assert auroc(score, novel) == pytest.approx((3 + 1.5) / 6)  # 3 pairs won; 1 won and 1 tied of the other's 3
    assert aupr(score, novel) == pytest.approx(0.5 * 1 / 1 + 0.5 * 2 / 4)
    assert fpr_at_recall(score, novel, 0.5) == 0.0
    assert fpr_at_recall(score, novel, 0.95) == pytest.approx(2 / 3)


@pytest.mark.parametrize("novel", [np.zeros(4, dtype=bool), np.ones(4, dtype=bool)], ids=["none", "all"])
def test_curves_without_one_kind_are_not_numbers(novel):
    """No figure is made up where one kind of cell is absent."""
    score = np.arange(4.0)

    assert np.isnan([auroc(score, novel), aupr(score, novel), fpr_at_recall(score, novel, 0.95)]).all()


def test_h_score_counts_as_the_paper():
    """A known cell counts when it is kept and rightly typed, a novel one when it is called novel."""
    novel = np.array([False, False, False, False, True, True])
    called = np.array([False, False, True, False, True, False])
    right = np.array([True, False, True, True, False, False])

    found = novelty_figures(called.astype(float), called, right, novel)

    assert (found.known_accuracy, found.novel_recall, found.false_alarms) == (0.5, 0.5, 0.25)
    assert found.h_score == 0.5
    assert found.to_dict()["h_score"] == 0.5


def test_harmonic_mean_of_nothing_is_zero():
    """Neither known nor novel cells found is the worst score, not an error."""
    assert harmonic_mean(0.0, 0.0) == 0.0


def test_reliability_by_hand():
    """Bins hold their cells; the error is the weighted gap."""
    confidence, right = np.array([0.05, 0.95, 0.95, 1.0]), np.array([False, True, False, True])

    found = reliability_bins(confidence, right)

    assert found.cells == (1, 0, 0, 0, 0, 0, 0, 0, 0, 3)
    assert found.accuracy[9] == pytest.approx(2 / 3)
    gap = abs((0.95 + 0.95 + 1.0) / 3 - 2 / 3)
    assert expected_calibration_error(confidence, right) == pytest.approx((0.05 + 3 * gap) / 4)
    assert found.to_dict()["edges"][-1] == 1.0


def test_calibrated_confidence_has_little_error():
    """Answers that are right as often as they claim have an error near zero; no cells have none."""
    rng = np.random.default_rng(0)
    confidence = rng.random(20_000)

    assert expected_calibration_error(confidence, rng.random(20_000) < confidence) < 0.02
    assert expected_calibration_error(np.zeros(0), np.zeros(0, dtype=bool)) == 0.0
