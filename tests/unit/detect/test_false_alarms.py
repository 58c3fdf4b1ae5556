"""False alarms as a calibration foretells them: each stage judged by the others."""

import numpy as np

from canal.compare.gather import ALPHAS, LEAST_HELD_OUT, false_alarms
from canal.model.novelty.calibration import HeldOutNovelties, NoveltyCalibration


def calibration(*novelties: np.ndarray) -> NoveltyCalibration:
    """Return a calibration of stages 1, 2, ..."""
    stages = [HeldOutNovelties(stage=k + 1, genes=10, novelty=v, low=0.0, high=1.0) for k, v in enumerate(novelties)]
    return NoveltyCalibration(stages=tuple(stages))


def test_it_counts_what_counting_gives():
    """A cell is novel where at most alpha of the other stages' cells, itself counted in, are as new."""
    rng = np.random.default_rng(0)
    stages = [rng.normal(shift, 1, 60) for shift in (0.0, 0.3, -0.2)]

    found = false_alarms(calibration(*stages))

    for k, novelty in enumerate(stages):
        others = np.concatenate([s for j, s in enumerate(stages) if j != k])
        p_values = np.array([(np.sum(others >= v) + 1) / (len(others) + 1) for v in novelty])
        np.testing.assert_allclose(found[k + 1], [(p_values <= alpha).mean() for alpha in ALPHAS])


def test_stages_that_are_alike_give_what_was_asked_for():
    """About alpha; a stage of noisier cells gives more, and the others less."""
    rng = np.random.default_rng(1)
    alike = false_alarms(calibration(*(rng.normal(0, 1, 4000) for _ in range(3))))
    for share in alike.values():
        np.testing.assert_allclose(share, ALPHAS, atol=0.02)

    noisy = false_alarms(calibration(rng.normal(0, 1, 2000), rng.normal(1, 1, 2000)))
    at = ALPHAS.index(0.05)
    assert noisy[2][at] > 0.2
    assert noisy[1][at] < 0.02


def test_there_is_none_where_nothing_can_be_said():
    """One stage alone, few cells, no stage."""
    many, few = np.zeros(LEAST_HELD_OUT), np.zeros(LEAST_HELD_OUT - 1)
    assert false_alarms(calibration()) == {}
    assert false_alarms(calibration(many)) == {}
    assert list(false_alarms(calibration(many, few))) == [1]
