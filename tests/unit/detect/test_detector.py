"""The detector tells a type that nobody taught from known ones, cell by cell, through whatever genes are measured."""

import numpy as np
import pytest
import scipy.sparse as sp

from canal.errors import StageError
from canal.figures import auroc
from canal.model.novelty.calibration import HeldOutNovelties, NoveltyCalibration, verdicts
from canal.model.novelty.detector import RANK, BankProfiles, GeneSetDetector, NoveltyDetector
from canal.model.novelty.scores import (
    TypeScale,
    centre_distance,
    combined,
    energy,
    max_probability,
    weighted_quantiles,
    whitening_of,
)
from canal.model.novelty.space import build_space, known_classes
from tests.unit.detect.toy import GENES, TYPES, make_cells, make_known, make_profiles, make_summary

ALL = np.ones(GENES, dtype=bool)


def make_detector(*, calibrated: bool = True, stages: int = 1) -> NoveltyDetector:
    known = tuple(s for stage in range(1, stages + 1) for s in make_known(stage=stage, seed=10 * stage))
    detector = NoveltyDetector(
        statistics=known,
        measured={stage: np.arange(GENES) for stage in range(1, stages + 1)},
        calibration=NoveltyCalibration(),
    )
    if not calibrated:
        return detector
    held = detector.score_held_out(1, ALL, GENES, make_cells(60, seed=100))
    return NoveltyDetector(
        statistics=known, measured=detector.measured, calibration=NoveltyCalibration().with_stage(held)
    )


def make_bank(n: int = 20) -> BankProfiles:
    return BankProfiles(
        values=make_cells(n, seed=200),
        types=np.repeat(np.array(TYPES, dtype=object), n),
        stages=np.ones(n * len(TYPES), dtype=np.int64),
    )


def seen_through(detector: NoveltyDetector, columns: np.ndarray, bank: BankProfiles | None = None) -> GeneSetDetector:
    seen = np.zeros(GENES, dtype=bool)
    seen[columns] = True
    return detector.for_genes(seen, len(columns), bank)


