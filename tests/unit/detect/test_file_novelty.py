"""Novelty among a file's own cells: the technology's move is taken off, and neighbouring cells vote."""

import numpy as np
import pytest
import scipy.sparse as sp

from canal.figures import auroc
from canal.model.adapting.components import leading_components
from canal.model.adapting.novelty import FileNovelty, common_move, judge_file
from canal.model.novelty.detector import GeneSetDetector
from tests.unit.detect.test_detector import ALL, make_bank, make_detector
from tests.unit.detect.toy import GENES, make_cells, make_profiles


def other_technology(cells: sp.csr_matrix, strength: float = 1.0) -> sp.csr_matrix:
    """Return the cells as a technology sees them that takes some genes in more, and others less."""
    factors = np.exp(strength * np.random.default_rng(7).normal(0.0, 1.0, GENES))
    moved = cells.toarray() * factors
    return sp.csr_matrix(moved / np.linalg.norm(moved, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def detector() -> GeneSetDetector:
    return make_detector().for_genes(ALL, GENES, make_bank())


def file_novelty(detector: GeneSetDetector, cells: sp.csr_matrix) -> FileNovelty:
    components = leading_components(cells)
    return judge_file(detector, cells @ detector.weights, components, components.of(cells))


def test_what_a_technology_adds_is_taken_off(detector: GeneSetDetector) -> None:
    """Known cells of another technology look new; not so once their common move is taken off."""
    cells = other_technology(make_cells(150, seed=300), strength=0.3)
    projected = cells @ detector.weights

    moved = detector.claims(projected - common_move(detector, projected))[0]

    plain = detector.claims(projected)[0]
    same = detector.claims(make_cells(150, seed=300) @ detector.weights)[0]
    assert np.median(plain) > np.median(same) + 0.5
    assert np.median(moved) < np.median(same) + 0.75 * (np.median(plain) - np.median(same))


def test_cells_like_those_taught_hardly_move(detector: GeneSetDetector) -> None:
    """There is nothing to take off."""
    projected = make_cells(150, seed=300) @ detector.weights

    move = common_move(detector, projected)

    away = common_move(detector, other_technology(make_cells(150, seed=300)) @ detector.weights)
    assert np.linalg.norm(move) < 0.3 * np.linalg.norm(away)


def test_one_claiming_type_moves_less_than_many(detector: GeneSetDetector) -> None:
    """A file whose cells one type claims may be of a type that nobody taught: what it moves by is shrunk."""
    new = make_profiles(5, 300, seed=400) @ detector.weights

    novelty = detector.claims(new - common_move(detector, new))[0]

    assert np.median(novelty) > np.median(detector.claims(make_cells(100, seed=301) @ detector.weights)[0]) + 0.5


def test_a_group_of_new_cells_is_told_better_than_cell_by_cell(detector: GeneSetDetector) -> None:
    """Another technology and a type nobody taught: order and false alarms are better among the file's cells."""
    cells = other_technology(sp.vstack([make_cells(150, seed=300), make_profiles(5, 60, seed=400)], format="csr"))
    new = np.arange(cells.shape[0]) >= cells.shape[0] - 60

    judged = file_novelty(detector, cells)
    novelty = judged.of(cells)

    alone = detector.score(cells)
    assert auroc(novelty, new) >= auroc(alone.novelty, new)
    assert auroc(novelty, new) > 0.95
    assert judged.shift > 0
    alarms = (detector.p_values(novelty)[~new] <= 0.05).mean()
    assert alarms < 0.5 * (alone.p_value[~new] <= 0.05).mean()
    assert (detector.p_values(novelty)[new] <= 0.05).mean() > 0.8


def test_a_cell_gets_the_same_novelty_whatever_cells_are_asked_for_with_it(detector: GeneSetDetector) -> None:
    """Only the sample says what the file is like."""
    cells = other_technology(make_cells(150, seed=300))
    judged = file_novelty(detector, cells[:200])

    np.testing.assert_allclose(judged.of(cells)[300:320], judged.of(cells[300:320]), atol=1e-5)
