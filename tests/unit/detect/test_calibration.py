"""P-values keep their promise, survive JSON, and verdicts follow from them."""

import json

import numpy as np
import pytest

from canal.errors import RegistryError, StageError
from canal.model.novelty.calibration import HeldOutNovelties, NoveltyCalibration, check_alpha, verdicts
from canal.model.novelty.scores import ReferenceCells, natural_weights, probability_verdicts, stage_weights


def make_held_out(stage: int = 1, n: int = 50, genes: int = 100) -> HeldOutNovelties:
    novelty = np.random.default_rng(stage).normal(size=n)
    return HeldOutNovelties(stage=stage, genes=genes, novelty=novelty, low=0.0, high=1.3)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_false_alarms_meet_alpha(alpha):
    """Fresh known cells are called novel at the rate that was asked for, averaged over calibration sets."""
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(200):
        reference = ReferenceCells.of(rng.gamma(2.0, size=400), np.ones(400))
        rates.append((reference.p_values(rng.gamma(2.0, size=500)) <= alpha).mean())

    assert np.mean(rates) <= alpha + 0.003
    assert np.mean(rates) >= alpha - 0.006


def test_p_value_by_hand():
    """The p-value is the weighted share of known cells at least as new, the cell itself counted in."""
    reference = ReferenceCells.of(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.5]))

    found = reference.p_values(np.array([0.0, 2.0, 2.5, 9.0]))

    np.testing.assert_allclose(found, np.array([3.5, 2.5, 2.0, 1.0]) / 3.5)


def test_weights_shift_the_comparison():
    """Cells of a stage that does not count do not move the p-value."""
    novelty = np.concatenate([np.zeros(50), np.full(50, 9.0)])
    reference = ReferenceCells.of(novelty, np.repeat([1.0, 1e-9], 50))

    assert reference.p_values(np.array([1.0]))[0] == pytest.approx(1 / 51)


@pytest.mark.parametrize(
    ("novelty", "weight"), [(np.zeros(0), np.zeros(0)), (np.zeros(3), np.zeros(3))], ids=["no cell", "no weight"]
)
def test_nothing_to_compare_with_is_explained(novelty, weight):
    """A model of an older stage says that it has no calibration."""
    with pytest.raises(StageError, match="no novelty calibration"):
        ReferenceCells.of(novelty, weight)


def test_calibration_survives_json():
    """What is read is what was written, to four decimals."""
    before = NoveltyCalibration().with_stage(make_held_out(1)).with_stage(make_held_out(2))

    after = NoveltyCalibration.from_dict(json.loads(json.dumps(before.to_dict())))

    assert [(s.stage, s.genes) for s in after.stages] == [(1, 100), (2, 100)]
    for a, b in zip(after.stages, before.stages, strict=True):
        np.testing.assert_allclose(a.novelty, b.novelty, atol=1e-4)


def test_stages_come_and_go():
    """A stage that is added again replaces itself; one that is forgotten leaves nothing."""
    twice = NoveltyCalibration().with_stage(make_held_out(1)).with_stage(make_held_out(1, n=7))

    assert [len(s.novelty) for s in twice.stages] == [7]
    assert twice.without_stage(1).stages == ()


def test_newer_format_is_refused():
    """A calibration of a newer canal is not guessed at."""
    with pytest.raises(RegistryError, match="Update canal"):
        NoveltyCalibration.from_dict({"format": 99, "stages": []})


def test_stage_weights_prefer_like_genes():
    """The stage of the most similar genes counts fully, others less; without any likeness all count the same."""
    found = stage_weights({1: 0.5, 2: 1.0, 3: 0.0})

    assert found[2] == 1.0
    assert found[3] < found[1] < 0.1
    assert stage_weights({1: 0.0, 2: 0.0}) == {1: 1.0, 2: 1.0}
    assert stage_weights({}) == {}


def test_natural_weights_undo_an_even_bank():
    """Types count by their cells in the stage; the mean within a stage is one."""
    stages, types = np.array([1, 1, 1, 1, 2]), np.array(["B", "B", "T", "T", "B"], dtype=object)

    found = natural_weights(stages, types, {(1, "B"): 30, (1, "T"): 10, (2, "B"): 5})

    np.testing.assert_allclose(found, [1.5, 1.5, 0.5, 0.5, 1.0])


def test_verdicts_follow_the_p_value():
    """Novel up to alpha, uncertain up to twice alpha, known above."""
    found = verdicts(np.array([0.001, 0.05, 0.07, 0.1, 0.2]), 0.05)

    assert found.tolist() == ["novel", "novel", "uncertain", "uncertain", "known"]


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_bad_alpha_is_explained(alpha):
    """Alpha is a share."""
    with pytest.raises(StageError, match="between 0 and 1"):
        check_alpha(alpha)


def test_held_out_cells_keep_their_place_beside_drawn_ones():
    """A later stage that moves the scale moves the table alike; one that does not leaves it."""
    held = HeldOutNovelties(stage=1, genes=10, novelty=np.array([0.0, 1.0, 3.0]), low=0.0, high=1.0)

    np.testing.assert_allclose(held.rescaled(0.5, 2.5), [0.5, 2.5, 6.5])
    np.testing.assert_allclose(held.rescaled(0.0, 1.0), held.novelty)


def test_first_format_is_read_and_left_as_it_was():
    """A table without the drawn cells' novelty is compared with as it stands."""
    old = {"format": 1, "stages": [{"stage": 1, "genes": 10, "novelty": [0.5, 2.0]}]}

    held = NoveltyCalibration.from_dict(old).stages[0]

    assert held.rescaled(1.0, 9.0).tolist() == [0.5, 2.0]


def test_a_table_loses_its_say_as_its_scale_moves():
    """All of it where nothing moved, none where it moved by its own spread; one without a scale keeps it."""
    found = HeldOutNovelties(stage=1, genes=9, novelty=np.zeros(3), low=0.0, high=2.0)
    old = HeldOutNovelties(stage=1, genes=9, novelty=np.zeros(3), low=0.0, high=0.0)

    assert found.trust(0.0, 2.0) == 1.0
    assert found.trust(0.0, 2.2) == pytest.approx(0.9**6)
    assert found.trust(-1.0, 2.2) == pytest.approx(0.5**6)
    assert found.trust(0.0, 5.0) == 0.0
    assert old.trust(3.0, 4.0) == 1.0


def test_a_cell_is_novel_below_the_threshold_of_its_probability():
    """scBERT's rule; at the threshold it is known."""
    judged = probability_verdicts(np.array([0.2, 0.5, 0.9]), 0.5)

    assert judged.status.tolist() == ["novel", "known", "known"]
    np.testing.assert_allclose(judged.novelty, [0.8, 0.5, 0.1], atol=1e-6)