def unit_over(values: sp.csr_matrix, columns: np.ndarray) -> sp.csr_matrix:
    rows = values[:, columns].toarray()
    return sp.csr_matrix(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_unknown_type_is_novel_and_known_cells_are_not():
    """Most cells of a new type are called novel, about alpha of the known ones."""
    detector = make_detector().for_genes(ALL, GENES, make_bank())

    known, new = detector.score(make_cells(200, seed=300)), detector.score(make_profiles(5, 200, seed=400))

    truth = np.repeat([False, True], [len(known.novelty), 200])
    assert auroc(np.concatenate([known.novelty, new.novelty]), truth) > 0.98
    assert (verdicts(new.p_value, 0.05) == "novel").mean() > 0.9
    assert 0.01 < (known.p_value <= 0.05).mean() < 0.1


def test_cells_between_two_types_are_novel():
    """A profile half one type, half another is claimed by neither."""
    detector = make_detector().for_genes(ALL, GENES)
    a, b = make_profiles(0, 100, seed=500), make_profiles(1, 100, seed=501)

    between = detector.score(unit_over(a + b, np.arange(GENES)))

    assert (between.p_value <= 0.05).mean() > 0.8


@pytest.mark.parametrize("bank", [None, make_bank()], ids=["no bank", "bank"])
def test_a_cell_is_judged_alone(bank):
    """The verdict on a cell does not depend on which others are in the file, nor on their order."""
    detector = make_detector().for_genes(ALL, GENES, bank)
    cells = sp.vstack([make_cells(5, seed=600), make_profiles(6, 5, seed=601)], format="csr")
    together = detector.score(cells)

    alone = [detector.score(cells[i]) for i in range(cells.shape[0])]
    reversed_ = detector.score(cells[::-1])

    np.testing.assert_allclose([s.novelty[0] for s in alone], together.novelty, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose([s.p_value[0] for s in alone], together.p_value, atol=1e-6)
    np.testing.assert_allclose(reversed_.novelty[::-1], together.novelty, rtol=1e-4, atol=1e-4)


def test_the_same_model_gives_the_same_verdict():
    """Two detectors of one model agree bit by bit."""
    cells = make_cells(10, seed=700)

    first, second = (make_detector().for_genes(ALL, GENES).score(cells) for _ in range(2))

    assert (first.novelty == second.novelty).all()
    assert (first.p_value == second.p_value).all()


def test_half_of_the_genes_still_tell():
    """Through the genes that a file measures, a missing gene is not taken for zero."""
    columns = np.arange(0, GENES, 2)
    detector = seen_through(make_detector(), columns)
    known, new = unit_over(make_cells(100, seed=800), columns), unit_over(make_profiles(5, 100, seed=801), columns)

    novelty = np.concatenate([detector.novelty(known), detector.novelty(new)])

    assert auroc(novelty, np.repeat([False, True], [300, 100])) > 0.95


def test_neighbours_are_real_cells_of_the_type():
    """The evidence shows rows of the bank, nearly all of the cell's own type."""
    bank = make_bank()
    detector = make_detector().for_genes(ALL, GENES, bank)

    found = detector.neighbours(make_profiles(1, 50, seed=900), 5)

    assert found.indices.shape == (50, 5)
    assert (bank.types[found.indices] == TYPES[1]).mean() > 0.95


def test_bank_alone_calibrates():
    """A model of an older stage without calibration is judged by its bank."""
    detector = make_detector(calibrated=False).for_genes(ALL, GENES, make_bank(60))

    assert (detector.score(make_profiles(5, 100, seed=901)).p_value <= 0.05).mean() > 0.8


def test_without_calibration_and_bank_there_is_no_p_value():
    """The message says how to get one; the novelty itself is there."""
    detector = make_detector(calibrated=False).for_genes(ALL, GENES)

    assert len(detector.novelty(make_cells(2, seed=1))) == 6
    with pytest.raises(StageError, match="no novelty calibration"):
        detector.score(make_cells(2, seed=1))


@pytest.mark.parametrize(
    ("bank", "k", "match"),
    [(None, 3, "no cell in the example bank"), (make_bank(2), 7, "from 1 to 6")],
    ids=["no bank", "more than the bank"],
)
def test_neighbours_that_are_not_there_are_explained(bank, k, match):
    """Evidence needs a bank that is large enough."""
    with pytest.raises(StageError, match=match):
        make_detector().for_genes(ALL, GENES, bank).neighbours(make_cells(1, seed=1), k)


def test_no_cells_give_no_scores():
    """An empty block is not an error."""
    assert len(make_detector().for_genes(ALL, GENES).score(sp.csr_matrix((0, GENES), dtype=np.float32)).novelty) == 0


def test_type_of_a_single_cell_is_no_trouble():
    """A type with one cell has no spread of its own; the others' serves it."""
    lone = make_summary(make_profiles(3, 1, seed=2), "lone")
    known = (*make_known(), lone)
    detector = NoveltyDetector(statistics=known, measured={1: np.arange(GENES)}, calibration=NoveltyCalibration())

    novelty = detector.for_genes(ALL, GENES).novelty(make_cells(20, seed=3))

    assert np.isfinite(novelty).all()


def test_coordinates_of_the_classes_follow_from_the_cells():
    """Means and covariances from the statistics are those of the projected cells, before the prior is mixed in."""
    profiles = make_profiles(0, 400, seed=4)
    known = (make_summary(profiles, "B", rank=79), *make_known()[1:])
    space = build_space(known, {1: np.arange(GENES)}, ALL)
    projected = np.asarray(profiles @ space.directions, dtype=np.float64)

    np.testing.assert_allclose(space.means[0], projected.mean(axis=0), atol=1e-4)
    own = np.cov(projected.T)
    mixed = (400 * own + 20 * space.pooled) / 420 + space.pooled / 400
    np.testing.assert_allclose(space.covariances[0], mixed, atol=1e-4)


def test_types_are_seen_through_the_stages_that_measured_the_genes():
    """A stage with few of the file's genes does not speak for a type that another stage saw in full."""
    few = make_summary(make_profiles(0, 50, seed=5)[:, :20], "B", stage=2)
    only = make_summary(make_profiles(4, 50, seed=6)[:, :20], "only there", stage=2)

    found = known_classes((*make_known(), few, only), {1: np.arange(GENES), 2: np.arange(20)}, ALL)

    assert [(c.stage, c.name) for c in found] == [(1, "B"), (1, "NK"), (1, "T"), (2, "only there")]


def test_scores_by_hand():
    """Standardised scores, simple scores and whitening are what their formulas say."""
    score, claimed = np.arange(20.0), np.repeat([0, 1], [18, 2])
    scale = TypeScale.of(score, claimed, 2)

    assert scale.low[0] == np.quantile(score[:18], 0.5)
    assert scale.low[1] == np.quantile(score, 0.5)
    assert scale.standardised(scale.high, np.array([0, 1])) == pytest.approx([1.0, 1.0])
    np.testing.assert_allclose(combined([np.array([-1.0, 3.0]), np.zeros(2)]), [-np.log(2), np.log(4)])
    np.testing.assert_allclose(max_probability(np.zeros((1, 4))), 0.25)
    np.testing.assert_allclose(energy(np.zeros((1, 4))), -np.log(4))
    even, skewed = np.ones(1001), np.r_[np.zeros(500) + 1e-9, np.ones(501)]
    assert weighted_quantiles(np.arange(1001.0), even) == pytest.approx((500, 900.4))
    assert weighted_quantiles(np.arange(1001.0), skewed)[0] == pytest.approx(750, abs=1)
    whitening = whitening_of(np.diag([4.0, 1.0]))
    np.testing.assert_allclose(whitening @ whitening.T, np.diag([1 / 4.0025, 1 / 1.0025]))


def test_a_later_stage_leaves_the_calibration_right():
    """Known cells of the first stage are not called novel more often after a second one."""
    first = make_detector()
    both = NoveltyDetector(
        statistics=(*first.statistics, *make_known(stage=2, seed=50)),
        measured={1: np.arange(GENES), 2: np.arange(GENES)},
        calibration=first.calibration,
    )

    called = both.for_genes(ALL, GENES).score(make_cells(200, seed=300)).p_value <= 0.05

    assert 0.01 < called.mean() < 0.1


def test_the_distance_is_whitened_and_reduced_for_few_cells():
    """Written out: two units along a direction of spread two count as one; a centre of one cell is half as far."""
    whitening = whitening_of(np.diag([4.0, 1.0]))
    means, n = np.array([[2.0, 0.0], [0.0, 9.0]]), np.array([1.0, 1000.0])

    distance, nearest = centre_distance(np.array([[0.0, 0.0], [0.0, 9.0]]), whitening, means, n)

    assert nearest.tolist() == [0, 1]
    assert distance == pytest.approx([0.5, 0.0], abs=1e-2)


def test_the_novelty_is_the_sum_of_both_scores():
    """The distance to the centres and the angle to the drawn cells, each on its scale; written out."""
    detector = make_detector().for_genes(ALL, GENES)
    projected = np.asarray(sp.vstack([make_cells(5, seed=600), make_profiles(6, 5, seed=601)]) @ detector.weights)
    space, d = detector._space, len(detector._whitening)

    novelty, _ = detector.claims(projected)

    distance, nearest = centre_distance(
        projected[:, :d].astype(float), detector._whitening, space.means[:, :d], space.n
    )
    drawn = detector._drawn.search(projected[:, d:], RANK)
    angle = drawn.distances[:, -1].astype(float) ** 2 / 2
    expected = combined(
        [
            detector._scales[0].standardised(distance, space.type_index[nearest]),
            detector._scales[1].standardised(angle, detector._drawn_type[drawn.indices[:, 0]]),
        ]
    )
    np.testing.assert_allclose(novelty, expected, rtol=1e-6)


def test_what_each_known_cell_counts():
    """A table whose scale has moved is moved along and loses its say; a bank cell counts half a held-out one."""
    plain = make_detector(calibrated=False)
    low, high = plain.for_genes(ALL, GENES).drawn_scale(1)
    moved = (low - 0.2 * (high - low), high - 0.2 * (high - low))
    table = HeldOutNovelties(stage=1, genes=GENES, novelty=np.linspace(0.0, 2.0, 50), low=moved[0], high=moved[1])
    calibration = NoveltyCalibration().with_stage(table)
    detector = NoveltyDetector(statistics=plain.statistics, measured=plain.measured, calibration=calibration)

    alone = detector.for_genes(ALL, GENES)._reference_cells
    beside = detector.for_genes(ALL, GENES, make_bank(20))._reference_cells

    assert alone.above[0] == pytest.approx(50 * 0.8**6)
    np.testing.assert_allclose(alone.novelty, table.rescaled(low, high))
    assert beside.above[0] - alone.above[0] == pytest.approx(0.5 * 60)
