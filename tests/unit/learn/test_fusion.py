"""Joining network and memory, and the confidence of the sum."""

import numpy as np
import pytest

from canal.model.model import USUAL_TEMPERATURE, Fusion


def noisy(n: int = 4000, flips: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are sure of themselves and types of which a share is another."""
    rng = np.random.default_rng(seed)
    types = rng.integers(3, size=n)
    said = np.where(rng.random(n) < flips, rng.integers(3, size=n), types)
    return 8.0 * np.eye(3)[said], types


def test_the_temperature_makes_confidence_meet_accuracy() -> None:
    """Logits that are right four times in five are about 0.8 sure after calibration, and far surer before."""
    logits, types = noisy()
    plain = Fusion(memory=0.0, temperature=0.1)
    accuracy = (logits.argmax(axis=1) == types).mean()

    calibrated = plain.calibrated(logits, None, types)

    assert plain.join(logits, None).max(axis=1).mean() > 0.95
    assert calibrated.join(logits, None).max(axis=1).mean() == pytest.approx(accuracy, abs=0.02)


def test_the_temperature_never_changes_the_answer() -> None:
    """Best types are the same at every temperature."""
    rng = np.random.default_rng(0)
    logits, scores = rng.normal(size=(50, 4)), rng.normal(size=(50, 4))

    best = [Fusion(memory=2.0, temperature=t).join(logits, scores).argmax(axis=1) for t in (0.05, 0.3, 2.0)]

    np.testing.assert_array_equal(best[0], best[1])
    np.testing.assert_array_equal(best[0], best[2])


def test_the_mean_over_stages_is_geometric_and_counts_them() -> None:
    """Three stages of 0.1, 0.4 and 0.8; the mean is none of them."""
    stages = [Fusion(memory=2.0, temperature=t) for t in (0.1, 0.4, 0.8)]

    mean = stages[2].averaged(stages[1].averaged(stages[0]))

    assert mean.stages == 3
    assert mean.temperature == pytest.approx((0.1 * 0.4 * 0.8) ** (1 / 3))
    assert Fusion.from_dict(mean.to_dict()) == mean


def test_a_stage_of_few_or_easy_cells_does_not_decide_the_temperature_of_discriminants() -> None:
    """Cells without an error, or with a single one that is surely answered otherwise, leave it near the usual one."""
    types = np.arange(100) % 2
    easy = 200.0 * np.eye(2)[types]
    wrong = easy.copy()
    wrong[0] = wrong[0, ::-1]
    plain = Fusion(memory=2.0, temperature=1.0, rule="discriminants")
    logits = np.zeros_like(easy)

    usual = USUAL_TEMPERATURE * plain.memory
    assert plain.calibrated(logits, easy, types).temperature == pytest.approx(usual, rel=0.3)
    assert plain.calibrated(logits, wrong, types).temperature == pytest.approx(usual, rel=0.3)
    doubt = np.random.default_rng(0).normal(scale=40.0, size=(4000, 2))
    many = np.random.default_rng(1).integers(2, size=4000)
    assert plain.calibrated(np.zeros_like(doubt), doubt, many).temperature > 3 * usual
